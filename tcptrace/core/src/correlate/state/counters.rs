//! Readings of the kernel's own counts of what listeners dropped.

use std::collections::{BTreeMap, VecDeque};

use crate::event;

/// The number of readings that are kept: the end of the trace needs the one right before it and the one
/// right after it.
pub const KEPT: usize = 16;

/// The readings of a trace, by network namespace.
#[derive(Default)]
pub struct Counters {
    pub readings: BTreeMap<u32, Readings>,
}

/// The readings of one namespace.
#[derive(Default)]
pub struct Readings {
    /// The last one before the trace began.
    pub before: Option<event::QueueCounters>,
    /// The first one in the trace.
    pub first: Option<event::QueueCounters>,
    /// The last ones and when they were taken, oldest first.
    pub last: VecDeque<(u64, event::QueueCounters)>,
    pub likely: Likely,
}

/// The listener that overflowed.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Likely {
    /// Nothing has overflowed.
    #[default]
    Nobody,
    /// The only listener that was full whenever the counter rose, by its number.
    Only(u64),
    /// Several were full, or none that is known.
    Unclear,
}

impl Readings {
    /// Returns the least and the most that the counters can have risen until `end_ns`.
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
