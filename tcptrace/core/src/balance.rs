//! Whether each event that a hook saw is in one of its counts: seen = filtered + emitted + lost.
//!
//! `seen`, `filtered` and `lost` are counted in the kernel, `emitted` is what was decoded here. What is in
//! none of them was lost by a fault of tcptrace, and is told as such.

use serde::{Deserialize, Serialize};

use crate::event::Hook;
use crate::fields::HookCount;

/// What the kernel side has counted at a hook, all CPUs together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Events that reached the hook.
    pub seen: u64,
    /// Events that the filter left out.
    pub filtered: u64,
    /// Events that found no room, `lost_calls` among them.
    pub lost: u64,
    /// accept() calls that could not be remembered.
    pub lost_calls: u64,
    /// Runs that the kernel skipped and that nothing made up for; `None` when the kernel does not say.
    pub recursion_misses: Option<u64>,
}

/// Counts of decoded records, and of those already reported as unaccounted, by the number of the hook.
#[derive(Debug, Default)]
pub struct Balance {
    decoded: [u64; Hook::ALL.len()],
    told: [u64; Hook::ALL.len()],
}

impl Balance {
    /// Counts an event that was decoded.
    pub fn decoded(&mut self, hook: Hook) {
        self.decoded[hook as usize] += 1;
    }

    /// How many more events of a hook are unaccounted than have been told so far. `seen` must have been
    /// read so long before `counted` (filtered or lost) that each of its events has been decoded or
    /// counted since: then no event under way is taken for a lost one. Events that came since may
    /// hide lost ones, until the next call.
    pub fn more_unaccounted(&mut self, hook: Hook, seen: u64, counted: u64) -> u64 {
        let decoded = self.decoded[hook as usize];
        let told = &mut self.told[hook as usize];
        let more = seen
            .saturating_sub(counted.saturating_add(decoded))
            .saturating_sub(*told);
        *told += more;
        more
    }

    /// The final balance of a hook, from the kernel's final counts.
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
    fn counts_that_add_up_leave_nothing_unaccounted() {
        let mut balance = with_decoded(7);
        assert_eq!(balance.more_unaccounted(HOOK, 12, 5), 0);
        let last = balance.last(HOOK, counts(12, 3, 2));
        assert_eq!((last.emitted, last.lost, last.unaccounted), (7, 2, 0));
    }

    #[test]
    fn a_record_that_vanishes_is_lost_and_told_once() {
        let mut balance = with_decoded(6);
        assert_eq!(balance.more_unaccounted(HOOK, 12, 5), 1);
        assert_eq!(balance.more_unaccounted(HOOK, 12, 5), 0);
        assert_eq!(balance.more_unaccounted(Hook::InetCskAccept, 0, 0), 0);
        let last = balance.last(HOOK, counts(12, 3, 2));
        assert_eq!((last.emitted, last.lost, last.unaccounted), (6, 3, 1));
        assert_eq!(last.seen, last.filtered + last.emitted + last.lost);
        // The last one is told at the end.
        assert_eq!(balance.more_unaccounted(HOOK, 14, 6), 1);
    }

    #[test]
    fn events_since_are_no_alarm() {
        let mut balance = with_decoded(9);
        assert_eq!(balance.more_unaccounted(HOOK, 12, 5), 0);
        assert_eq!(balance.more_unaccounted(HOOK, 14, 5), 0);
        assert_eq!(balance.more_unaccounted(HOOK, 15, 5), 1);
    }
}
