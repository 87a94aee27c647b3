//! Readings of the kernel's counters of full queues.

use std::collections::{BTreeMap, VecDeque};

use crate::event;

/// Number of readings that are kept. The end of the trace needs the readings just before and just
/// after it.
pub const KEPT: usize = 16;

/// The readings of a trace, by network namespace.
#[derive(Default)]
pub struct Counters {
    pub readings: BTreeMap<u32, Readings>,
}

/// The readings of one namespace.
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
    /// The only listener that was full whenever the counter rose, by its number.
    Only(u64),
    /// Several listeners were full, or no known one.
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
