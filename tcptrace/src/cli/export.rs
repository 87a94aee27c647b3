//! The options of `tcptrace export`.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use super::{Attach, Filters, Why};
use crate::capture::Request;

#[derive(Debug, Args)]
pub struct Export {
    /// Where to serve /metrics and /healthz. A socket that systemd passes takes precedence
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9807")]
    pub listen: SocketAddr,

    /// Also send the metrics to an OpenTelemetry collector (OTLP over HTTP). URL is its base, such as
    /// http://localhost:4318. Without URL, the variable OTEL_EXPORTER_OTLP_ENDPOINT counts, or else
    /// that address. The other variables of OTLP exporters count as well
    #[arg(long, value_name = "URL", num_args = 0..=1, default_missing_value = "")]
    pub otlp: Option<String>,

    /// Also send a span for each connection that went wrong, or that waited longer than the time of
    /// --slow
    #[arg(long, requires = "otlp")]
    pub otlp_traces: bool,

    /// A handshake, or a wait in the accept queue, that is longer than TIME has a span
    #[arg(
        long,
        value_name = "TIME",
        value_parser = humantime::parse_duration,
        default_value = "100ms"
    )]
    pub slow: Duration,

    /// How many listeners, and processes with clients, have metrics of their own. The others count
    /// together as listener="other"
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub max_listeners: u32,

    #[command(flatten)]
    pub why: Why,

    /// How to trace accept(); auto takes the best method that this kernel supports
    #[arg(long, value_name = "METHOD", default_value = "auto")]
    pub attach: Attach,

    /// Size of the kernel's event buffer, such as 512K or 8M
    #[arg(long, value_name = "BYTES", default_value = "4M", value_parser = super::parse_bytes)]
    pub ring_size: u32,

    // The filters are the last field, because clap puts all later options under their heading, too.
    #[command(
        flatten,
        next_help_heading = "Filters (all given filters must match; several values of one filter are alternatives)"
    )]
    pub filters: Filters,
}

impl Export {
    /// Returns a message if two options contradict each other.
    pub(super) fn contradiction(&self) -> Option<&'static str> {
        let filtered = !self.filters.selecting.states.is_empty();
        filtered.then_some("export needs every state of a connection: leave --state out")
    }

    /// Returns the URL of --otlp, if it has one. `None` if the option is not given.
    pub fn otlp_url(&self) -> Option<Option<&str>> {
        let url = self.otlp.as_deref()?;
        Some(Some(url).filter(|it| !it.is_empty()))
    }

    pub fn request(&self) -> Request {
        Request {
            filter: self.filters.filter(),
            ring_bytes: self.ring_size,
            mode: self.attach.mode(),
            why_ns: self.why.ns(),
            ..Request::default()
        }
    }
}
