//! Sums over the connections of a listener.

use hdrhistogram::Histogram;

use super::handshake::Visibility;
use crate::fields::{Connection, LateTimes, ListenerSummary, Verdict};

/// Counts of one listener.
#[derive(Default)]
pub struct Stats {
    connections: u64,
    accepted: u64,
    never_accepted: u64,
    pub failed_accepts: u64,
    half_open_failed: u64,
    pub overflows: u64,
    waits: Waits,
    late: LateTimes,
}

impl Stats {
    /// Counts a connection at its end. `is_connection`: its handshake finished, or accept()
    /// returned it earlier.
    pub fn count(&mut self, connection: &Connection, is_connection: bool) {
        self.connections += u64::from(is_connection);
        self.accepted += u64::from(connection.accepted_mono_ns.is_some());
        self.never_accepted += u64::from(connection.verdict == Some(Verdict::NeverAccepted));
        let unfinished = connection.verdict == Some(Verdict::Unfinished);
        self.half_open_failed += u64::from(unfinished && connection.closed_mono_ns.is_some());
        if let Some(ns) = connection.accept_queue_ns {
            self.waits.record(ns);
        }
        if let Some(late) = &connection.late {
            self.late.add_all(&late.times);
        }
    }

    /// Adds another listener's counts.
    pub fn add(&mut self, other: Stats) {
        self.connections += other.connections;
        self.accepted += other.accepted;
        self.never_accepted += other.never_accepted;
        self.failed_accepts += other.failed_accepts;
        self.half_open_failed += other.half_open_failed;
        self.overflows += other.overflows;
        self.waits.add(other.waits);
        self.late.add_all(&other.late);
    }

    /// Returns whether no connection and no failed accept() was counted.
    pub fn is_empty(&self) -> bool {
        self.connections + self.accepted + self.never_accepted + self.failed_accepts == 0
    }

    /// Adds the counts to a summary that names the listener.
    pub fn summarize(mut self, of: ListenerSummary, visibility: Visibility) -> ListenerSummary {
        ListenerSummary {
            connections: self.connections,
            accepted: self.accepted,
            never_accepted: self.never_accepted,
            failed_accepts: self.failed_accepts,
            half_open_failed: visibility.requests.then_some(self.half_open_failed),
            overflows: visibility.overflows.then_some(self.overflows),
            accept_queue_p50_ns: self.waits.quantile(0.50),
            accept_queue_p99_ns: self.waits.quantile(0.99),
            accept_queue_max_ns: self.waits.max,
            late: visibility.explains.then_some(self.late),
            ..of
        }
    }
}

/// Waits in the accept queue, in nanoseconds.
///
/// A histogram takes about 100 KiB, and many listeners have only a few connections. Therefore waits
/// are collected in a batch and put into the histogram when the batch is full.
#[derive(Default)]
struct Waits {
    batch: Vec<u64>,
    histogram: Option<Histogram<u64>>,
    max: Option<u64>,
}

impl Waits {
    const BATCH: usize = 256;

    fn record(&mut self, ns: u64) {
        self.max = self.max.max(Some(ns));
        self.batch.push(ns);
        if self.batch.len() >= Waits::BATCH {
            self.fold();
        }
    }

    fn add(&mut self, other: Waits) {
        self.max = self.max.max(other.max);
        self.batch.extend(other.batch);
        if let Some(other) = other.histogram {
            self.fold();
            if let Some(histogram) = &mut self.histogram {
                histogram
                    .add(other)
                    .expect("a histogram that resizes takes every other");
            }
        } else if self.batch.len() >= Waits::BATCH {
            self.fold();
        }
    }

    /// Puts the batch of waits into the histogram.
    fn fold(&mut self) {
        let histogram = self.histogram.get_or_insert_with(|| {
            Histogram::new(3).expect("three significant digits are within 0..=5")
        });
        for ns in self.batch.drain(..) {
            histogram
                .record(ns)
                .expect("a histogram that resizes takes every value");
        }
    }

    /// Returns the smallest wait that this share of all waits does not exceed, to 0.1 %.
    fn quantile(&mut self, share: f64) -> Option<u64> {
        let max = self.max?;
        self.fold();
        // The histogram returns the upper end of a bucket, which may exceed every wait.
        Some(self.histogram.as_ref()?.value_at_quantile(share).min(max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_quantiles_are_close_and_the_maximum_is_exact() {
        let mut waits = Waits::default();
        for ms in 1..=1_000 {
            waits.record(ms * 1_000_000 + 7);
        }
        for (share, ns) in [(0.50, 500_000_007), (0.99, 990_000_007_u64)] {
            let shown = waits.quantile(share).unwrap();
            assert!(shown.abs_diff(ns) <= ns / 1_000, "{share}: {shown}");
        }
        assert_eq!(waits.max, Some(1_000_000_007));
        assert_eq!(waits.quantile(1.0), Some(1_000_000_007));
    }

    #[test]
    fn quantiles_of_few_waits_are_defined() {
        let mut waits = Waits::default();
        assert_eq!(waits.quantile(0.5), None);
        waits.record(0);
        assert_eq!(waits.quantile(0.5), Some(0));
        waits.record(u64::MAX);
        assert_eq!(waits.quantile(0.5), Some(0));
        assert!(waits.quantile(0.99) > Some(u64::MAX / 2));
        assert_eq!(waits.max, Some(u64::MAX));
    }
}
