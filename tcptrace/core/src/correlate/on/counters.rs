//! The kernel's counters of drops at full queues: bounds on the drops during the trace, and the
//! listener that probably caused them.
//!
//! The counters do not show which listener dropped a segment. But if a counter rose between two
//! readings and only one listener had a full accept queue meanwhile, the drops are probably that
//! listener's.

use std::collections::BTreeSet;

use crate::correlate::state::Correlator;
use crate::correlate::state::counters::{KEPT, Likely};
use crate::event::{self, Event};
use crate::fields;

impl Correlator {
    /// Handles a reading of the counters of a network namespace.
    pub(super) fn counters(&mut self, event: &Event, it: &event::NetnsCounters) {
        let full = self.listeners.full_since_last_reading(it.netns);
        let readings = self.counters.readings.entry(it.netns).or_default();
        let last = readings
            .last
            .back()
            .filter(|(ns, _)| *ns >= self.attached_ns);
        let last = last.map(|(_, last)| last);
        let rise = last.map(|last| it.queues.since(last).listen_overflows);
        if let Some(1..) = rise {
            readings.likely = match (readings.likely, full[..].as_ref()) {
                (Likely::NoListener, [only]) => Likely::Only(*only),
                (Likely::Only(before), [only]) if before == *only => Likely::Only(before),
                _ => Likely::Unclear,
            };
        }
        match event.mono_ns < self.attached_ns {
            true => readings.before = Some(it.queues),
            false => readings.first = readings.first.or(Some(it.queues)),
        }
        readings.last.push_back((event.mono_ns, it.queues));
        if readings.last.len() > KEPT {
            readings.last.pop_front();
        }
    }

    /// Returns the network namespaces whose counters should be read during the trace: those with
    /// listeners whose drops no hook sees.
    pub fn wants_counters(&self) -> BTreeSet<u32> {
        match self.visibility.overflows {
            true => BTreeSet::new(),
            false => self.listeners.namespaces().clone(),
        }
    }

    /// Returns the counters for the summary, for each namespace that has had a listener. Returns
    /// none for a trace without readings, such as an old recording.
    pub(super) fn summarize_counters(&self, end_ns: u64) -> Vec<fields::NetnsCounters> {
        if self.counters.readings.is_empty() {
            return vec![];
        }
        let namespaces = self.listeners.namespaces().iter();
        let of = |&netns: &u32| {
            let readings = self.counters.readings.get(&netns);
            let (at_least, at_most) = readings.map_or((None, None), |it| it.rise(end_ns));
            fields::NetnsCounters {
                netns,
                at_least: at_least.map(rise),
                at_most: at_most.map(rise),
                likely_listener: match readings.map(|it| it.likely) {
                    Some(Likely::Only(conn)) => Some(conn),
                    _ => None,
                },
            }
        };
        namespaces.map(of).collect()
    }
}

fn rise(by: event::QueueCounters) -> fields::QueueCounters {
    fields::QueueCounters {
        listen_overflows: by.listen_overflows,
        listen_drops: by.listen_drops,
        syn_queue_drops: by.syn_queue_drops,
        syn_queue_cookies: by.syn_queue_cookies,
    }
}
