//! The thread that sends the entries of a queue.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, channel};
use std::thread::Builder;
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::Signal;
use super::backoff::Backoff;
use super::client::{Client, Outcome};
use super::queue::{Batching, Entry, Queue};
use crate::privileges::{self, Role};
use crate::stdio::say;

/// How much longer than its deadline a sender may take to end, for a request with a timeout that
/// ends at the deadline.
const GRACE: Duration = Duration::from_millis(500);

/// Time between two messages about drops.
const REPORT_EVERY: Duration = Duration::from_secs(60);

/// The reason of a drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drop {
    QueueFull,
    /// The collector answered that it will never take the request.
    Refused,
    /// The collector took the request without some of its contents.
    Rejected,
    /// The exporter ended before the collector took them.
    End,
}

impl Drop {
    fn name(self) -> &'static str {
        match self {
            Drop::QueueFull => "queue_full",
            Drop::Refused => "refused",
            Drop::Rejected => "rejected",
            Drop::End => "end",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfSignal {
    signal: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfDrop {
    signal: &'static str,
    reason: &'static str,
}

/// The metrics about the export itself.
#[derive(Clone, Default)]
pub struct Totals {
    sent: Family<OfSignal, Counter<u64, AtomicU64>>,
    dropped: Family<OfDrop, Counter<u64, AtomicU64>>,
    retries: Family<OfSignal, Counter<u64, AtomicU64>>,
    length: Family<OfSignal, Gauge>,
}

impl Totals {
    /// Adds the metrics to a registry.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("tcptrace_otlp");
        registry.register(
            "sent",
            "Data points and spans that a collector took",
            self.sent.clone(),
        );
        registry.register(
            "dropped",
            "Data points and spans that no collector took and that are given up",
            self.dropped.clone(),
        );
        registry.register(
            "retries",
            "Requests to a collector that failed and are sent again",
            self.retries.clone(),
        );
        registry.register(
            "queue_length",
            "Data points and spans that wait for a collector",
            self.length.clone(),
        );
    }
}

/// The metrics about one signal.
struct SignalTotals {
    signal: Signal,
    all: Totals,
}

impl SignalTotals {
    fn new(signal: Signal, all: Totals) -> SignalTotals {
        let totals = SignalTotals { signal, all };
        // Prometheus sees no increase in a counter that first appears with 1.
        totals.sent(0);
        totals.retries(0);
        totals.length(0);
        for reason in [Drop::QueueFull, Drop::Refused, Drop::Rejected] {
            totals.dropped(reason, 0);
        }
        totals
    }

    fn of(&self) -> OfSignal {
        OfSignal {
            signal: self.signal.name(),
        }
    }

    fn sent(&self, units: u64) {
        self.all.sent.get_or_create(&self.of()).inc_by(units);
    }

    fn retries(&self, n: u64) {
        self.all.retries.get_or_create(&self.of()).inc_by(n);
    }

    fn length(&self, units: u64) {
        let units = units.try_into().unwrap_or(i64::MAX);
        self.all.length.get_or_create(&self.of()).set(units);
    }

    fn dropped(&self, reason: Drop, units: u64) {
        let labels = OfDrop {
            signal: self.signal.name(),
            reason: reason.name(),
        };
        self.all.dropped.get_or_create(&labels).inc_by(units);
    }
}

/// A thread that sends, and its queue.
pub struct Sending<T> {
    shared: Arc<Shared<T>>,
    ended: Receiver<()>,
}

struct Shared<T> {
    queue: Queue<T>,
    totals: SignalTotals,
    url: String,
}

/// The side of a queue that entries are added to.
pub struct Adder<T> {
    shared: Arc<Shared<T>>,
    /// The time at which a drop was last reported.
    reported: Cell<Option<Instant>>,
}

impl<T> Adder<T> {
    /// Adds an entry, or drops one if the queue is full. Never blocks for longer than another thread
    /// needs to take a batch.
    pub fn add(&self, entry: Entry<T>) {
        let Shared {
            queue, totals, url, ..
        } = &*self.shared;
        let dropped = queue.push(entry);
        totals.length(queue.units());
        if dropped == 0 {
            return;
        }
        totals.dropped(Drop::QueueFull, dropped);
        let is_due = |it: Instant| it.elapsed() >= REPORT_EVERY;
        if self.reported.get().is_none_or(is_due) {
            self.reported.set(Some(Instant::now()));
            let units = totals.signal.units();
            say(format_args!(
                "otlp: {units} are dropped, because the queue for {url} is full; \
                 tcptrace_otlp_dropped_total counts them"
            ));
        }
    }
}

impl<T: Send + 'static> Sending<T> {
    /// Starts the thread. `encode` makes a request of a batch.
    ///
    /// # Errors
    /// There is no memory for a thread.
    pub fn start(
        signal: Signal,
        client: Client,
        queue: Queue<T>,
        batching: Batching,
        totals: Totals,
        encode: impl Fn(Vec<Entry<T>>) -> Vec<u8> + Send + 'static,
    ) -> io::Result<Sending<T>> {
        let shared = Arc::new(Shared {
            queue,
            totals: SignalTotals::new(signal, totals),
            url: client.url().to_owned(),
        });
        let (ends, ended) = channel();
        let sender = shared.clone();
        Builder::new()
            .name(format!("otlp-{}", signal.name()))
            .spawn(move || {
                // It connects, which a thread that gives up everything may not.
                privileges::keep(Role::Other);
                sender.run(&client, batching, encode);
                let _ = ends.send(());
            })?;
        Ok(Sending { shared, ended })
    }

    pub fn adder(&self) -> Adder<T> {
        Adder {
            shared: self.shared.clone(),
            reported: Cell::new(None),
        }
    }

    /// Makes the thread send the rest at once, and end at the deadline.
    pub fn close(&self, deadline: Instant) {
        self.shared.queue.close(deadline);
    }

    /// Waits until the thread has ended, and reports what it could not send.
    pub fn end(self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        let _ = self.ended.recv_timeout(left + GRACE);
        let Shared {
            queue, totals, url, ..
        } = &*self.shared;
        let units = queue.units();
        if units > 0 {
            totals.dropped(Drop::End, units);
            let signal = totals.signal;
            say(format_args!(
                "otlp: {units} {} were not sent to {url}",
                signal.units()
            ));
        }
    }
}

impl<T> Shared<T> {
    fn run(&self, client: &Client, batching: Batching, encode: impl Fn(Vec<Entry<T>>) -> Vec<u8>) {
        let mut reports = Reports {
            signal: self.totals.signal,
            url: &self.url,
            failed_since: None,
            said: String::new(),
        };
        while let Some(batch) = self.queue.take(batching) {
            let units = batch.iter().map(|it| it.units).sum();
            let size = batch.iter().map(|it| it.size).sum();
            let message = encode(batch);
            let outcome = match client.body(message) {
                Ok(body) => self.deliver(client, &body, &mut reports),
                Err(error) => Some(Outcome::Refused {
                    why: format!("cannot compress: {error}"),
                }),
            };
            match outcome {
                None => return,
                Some(Outcome::Taken { rejected, message }) => {
                    let rejected = rejected.min(units);
                    self.totals.sent(units - rejected);
                    self.totals.dropped(Drop::Rejected, rejected);
                    reports.taken(rejected, &message);
                }
                Some(Outcome::Refused { why } | Outcome::Failed { why, .. }) => {
                    self.totals.dropped(Drop::Refused, units);
                    reports.refused(units, &why);
                }
            }
            self.queue.done(size, units);
            self.totals.length(self.queue.units());
        }
    }

    /// Sends a body until the collector has taken or refused it. Returns `None` if the queue's
    /// deadline passed before.
    fn deliver(&self, client: &Client, body: &[u8], reports: &mut Reports<'_>) -> Option<Outcome> {
        let mut backoff = Backoff::new();
        loop {
            let left = self.queue.left();
            if left.is_some_and(|it| it.is_zero()) {
                return None;
            }
            let outcome = client.post(body, left);
            let Outcome::Failed { why, retry_after } = outcome else {
                return Some(outcome);
            };
            self.totals.retries(1);
            reports.failed(&why);
            let wait = backoff.wait(retry_after, fastrand::f64());
            self.queue.pause(wait);
        }
    }
}

/// Messages about one signal. Each fact is reported once.
struct Reports<'a> {
    signal: Signal,
    url: &'a str,
    failed_since: Option<Instant>,
    /// The last message about a refusal.
    said: String,
}

impl Reports<'_> {
    fn failed(&mut self, why: &str) {
        if self.failed_since.is_none() {
            self.failed_since = Some(Instant::now());
            let (name, url) = (self.signal.name(), self.url);
            say(format_args!(
                "otlp: cannot send {name} to {url}: {why}; trying again"
            ));
        }
    }

    fn taken(&mut self, rejected: u64, message: &str) {
        if let Some(since) = self.failed_since.take() {
            let (name, url) = (self.signal.name(), self.url);
            let seconds = since.elapsed().as_secs_f64();
            say(format_args!(
                "otlp: {url} takes {name} again after {seconds:.1} s"
            ));
        }
        match rejected > 0 || !message.is_empty() {
            true => self.refusal("rejected", rejected, message),
            false => self.said.clear(),
        }
    }

    fn refused(&mut self, units: u64, why: &str) {
        self.refusal("refused", units, why);
    }

    fn refusal(&mut self, verb: &str, units: u64, why: &str) {
        let reason = format!("{verb}: {why}");
        if self.said != reason {
            let name = self.signal.units();
            say(format_args!(
                "otlp: {} {verb} {units} {name}: {why}",
                self.url
            ));
            self.said = reason;
        }
    }
}
