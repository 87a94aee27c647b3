//! The reasons of a wait in the accept queue: what the threads that accept did in that time.

mod places;
mod words;

use std::cmp::Reverse;

use places::{Places, RanIn};

use crate::correlate::state::acceptors::{Acceptors, Doing, Thread, Unseen};
use crate::event::Task;
use crate::fields::{Late, LateReason, LateTimes, OtherAcceptor};

/// Upper bound on the places in each list of a line.
const PLACES: usize = 8;

/// Upper bound on the rows of other acceptors in a line.
const OTHERS: usize = 16;

/// Upper bound on the other acceptors that are looked at.
const LOOKED_AT: usize = 64;

/// A wait in the accept queue, and its acceptors.
pub struct Wait<'a> {
    /// CLOCK_MONOTONIC in nanoseconds.
    pub from_ns: u64,
    pub to_ns: u64,
    /// The thread that accepted the connection; `None` if none did.
    pub accepted_by: Option<Task>,
    /// The threads that accept on the listener, by thread id.
    pub threads: &'a [&'a Thread],
    /// False if the threads have called listen(), and none has called accept().
    pub accept: bool,
    /// Number of event losses noticed so far.
    pub losses: u64,
}

/// The activity of one thread during a wait. The times are in nanoseconds.
#[derive(Default)]
struct Activity<'a> {
    running_ns: u64,
    runnable_ns: u64,
    throttled_ns: u64,
    blocked_ns: u64,
    unseen_ns: u64,
    /// The reason of the longest time that is not known.
    unseen: Option<(u64, Unseen)>,
    places: Places<'a>,
}

/// Explains a wait.
pub fn explain(acceptors: &Acceptors, wait: &Wait) -> Late {
    let all: Vec<_> = wait
        .threads
        .iter()
        .map(|thread| (*thread, Activity::of(acceptors, wait, thread)))
        .collect();
    let by_tid = |tid| all.iter().position(|(it, _)| it.task.tid == tid);
    let longest_seen = || {
        let least = all.iter().map(|(_, it)| it.unseen_ns).min()?;
        all.iter().position(|(_, it)| it.unseen_ns == least)
    };
    let acceptor = match wait.accepted_by {
        Some(task) => by_tid(task.tid),
        None => longest_seen(),
    };
    let nothing = Activity {
        unseen_ns: wait.to_ns.saturating_sub(wait.from_ns),
        ..Activity::default()
    };
    let activity = acceptor.map_or(&nothing, |at| &all[at].1);
    let task = wait.accepted_by.or(acceptor.map(|at| all[at].0.task));
    let ran_in = match acceptor {
        Some(at) => RanIn::of(acceptors, wait, all[at].0),
        None => RanIn::default(),
    };
    let others = all.iter().enumerate();
    let others = others.filter(|(at, _)| Some(*at) != acceptor);
    let others: Vec<OtherAcceptor> = others
        .take(LOOKED_AT)
        .map(|(_, (thread, activity))| activity.other(thread.task))
        .collect();
    let late_because = words::sentence(acceptors, wait, task, activity, &ran_in, &others);
    let mut others = others;
    others.truncate(OTHERS);
    Late {
        acceptor_tid: task.map(|task| task.tid),
        acceptor_running_ns: activity.running_ns,
        acceptor_runnable_ns: activity.runnable_ns,
        acceptor_throttled_ns: activity.throttled_ns,
        acceptor_blocked_ns: activity.blocked_ns,
        acceptor_unseen_ns: activity.unseen_ns,
        acceptor_blocked_in: activity.places.lines(acceptors, PLACES),
        acceptor_running_in: ran_in.lines(acceptors, PLACES),
        other_acceptors: others,
        late_reason: activity.main_reason(),
        late_because,
        times: activity.times(),
    }
}

impl<'a> Activity<'a> {
    fn of(acceptors: &'a Acceptors, wait: &Wait, thread: &Thread) -> Activity<'a> {
        let mut activity = Activity::default();
        let spans = (thread.timeline).spans(wait.from_ns, wait.to_ns, wait.losses);
        for span in spans {
            match span.doing {
                Doing::Running => activity.running_ns += span.ns,
                Doing::Runnable { throttled } => {
                    activity.runnable_ns += span.ns;
                    activity.throttled_ns += if throttled { span.ns } else { 0 };
                }
                Doing::Blocked(blocked) => {
                    activity.blocked_ns += span.ns;
                    activity.places.add(acceptors, blocked, span.ns);
                }
                Doing::Unseen(why) => {
                    activity.unseen_ns += span.ns;
                    activity.unseen = activity.unseen.max(Some((span.ns, why)));
                }
            }
        }
        activity
    }

    /// Returns the time of a reason, in nanoseconds.
    fn of_reason(&self, reason: LateReason) -> u64 {
        match reason {
            LateReason::Running => self.running_ns,
            LateReason::Cpu => self.runnable_ns - self.throttled_ns,
            LateReason::Quota => self.throttled_ns,
            LateReason::Unseen => self.unseen_ns,
            blocked => self.places.of_reason(blocked),
        }
    }

    /// Returns the wait by reason.
    fn times(&self) -> LateTimes {
        let mut times = LateTimes {
            late_connections: 1,
            ..LateTimes::default()
        };
        for reason in LateReason::ALL {
            times.add(reason, self.of_reason(reason));
        }
        times
    }

    /// Returns the reason with the most time. A known reason comes before an unknown one.
    fn main_reason(&self) -> LateReason {
        let all = LateReason::ALL.into_iter().rev();
        all.max_by_key(|&reason| self.of_reason(reason))
            .unwrap_or(LateReason::Unseen)
    }

    fn other(&self, task: Task) -> OtherAcceptor {
        OtherAcceptor {
            pid: task.pid,
            tid: task.tid,
            comm: task.comm,
            running_ns: self.running_ns,
            runnable_ns: self.runnable_ns,
            blocked_ns: self.blocked_ns,
            unseen_ns: self.unseen_ns,
            mainly: words::mainly(self),
        }
    }
}

/// Sorts by a count, largest first. Equal counts keep their order.
fn largest_first<T>(all: &mut [T], count: impl Fn(&T) -> u64) {
    all.sort_by_key(|it| Reverse(count(it)));
}
