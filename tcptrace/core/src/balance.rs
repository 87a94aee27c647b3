//! The balance of a hook's counts: seen = filtered + emitted + lost.
//!
//! The kernel side counts each event once, as `admitted` or `filtered`. The loader computes `seen` as
//! their sum. `lost` is the part of `admitted` without a record, and `emitted` is the number of decoded
//! records. An event that is in none of the counts was lost by a bug in tcptrace, and is reported as
//! `unaccounted`.

use serde::{Deserialize, Serialize};

use crate::event::Hook;
use crate::fields::HookCount;

/// The counts of a hook, summed over all CPUs, as the loader derives them from the kernel side's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Events that reached the hook: the kernel side's `admitted` plus `filtered`.
    pub seen: u64,
    /// Events that the filter left out.
    pub filtered: u64,
    /// Events that were lost because the ring buffer or the table of accept() calls was full,
    /// `lost_calls` included.
    pub lost: u64,
    /// accept() calls that did not fit in the table of calls.
    pub lost_calls: u64,
    /// Runs of the hook's eBPF programs that the kernel skipped, unless a backup program saw the
    /// event. `None` when the kernel does not report them.
    pub recursion_misses: Option<u64>,
}

/// Counts of decoded records and of reported unaccounted events, by hook number.
#[derive(Debug, Default)]
pub struct Balance {
    decoded: [u64; Hook::ALL.len()],
    reported: [u64; Hook::ALL.len()],
}

impl Balance {
    /// Counts one decoded event.
    pub fn decoded(&mut self, hook: Hook) {
        self.decoded[hook as usize] += 1;
    }

    /// Returns the number of unaccounted events of a hook that were not reported before.
    ///
    /// `counted` is filtered plus lost. `seen` must have been read well before `counted`, so that
    /// each event in `seen` has been decoded or counted since. Then no event in flight is reported
    /// as lost. Events after the reading of `seen` may hide lost events until the next call.
    pub fn more_unaccounted(&mut self, hook: Hook, seen: u64, counted: u64) -> u64 {
        let decoded = self.decoded[hook as usize];
        let reported = &mut self.reported[hook as usize];
        let more = seen
            .saturating_sub(counted.saturating_add(decoded))
            .saturating_sub(*reported);
        *reported += more;
        more
    }

    /// Returns the final balance of a hook, from the kernel's final counts.
    pub fn last(&self, hook: Hook, counts: Counts) -> HookCount {
        let emitted = self.decoded[hook as usize];
        let accounted = counts
            .filtered
            .saturating_add(emitted)
            .saturating_add(counts.lost);
        let unaccounted = counts.seen.saturating_sub(accounted);
        HookCount {
            seen: counts.seen,
            filtered: counts.filtered,
            emitted,
            lost: counts.lost.saturating_add(unaccounted),
            lost_calls: counts.lost_calls,
            unaccounted,
            recursion_misses: counts.recursion_misses,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOOK: Hook = Hook::InetSockSetState;

    fn with_decoded(events: u64) -> Balance {
        let mut balance = Balance::default();
        (0..events).for_each(|_| balance.decoded(HOOK));
        balance
    }

    fn counts(seen: u64, filtered: u64, lost: u64) -> Counts {
        Counts {
            seen,
            filtered,
            lost,
            ..Counts::default()
        }
    }

    #[test]
    fn counts_that_add_up_have_no_unaccounted_events() {
        let mut balance = with_decoded(7);
        assert_eq!(balance.more_unaccounted(HOOK, 12, 5), 0);
        let last = balance.last(HOOK, counts(12, 3, 2));
        assert_eq!((last.emitted, last.lost, last.unaccounted), (7, 2, 0));
    }

    #[test]
    fn missing_record_is_unaccounted_and_reported_once() {
        let mut balance = with_decoded(6);
        assert_eq!(balance.more_unaccounted(HOOK, 12, 5), 1);
        assert_eq!(balance.more_unaccounted(HOOK, 12, 5), 0);
        assert_eq!(balance.more_unaccounted(Hook::InetCskAccept, 0, 0), 0);
        let last = balance.last(HOOK, counts(12, 3, 2));
        assert_eq!((last.emitted, last.lost, last.unaccounted), (6, 3, 1));
        assert_eq!(last.seen, last.filtered + last.emitted + last.lost);
        // A second lost event is reported once more.
        assert_eq!(balance.more_unaccounted(HOOK, 14, 6), 1);
    }

    #[test]
    fn events_after_seen_was_read_are_not_unaccounted() {
        let mut balance = with_decoded(9);
        assert_eq!(balance.more_unaccounted(HOOK, 12, 5), 0);
        assert_eq!(balance.more_unaccounted(HOOK, 14, 5), 0);
        assert_eq!(balance.more_unaccounted(HOOK, 15, 5), 1);
    }
}
