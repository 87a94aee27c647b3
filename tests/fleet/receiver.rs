//! An HTTP server that takes OTLP requests, decodes them with the messages of OpenTelemetry, and
//! answers as a test wants.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tests::eventually;
use tests::traffic::LOOPBACK;

/// A request, without compression.
#[derive(Clone)]
pub struct Request {
    pub at: Instant,
    /// The request line and the headers, in lower case.
    pub head: String,
    pub body: Vec<u8>,
}

impl Request {
    pub fn is_for(&self, path: &str) -> bool {
        self.head.starts_with(&format!("post {path} http/1.1"))
    }

    pub fn metrics(&self) -> ExportMetricsServiceRequest {
        ExportMetricsServiceRequest::decode(&*self.body).expect("metrics")
    }

    pub fn spans(&self) -> Vec<Span> {
        let request = ExportTraceServiceRequest::decode(&*self.body).expect("spans");
        let resources = request.resource_spans.into_iter();
        let scopes = resources.flat_map(|it| it.scope_spans);
        scopes.flat_map(|it| it.spans).collect()
    }
}

pub struct Answer {
    pub delay: Duration,
    /// The status with its reason, and further headers.
    pub head: &'static str,
}

pub const OK: Answer = Answer {
    delay: Duration::ZERO,
    head: "200 OK",
};

/// A running server.
pub struct Receiver {
    pub port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Receiver {
    /// Starts a server in the namespace of this thread. `answer` gets the number of the request,
    /// from 0.
    pub fn start(port: u16, answer: impl Fn(usize) -> Answer + Send + Sync + 'static) -> Receiver {
        let listener = TcpListener::bind((LOOPBACK, port)).expect("a port");
        let requests = Arc::new(Mutex::new(vec![]));
        let received = requests.clone();
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (received, answer) = (received.clone(), answer.clone());
                std::thread::spawn(move || {
                    converse(stream.expect("a stream"), &received, &*answer)
                });
            }
        });
        Receiver { port, requests }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("requests").clone()
    }

    /// Waits for this number of requests.
    pub fn wait_for(&self, n: usize) -> Vec<Request> {
        eventually(&format!("{n} requests"), || {
            let requests = self.requests();
            (requests.len() >= n).then_some(requests)
        })
    }

    /// Returns the spans in the order in which they came, each once.
    pub fn spans(&self) -> Vec<Span> {
        let requests = self.requests();
        let requests = requests.iter().filter(|it| it.is_for("/v1/traces"));
        let mut ids = std::collections::HashSet::new();
        let spans = requests.flat_map(Request::spans);
        spans.filter(|it| ids.insert(it.span_id.clone())).collect()
    }

    /// Returns the metrics with this name, in the order in which they came.
    pub fn metrics(&self, name: &str) -> Vec<Metric> {
        let requests = self.requests();
        let requests = requests.iter().filter(|it| it.is_for("/v1/metrics"));
        let resources = requests.flat_map(|it| it.metrics().resource_metrics);
        let scopes = resources.flat_map(|it| it.scope_metrics);
        let metrics = scopes.flat_map(|it| it.metrics);
        metrics.filter(|it| it.name == name).collect()
    }

    /// Returns the last value of a sum for each value of an attribute. Values of 0 are left out.
    pub fn counts(&self, name: &str, attribute: &str) -> std::collections::BTreeMap<String, u64> {
        let mut counts = std::collections::BTreeMap::new();
        let metrics = self.metrics(name);
        let Some(Data::Sum(sum)) = metrics.last().and_then(|it| it.data.clone()) else {
            return counts;
        };
        use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
        for point in sum.data_points {
            let key = text(&point.attributes, attribute).unwrap_or_default();
            if let Some(Value::AsDouble(value)) =
                point.value.filter(|it| *it != Value::AsDouble(0.0))
            {
                *counts.entry(key).or_default() += value as u64;
            }
        }
        counts
    }
}

/// Returns an attribute as text.
pub fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|it| it.key == key)?;
    let AnyValue { value } = found.value.clone()?;
    Some(match value? {
        any_value::Value::StringValue(value) => value,
        any_value::Value::IntValue(value) => value.to_string(),
        any_value::Value::BoolValue(value) => value.to_string(),
        any_value::Value::DoubleValue(value) => value.to_string(),
        value => panic!("{key}: {value:?}"),
    })
}

pub fn resource_text(resource: &Option<Resource>, key: &str) -> Option<String> {
    text(&resource.as_ref()?.attributes, key)
}

/// Answers the requests of one connection.
fn converse(stream: TcpStream, received: &Mutex<Vec<Request>>, answer: &dyn Fn(usize) -> Answer) {
    let mut reader = BufReader::new(&stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            match reader.read_line(&mut head) {
                Ok(1..) => {}
                _ => return,
            }
        }
        let head = head.to_ascii_lowercase();
        let header = |name: &str| {
            let mut lines = head.lines();
            lines.find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(": ")?.to_owned()))
        };
        let length = header("content-length").expect("a length");
        let mut body = vec![0; length.parse().expect("a number")];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        if header("content-encoding").as_deref() == Some("gzip") {
            let mut plain = vec![];
            let mut decoder = flate2::read::GzDecoder::new(&*body);
            decoder.read_to_end(&mut plain).expect("gzip");
            body = plain;
        }
        let at = Instant::now();
        let n = {
            let mut requests = received.lock().expect("requests");
            requests.push(Request { at, head, body });
            requests.len() - 1
        };
        let answer = answer(n);
        std::thread::sleep(answer.delay);
        let head = answer.head;
        let text = format!("HTTP/1.1 {head}\r\nContent-Length: 0\r\n\r\n");
        if (&stream).write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}
