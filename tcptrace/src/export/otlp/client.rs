//! Requests to a collector: OTLP over HTTP, with protobuf bodies.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;
use ureq::http::Response as HttpResponse;
use ureq::http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use ureq::{Agent, Body};

use super::backoff::{is_retryable, retry_after};
use super::proto::{Response, Status};
use super::settings::Endpoint;
use crate::stdio::plain;

/// Upper bound on the part of an answer that is read, in bytes.
const ANSWER_BYTES: u64 = 64 << 10;

/// Upper bound on the text of an answer that is repeated in a message, in characters.
const TEXT_CHARS: usize = 200;

/// The result of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The collector took the data, except the rejected part.
    Taken { rejected: u64, message: String },
    /// The same request may succeed later.
    Failed {
        why: String,
        /// The time that the collector asks to wait.
        retry_after: Option<Duration>,
    },
    /// The same request will never succeed.
    Refused { why: String },
}

/// A client with kept connections to one endpoint.
pub struct Client {
    agent: Agent,
    endpoint: Endpoint,
}

impl Client {
    pub fn new(endpoint: Endpoint) -> Client {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("tcptrace/", env!("CARGO_PKG_VERSION")))
            .build();
        Client {
            agent: config.into(),
            endpoint,
        }
    }

    pub fn url(&self) -> &str {
        &self.endpoint.url
    }

    /// Makes the body of a request. It can be sent several times.
    ///
    /// # Errors
    /// The compression failed.
    pub fn body(&self, message: Vec<u8>) -> io::Result<Vec<u8>> {
        if !self.endpoint.gzip {
            return Ok(message);
        }
        let mut encoder = GzEncoder::new(vec![], Compression::fast());
        encoder.write_all(&message)?;
        encoder.finish()
    }

    /// Sends a body. Blocks for at most the endpoint's timeout, and `at_most` if that is shorter.
    pub fn post(&self, body: &[u8], at_most: Option<Duration>) -> Outcome {
        let timeout = self.endpoint.timeout.min(at_most.unwrap_or(Duration::MAX));
        let mut request = (self.agent.post(&self.endpoint.url))
            .config()
            .timeout_global(Some(timeout))
            .build()
            .header(CONTENT_TYPE, "application/x-protobuf");
        if self.endpoint.gzip {
            request = request.header(CONTENT_ENCODING, "gzip");
        }
        for (name, value) in &self.endpoint.headers {
            request = request.header(name, value);
        }
        match request.send(body) {
            Ok(response) => outcome(response),
            Err(error) => Outcome::Failed {
                why: words(&error, timeout),
                retry_after: None,
            },
        }
    }
}

fn outcome(mut response: HttpResponse<Body>) -> Outcome {
    let status = response.status();
    let asked = response.headers().get(RETRY_AFTER);
    let asked = asked.and_then(|it| retry_after(it.to_str().ok()?, SystemTime::now()));
    let body = response.body_mut().with_config().limit(ANSWER_BYTES);
    // An answer that is cut off has its status nevertheless.
    let body = body.read_to_vec().unwrap_or_default();
    if status.is_success() {
        let answer = Response::decode(&*body).unwrap_or_default();
        let partial = answer.partial_success.unwrap_or_default();
        return Outcome::Taken {
            rejected: partial.rejected.try_into().unwrap_or(0),
            message: short(&partial.error_message),
        };
    }
    let text = Status::decode(&*body).map_or_else(
        |_| short(&String::from_utf8_lossy(&body)),
        |status| short(&status.message),
    );
    let why = match text.is_empty() {
        true => format!("HTTP {status}"),
        false => format!("HTTP {status}: {text}"),
    };
    match is_retryable(status.as_u16()) {
        true => Outcome::Failed {
            why,
            retry_after: asked,
        },
        false => Outcome::Refused { why },
    }
}

/// Returns the beginning of a text, without the spaces around it.
fn short(text: &str) -> String {
    text.trim().chars().take(TEXT_CHARS).collect()
}

/// Returns the words for a request without an answer.
fn words(error: &ureq::Error, timeout: Duration) -> String {
    match error {
        ureq::Error::Io(error) => plain(error),
        ureq::Error::Timeout(_) => format!("no answer within {timeout:?}"),
        ureq::Error::HostNotFound => "the host's name is not known".to_owned(),
        other => other.to_string(),
    }
}
