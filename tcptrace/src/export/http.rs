//! The HTTP server: `/metrics` and `/healthz`, on a thread of its own.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::TcpListener as StdListener;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::{prometheus_protobuf, prometheus_text, text};
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::health::Health;
use crate::privileges;

/// How long a client may take, from its connection to its last byte. Prometheus waits 10 s by
/// default.
const CONNECTION_AT_MOST: Duration = Duration::from_secs(10);

/// How long a client may take for the head of its request.
const HEAD_AT_MOST: Duration = Duration::from_secs(5);

/// Upper bound on the head of a request, in bytes.
const HEAD_BYTES: usize = 16 << 10;

/// Upper bound on the connections at the same time. Beyond it, the oldest is closed for a new one, so
/// that idle clients do not keep others waiting.
const CONNECTIONS: usize = 16;

/// How long to wait after a failed accept(), such as one without a free file descriptor.
const PAUSE: Duration = Duration::from_millis(100);

const PLAIN: &str = "text/plain; charset=utf-8";

/// The answers to requests.
struct Site {
    registry: Arc<Registry>,
    health: Arc<Health>,
}

/// A running server.
pub struct Server {
    thread: JoinHandle<()>,
    quit: Arc<Notify>,
}

impl Server {
    /// Starts the thread.
    ///
    /// # Errors
    /// There is no memory for a thread, or too few file descriptors.
    pub fn start(
        listener: StdListener,
        registry: Arc<Registry>,
        health: Arc<Health>,
    ) -> io::Result<Server> {
        listener.set_nonblocking(true)?;
        let site = Arc::new(Site { registry, health });
        let quit = Arc::new(Notify::new());
        let notified = quit.clone();
        let (started, starts) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("http".into())
            .spawn(move || {
                privileges::give_up();
                // A runtime cannot be made in the main thread, which has one.
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                let listening = runtime.and_then(|runtime| {
                    let entered = runtime.enter();
                    let listener = TcpListener::from_std(listener)?;
                    drop(entered);
                    Ok((runtime, listener))
                });
                let (runtime, listener) = match listening {
                    Ok(listening) => listening,
                    Err(error) => {
                        let _ = started.send(Err(error));
                        return;
                    }
                };
                let _ = started.send(Ok(()));
                // The end of the runtime drops the connections that are open.
                runtime.block_on(async {
                    tokio::select! {
                        () = serve(listener, site) => {}
                        () = notified.notified() => {}
                    }
                });
            })?;
        // `recv` fails if the thread panicked before it sent a result.
        starts.recv().map_err(io::Error::other)??;
        Ok(Server { thread, quit })
    }

    /// Ends the server at once. Requests that are being answered are cut off.
    pub fn stop(self) {
        self.quit.notify_one();
        // A panic of the thread has been printed.
        let _ = self.thread.join();
    }
}

async fn serve(listener: TcpListener, site: Arc<Site>) {
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        open.retain(|task| !task.is_finished());
        if open.len() >= CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let site = site.clone();
        let task = tokio::spawn(async move {
            // A client that is slow, or that has gone away, is no fault of this process.
            let _ = tokio::time::timeout(CONNECTION_AT_MOST, converse(stream, &site)).await;
        });
        open.push_back(task.abort_handle());
    }
}

/// Answers one request. Connections are not kept, so that idle clients cannot hold them.
async fn converse(stream: TcpStream, site: &Site) -> hyper::Result<()> {
    let service = service_fn(|request| {
        let response = site.answer(&request);
        async { Ok::<_, Infallible>(response) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_AT_MOST)
        .max_buf_size(HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

impl Site {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        let is_known = matches!(path, "/metrics" | "/healthz");
        if is_known && !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            let methods = HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(ALLOW, methods);
            return response;
        }
        match path {
            "/metrics" => self.metrics(Form::wanted(request.headers().get_all(ACCEPT).iter())),
            "/healthz" => match self.health.problem() {
                None => plain(StatusCode::OK, "ok\n"),
                Some(problem) => plain(StatusCode::SERVICE_UNAVAILABLE, problem),
            },
            _ => plain(StatusCode::NOT_FOUND, "see /metrics and /healthz\n"),
        }
    }

    fn metrics(&self, form: Form) -> Response<Full<Bytes>> {
        match form.encode(&self.registry) {
            Some(body) => response(StatusCode::OK, form.content_type(), body),
            None => plain(StatusCode::INTERNAL_SERVER_ERROR, "cannot encode\n"),
        }
    }
}

fn plain(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    response(status, PLAIN, body.into())
}

fn response(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// A form of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// OpenMetrics text, version 1.0.0.
    OpenMetrics,
    /// Prometheus' protobuf messages, the only form with native histograms.
    Protobuf,
    /// Prometheus text, version 0.0.4.
    Text,
}

impl Form {
    fn content_type(self) -> &'static str {
        match self {
            Form::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Form::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; \
                 encoding=delimited"
            }
            Form::Text => prometheus_text::CONTENT_TYPE,
        }
    }

    /// Returns the metrics in this form; `None` if one cannot be encoded.
    fn encode(self, registry: &Registry) -> Option<Bytes> {
        let mut body = String::new();
        match self {
            Form::OpenMetrics => text::encode(&mut body, registry).ok()?,
            Form::Text => prometheus_text::encode(&mut body, registry).ok()?,
            Form::Protobuf => {
                return prometheus_protobuf::encode_to_vec(registry)
                    .ok()
                    .map(Bytes::from);
            }
        }
        Some(body.into())
    }

    /// Returns the form that the Accept headers prefer (RFC 9110, section 12.5.1); Prometheus text if
    /// they name no form.
    fn wanted<'a>(headers: impl Iterator<Item = &'a HeaderValue>) -> Form {
        let headers = headers.filter_map(|header| header.to_str().ok());
        let ranges = headers.flat_map(|header| header.split(','));
        let mut best = (0.0, Form::Text);
        for (form, quality) in ranges.filter_map(Form::of_range) {
            if quality > best.0 {
                best = (quality, form);
            }
        }
        best.1
    }

    /// Returns the form that a media range names, and its quality.
    fn of_range(range: &str) -> Option<(Form, f32)> {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next()?.to_ascii_lowercase();
        let parameters = parts.filter_map(|part| part.split_once('='));
        let parameters: Vec<(&str, &str)> = parameters
            .map(|(name, value)| (name.trim(), value.trim().trim_matches('"')))
            .collect();
        let value = |name: &str| {
            let found = parameters
                .iter()
                .find(|(it, _)| it.eq_ignore_ascii_case(name));
            found.map(|(_, value)| *value)
        };
        let quality = value("q").map_or(Some(1.0), |q| q.parse().ok())?;
        let form = match &*media {
            "application/openmetrics-text" => Form::OpenMetrics,
            "application/vnd.google.protobuf"
                if value("proto") == Some("io.prometheus.client.MetricFamily")
                    && value("encoding") == Some("delimited") =>
            {
                Form::Protobuf
            }
            "text/plain" | "text/*" | "*/*" => Form::Text,
            _ => return None,
        };
        Some((form, quality))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(accept: &str) -> Form {
        let header = HeaderValue::from_str(accept).unwrap();
        Form::wanted(std::iter::once(&header))
    }

    #[test]
    fn the_form_with_the_highest_quality_is_chosen() {
        for (accept, form) in [
            // Prometheus 2.42.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;\
                 version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Form::OpenMetrics,
            ),
            // Prometheus 2.42 with native histograms.
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
                 encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Form::Protobuf,
            ),
            ("text/plain;version=0.0.4", Form::Text),
            (
                "text/plain;q=0.9, application/openmetrics-text;q=0.2",
                Form::Text,
            ),
            ("*/*", Form::Text),
            ("", Form::Text),
            ("application/json", Form::Text),
            ("application/openmetrics-text;q=0", Form::Text),
            ("application/openmetrics-text;q=wrong", Form::Text),
            ("application/vnd.google.protobuf;encoding=text", Form::Text),
            ("APPLICATION/OpenMetrics-Text; Q=0.5", Form::OpenMetrics),
        ] {
            assert_eq!(wanted(accept), form, "{accept}");
        }
        assert_eq!(Form::wanted(std::iter::empty()), Form::Text);
    }
}
