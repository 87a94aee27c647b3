//! `--otlp`: the metrics, and connections as spans, to an OpenTelemetry collector (OTLP over HTTP).
//!
//! One thread takes a snapshot of the metrics in each interval and puts it into a queue. The pipeline
//! puts spans into another queue. For each queue, a thread sends the entries, and sends them again
//! until the collector takes them. The queues are bounded, and their drops are counted.

mod backoff;
mod client;
mod metrics;
mod proto;
mod queue;
mod sender;
mod settings;
mod spans;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::Builder;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::prometheus_protobuf;
use prometheus_client::registry::Registry;
use prost::Message;

use self::client::Client;
use self::metrics::Snapshots;
use self::proto::{KeyValue, Resource, Span, Value, attribute};
use self::queue::{Batching, Entry, Queue, WhenFull};
use self::sender::Sending;
pub use self::sender::Totals;
pub use self::settings::Settings;
use self::settings::Traces;
pub use self::spans::Tracer;
use self::spans::{Ids, Own};
use crate::privileges;

/// Upper bound on the snapshots in the queue, in bytes.
const SNAPSHOTS_BYTES: u64 = 32 << 20;

/// How long the end may take: the time in which the rest is sent.
const END_AT_MOST: Duration = Duration::from_secs(5);

/// A kind of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    Metrics,
    Traces,
}

impl Signal {
    const ALL: [Signal; 2] = [Signal::Metrics, Signal::Traces];

    /// Returns the signal's part of the names of variables.
    fn variable(self) -> &'static str {
        match self {
            Signal::Metrics => "METRICS",
            Signal::Traces => "TRACES",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Signal::Metrics => "metrics",
            Signal::Traces => "traces",
        }
    }

    /// Returns the name of the units that are counted.
    fn units(self) -> &'static str {
        match self {
            Signal::Metrics => "data points",
            Signal::Traces => "spans",
        }
    }

    /// Returns the path that is appended to a collector's base URL.
    fn path(self) -> &'static str {
        match self {
            Signal::Metrics => "/v1/metrics",
            Signal::Traces => "/v1/traces",
        }
    }
}

/// A running exporter.
pub struct Otlp {
    resource: Resource,
    metrics: Sending<Vec<u8>>,
    traces: Option<Sending<Vec<Span>>>,
    /// The ports of the collectors.
    ports: Vec<u16>,
    collecting: Option<Collecting>,
}

/// The thread that takes snapshots.
struct Collecting {
    /// Ends the thread, which takes a last snapshot.
    end: Sender<()>,
    ended: Receiver<()>,
}

impl Otlp {
    /// Starts the threads that send.
    ///
    /// # Errors
    /// There is no memory for a thread.
    pub fn start(settings: &Settings, totals: &Totals) -> io::Result<Otlp> {
        let resource = resource(&settings.resource);
        let one = Batching {
            units: 1,
            delay: Duration::ZERO,
        };
        let metrics = Sending::start(
            Signal::Metrics,
            Client::new(settings.metrics.clone()),
            Queue::new(SNAPSHOTS_BYTES, WhenFull::DropOldest),
            one,
            totals.clone(),
            |batch| batch.into_iter().flat_map(|it| it.item).collect(),
        )?;
        let traces = settings.traces.as_ref();
        let start = |traces| start_traces(traces, totals, resource.clone());
        let endpoints = [&settings.metrics]
            .into_iter()
            .chain(traces.map(|it| &it.endpoint));
        Ok(Otlp {
            ports: endpoints.map(|it| it.port()).collect(),
            traces: traces.map(start).transpose()?,
            resource,
            metrics,
            collecting: None,
        })
    }

    /// Returns what makes spans of connections that went wrong, or waited longer than `slow`. `None`
    /// if no spans are sent.
    pub fn tracer(&self, slow: Duration) -> Option<Tracer> {
        let process = std::fs::read_to_string("/proc/self/comm").unwrap_or_default();
        let own = Own {
            process: process.trim_end().to_owned(),
            ports: self.ports.clone(),
        };
        let adder = self.traces.as_ref()?.adder();
        let slow_ns = slow.as_nanos().try_into().unwrap_or(u64::MAX);
        let ids = Ids {
            seed: [(); 3].map(|()| fastrand::u64(..)),
        };
        Some(Tracer::new(adder, slow_ns, ids, own))
    }

    /// Starts the thread that takes snapshots of the metrics.
    ///
    /// # Errors
    /// There is no memory for a thread.
    pub fn begin_metrics(
        &mut self,
        settings: &Settings,
        registry: Arc<Registry>,
    ) -> io::Result<()> {
        let snapshots = Snapshots::new(self.resource.clone(), settings.exponential, now_ns());
        let (end, ends) = channel();
        let (sender, ended) = channel();
        let (adder, interval) = (self.metrics.adder(), settings.interval);
        let collect = move || {
            privileges::give_up();
            let add = |entry| adder.add(entry);
            collect(snapshots, &registry, interval, &ends, &add);
            let _ = sender.send(());
        };
        Builder::new().name("otlp-collect".into()).spawn(collect)?;
        self.collecting = Some(Collecting { end, ended });
        Ok(())
    }

    /// Takes the last snapshot of the metrics.
    pub fn end_metrics(&self) {
        if let Some(Collecting { end, ended }) = &self.collecting {
            let _ = end.send(());
            let _ = ended.recv_timeout(END_AT_MOST);
        }
    }

    /// Sends the rest, for at most [`END_AT_MOST`].
    pub fn end(self) {
        let deadline = Instant::now() + END_AT_MOST;
        self.metrics.close(deadline);
        if let Some(traces) = &self.traces {
            traces.close(deadline);
        }
        self.metrics.end(deadline);
        if let Some(traces) = self.traces {
            traces.end(deadline);
        }
    }
}

fn start_traces(
    settings: &Traces,
    totals: &Totals,
    resource: Resource,
) -> io::Result<Sending<Vec<Span>>> {
    let batching = Batching {
        units: settings.batch,
        delay: settings.delay,
    };
    Sending::start(
        Signal::Traces,
        Client::new(settings.endpoint.clone()),
        Queue::new(settings.queue, WhenFull::DropNewest),
        batching,
        totals.clone(),
        move |batch: Vec<Entry<Vec<Span>>>| {
            let spans = batch.into_iter().flat_map(|it| it.item).collect();
            spans::request(&resource, spans).encode_to_vec()
        },
    )
}

/// Takes a snapshot now, one in each interval, and one at the end.
fn collect(
    mut snapshots: Snapshots,
    registry: &Registry,
    interval: Duration,
    ends: &Receiver<()>,
    add: &dyn Fn(Entry<Vec<u8>>),
) {
    let mut next = Instant::now();
    loop {
        let waited = ends.recv_timeout(next.saturating_duration_since(Instant::now()));
        // An encoding fails only if a metric cannot be encoded, and `/metrics` shows that.
        if let Ok(families) = prometheus_protobuf::encode(registry) {
            let snapshot = snapshots.take(families, now_ns());
            let item = snapshot.request.encode_to_vec();
            add(Entry {
                units: snapshot.points,
                size: item.len() as u64,
                item,
            });
        }
        if !matches!(waited, Err(RecvTimeoutError::Timeout)) {
            return;
        }
        // A machine that was suspended makes up for nothing.
        next = (next + interval).max(Instant::now());
    }
}

/// Returns the wall clock time in nanoseconds since 1970.
fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |it| it.as_nanos() as u64)
}

/// Returns the resource: this program on this machine. The attributes of the environment take
/// precedence.
fn resource(given: &[(String, String)]) -> Resource {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let host = host.map(|it| it.trim_end().to_owned()).unwrap_or_default();
    resource_of(&host, given)
}

fn resource_of(host: &str, given: &[(String, String)]) -> Resource {
    let own = [
        ("service.name", "tcptrace"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", host),
        ("host.name", host),
    ];
    let own = own
        .into_iter()
        .filter(|(key, value)| !value.is_empty() && !given.iter().any(|(given, _)| given == key));
    let given = given.iter().map(|(key, value)| (&**key, &**value));
    let text = |(key, value): (&str, &str)| -> KeyValue {
        attribute(key, Value::String(value.to_owned()))
    };
    Resource {
        attributes: own.chain(given).map(text).collect(),
    }
}
