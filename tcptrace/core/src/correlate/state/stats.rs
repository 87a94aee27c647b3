//! Sums over the connections of a listener.

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
/// Thousands of listeners may have come and gone, so only the buckets that have a wait are stored.
/// A dense histogram of this resolution takes more than 100 KiB.
#[derive(Default)]
struct Waits {
    /// Waits that are not in `counts` yet.
    batch: Vec<u64>,
    /// The longest wait of a bucket, and the number of waits in it, in order.
    counts: Vec<(u64, u64)>,
    max: Option<u64>,
}

impl Waits {
    const BATCH: usize = 256;

    fn record(&mut self, ns: u64) {
        self.max = self.max.max(Some(ns));
        self.batch.push(ns);
        // Each wait then costs as much however many buckets there are.
        if self.batch.len() >= Waits::BATCH.max(self.counts.len() / 4) {
            self.fold();
        }
    }

    fn add(&mut self, other: Waits) {
        self.max = self.max.max(other.max);
        self.batch.extend(other.batch);
        self.fold();
        self.merge(other.counts);
    }

    /// Counts the batch of waits by buckets.
    fn fold(&mut self) {
        let mut ends = std::mem::take(&mut self.batch);
        ends.iter_mut().for_each(|ns| *ns = bucket_end_ns(*ns));
        ends.sort_unstable();
        let buckets = ends.chunk_by(|one, next| one == next);
        self.merge(buckets.map(|it| (it[0], it.len() as u64)).collect());
        ends.clear();
        self.batch = ends;
    }

    /// Adds counts by buckets, in order.
    fn merge(&mut self, more: Vec<(u64, u64)>) {
        if more.is_empty() {
            return;
        }
        self.counts.extend(more);
        // Two sorted runs, which this sort merges.
        self.counts.sort_by_key(|(end, _)| *end);
        self.counts.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            kept.1 += if same { next.1 } else { 0 };
            same
        });
        self.counts.shrink_to_fit();
    }

    /// Returns the smallest wait that this share of all waits does not exceed, to 0.1 %.
    fn quantile(&mut self, share: f64) -> Option<u64> {
        let max = self.max?;
        self.fold();
        let total: u64 = self.counts.iter().map(|(_, n)| n).sum();
        let rank = ((share * total as f64).ceil() as u64).max(1);
        let mut below = 0;
        let found = self.counts.iter().find(|(_, n)| {
            below += n;
            below >= rank
        });
        // The end of a bucket may exceed every wait.
        found.map(|(end, _)| (*end).min(max))
    }
}

/// Returns the longest wait in the bucket of a wait. Buckets are a nanosecond wide up to 2047 ns, and
/// 1/1024 of a power of two wide above.
fn bucket_end_ns(ns: u64) -> u64 {
    const EXACT_BITS: u32 = 11;
    let bits = u64::BITS - ns.leading_zeros();
    let shift = bits.saturating_sub(EXACT_BITS);
    ns | ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(waits: impl IntoIterator<Item = u64>) -> Waits {
        let mut all = Waits::default();
        waits.into_iter().for_each(|ns| all.record(ns));
        all
    }

    #[test]
    fn quantiles_are_exact_to_a_thousandth() {
        let mut waits = of((1..=100_000).map(|n| n * 1_000));
        for (share, exact) in [(0.5, 50_000_000), (0.99, 99_000_000), (1.0, 100_000_000)] {
            let ns = waits.quantile(share).unwrap();
            assert!(
                (exact..=exact + exact / 1000).contains(&ns),
                "{share}: {ns}"
            );
        }
        let mut few = of([5, 7, 2047, 2048, 2049]);
        assert_eq!(few.quantile(0.2), Some(5));
        assert_eq!(few.quantile(0.4), Some(7));
        assert_eq!(few.quantile(0.6), Some(2047));
        assert_eq!(few.quantile(0.8), Some(2049), "the end of a bucket");
        assert_eq!(of([]).quantile(0.5), None);
        assert_eq!(of([u64::MAX, 0]).quantile(0.99), Some(u64::MAX));
        assert_eq!(
            of([3_000_000]).quantile(0.5),
            Some(3_000_000),
            "not above the longest"
        );
    }

    #[test]
    fn waits_that_are_added_are_those_of_one_listener() {
        let waits = |from: u64| (from..from + 999).map(|n| n * 77_777 % 9_000_001);
        let mut sum = of(waits(0));
        sum.add(of(waits(999)));
        let mut whole = of(waits(0).chain(waits(999)));
        for share in [0.0, 0.01, 0.5, 0.9, 0.99, 1.0] {
            assert_eq!(sum.quantile(share), whole.quantile(share), "{share}");
        }
        assert_eq!(sum.counts, whole.counts);
    }

    #[test]
    fn many_listeners_with_some_hundred_waits_take_little_memory() {
        let waits = of((0..300).map(|n| 20_000 + n * 777));
        let bytes = waits.counts.capacity() * size_of::<(u64, u64)>()
            + waits.batch.capacity() * size_of::<u64>();
        assert!(bytes < 8 << 10, "{bytes}");
    }
}
