//! Readings of the kernel's counters of drops at full queues.

use std::collections::{BTreeMap, VecDeque};

use crate::event;

/// Number of readings kept per network namespace. At the end of the trace, the readings just before
/// and just after the end bound the number of drops.
pub const KEPT: usize = 16;

/// The counter readings of a trace, by network namespace.
#[derive(Default)]
pub struct Counters {
    pub readings: BTreeMap<u32, Readings>,
}

/// The counter readings of one network namespace.
#[derive(Default)]
pub struct Readings {
    /// The last reading before the trace began.
    pub before: Option<event::QueueCounters>,
    /// The first reading in the trace.
    pub first: Option<event::QueueCounters>,
    /// The last readings with their times, oldest first.
    pub last: VecDeque<(u64, event::QueueCounters)>,
    pub likely: Likely,
}

/// The listener that probably overflowed.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Likely {
    /// No counter rose.
    #[default]
    NoListener,
    /// The connection number (`conn`) of the only listener that was full whenever a counter rose.
    Only(u64),
    /// When a counter rose, several listeners were full, or no known listener was.
    Unclear,
}

impl Readings {
    /// Returns the lower and the upper bound on the rise of the counters until `end_ns`.
    pub fn rise(
        &self,
        end_ns: u64,
    ) -> (Option<event::QueueCounters>, Option<event::QueueCounters>) {
        let inside = self.last.iter().rfind(|(ns, _)| *ns <= end_ns);
        let after = self.last.iter().find(|(ns, _)| *ns >= end_ns);
        let rise = |from: Option<event::QueueCounters>,
                    to: Option<&(u64, event::QueueCounters)>| {
            Some(to?.1.since(&from?))
        };
        (rise(self.first, inside), rise(self.before, after))
    }
}
