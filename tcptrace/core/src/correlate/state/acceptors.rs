//! The threads that accept connections, with what each of them did and when. Only with `--why`.

mod stacks;
mod timeline;

use hashlink::LinkedHashMap;
use rustc_hash::{FxBuildHasher, FxHashMap};
use smallvec::SmallVec;

pub use stacks::Stacks;
pub use timeline::{Blocked, Doing, Timeline, Unseen, Waker};

use super::listener::ListenerId;
use crate::event::{Sk, Task};
use crate::fields::Late;
use crate::syscall::Machine;

/// Upper bound on threads. Those without an event for longest are forgotten first.
const THREADS: usize = 4096;

/// With more threads than this, those that have exited are forgotten as well. A connection that waits
/// for one of them is explained by the others.
const WITH_EXITED: usize = 512;

/// Upper bound on listeners of one thread. The oldest are forgotten first.
const LISTENERS: usize = 64;

/// Upper bound on explanations that are kept for the `connection` lines of open connections.
const KEPT: usize = 1 << 16;

/// The acceptors of a trace.
pub struct Acceptors {
    /// Waits in the accept queue that are longer than this (in nanoseconds) are explained.
    pub why_ns: u64,
    pub machine: Machine,
    /// True if a hook sees the scheduling of acceptors.
    pub is_visible: bool,
    pub stacks: Stacks,
    /// By thread id, the least recently seen thread first.
    threads: LinkedHashMap<u32, Thread, FxBuildHasher>,
    /// The explanations of accepted connections that are open, by connection number.
    kept: FxHashMap<u64, Box<Late>>,
}

/// A thread that accepts connections.
pub struct Thread {
    pub task: Task,
    /// The listeners that it accepts on, or has made.
    places: SmallVec<[Place; 2]>,
    pub timeline: Timeline,
}

/// A listener of a thread, by its kernel address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub sk: Sk,
    /// `None` if the trace did not know the listener when the thread called listen() or accept().
    pub id: Option<ListenerId>,
    /// False if the thread has only called listen().
    pub accepts: bool,
}

impl Acceptors {
    pub fn new(why_ns: u64, machine: Machine, is_visible: bool) -> Acceptors {
        Acceptors {
            why_ns,
            machine,
            is_visible,
            stacks: Stacks::default(),
            threads: LinkedHashMap::default(),
            kept: FxHashMap::default(),
        }
    }

    /// Returns the thread with this thread id.
    pub fn get(&self, tid: u32) -> Option<&Thread> {
        self.threads.get(&tid)
    }

    /// Returns the timeline of a thread that is known.
    pub fn timeline(&mut self, tid: u32) -> Option<&mut Timeline> {
        let most = Timeline::most(self.threads.len());
        let timeline = &mut self.threads.to_back(&tid)?.timeline;
        timeline.most = most;
        Some(timeline)
    }

    /// Notes that a thread accepts on a listener, and returns its timeline. The kernel reuses the
    /// ids of threads that have exited.
    pub fn enrol(&mut self, task: Task, place: Option<Place>) -> &mut Timeline {
        let known = self.threads.remove(&task.tid);
        let mut thread = known
            .filter(|it| it.task.pid == task.pid && !it.timeline.has_exited())
            .unwrap_or_else(|| Thread {
                task,
                places: SmallVec::new(),
                timeline: Timeline::default(),
            });
        thread.task = task;
        if let Some(place) = place {
            thread.add(place);
        }
        if self.threads.len() >= WITH_EXITED {
            let mut all = self.threads.iter();
            let exited = all.find(|(_, it)| it.timeline.has_exited());
            if let Some(tid) = exited.map(|(tid, _)| *tid) {
                self.threads.remove(&tid);
            } else if self.threads.len() >= THREADS {
                self.threads.pop_front();
            }
        }
        let thread = self.threads.entry(task.tid).or_insert(thread);
        &mut thread.timeline
    }

    /// Returns the threads that accept on a listener, by thread id, and true. If none does, returns
    /// those that called listen(), and false.
    pub fn of(&self, listener: ListenerId, sk: Sk) -> (Vec<&Thread>, bool) {
        let is_it = |place: &&Place| match place.id {
            Some(id) => id == listener,
            None => place.sk == sk,
        };
        let all = self.threads.values();
        let of = all.filter_map(|it| Some((it, it.places.iter().find(is_it)?.accepts)));
        let of: Vec<_> = of.collect();
        let accept = of.iter().any(|(_, accepts)| *accepts);
        let of = of.into_iter().filter(|(_, accepts)| *accepts == accept);
        let mut of: Vec<_> = of.map(|(it, _)| it).collect();
        of.sort_unstable_by_key(|it| it.task.tid);
        (of, accept)
    }

    /// Keeps an explanation for the `connection` line.
    pub fn keep(&mut self, conn: u64, late: Box<Late>) {
        if self.kept.len() < KEPT {
            self.kept.insert(conn, late);
        }
    }

    /// Returns the explanation that was kept for a connection.
    pub fn take_kept(&mut self, conn: u64) -> Option<Box<Late>> {
        self.kept.remove(&conn)
    }
}

impl Thread {
    fn add(&mut self, place: Place) {
        let known = self.places.iter_mut().find(|it| it.sk == place.sk);
        match known {
            // listen() can be called on a new socket at the same address.
            Some(known) if !place.accepts && known.id != place.id => *known = place,
            Some(known) => {
                known.accepts |= place.accepts;
                known.id = place.id.or(known.id);
            }
            None => {
                if self.places.len() >= LISTENERS {
                    self.places.remove(0);
                }
                self.places.push(place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{OffCpu, SchedStep};

    fn task(tid: u32) -> Task {
        Task {
            pid: tid,
            tid,
            ..Task::default()
        }
    }

    #[test]
    fn threads_that_have_exited_are_forgotten_first() {
        let mut all = Acceptors::new(1, Machine::X86_64, true);
        let idle = 7;
        all.enrol(task(idle), None);
        for tid in 1000..3000 {
            let timeline = all.enrol(task(tid), None);
            let exit = SchedStep::Out {
                off: OffCpu::Dead,
                syscall: None,
                stack: None,
            };
            timeline.step(u64::from(tid), &exit, 0);
        }
        assert_eq!(all.threads.len(), WITH_EXITED);
        assert!(all.get(idle).is_some(), "it lives");
        assert!(all.get(2999).is_some() && all.get(1000).is_none());
        for tid in 10_000..20_000 {
            all.enrol(task(tid), None);
        }
        assert_eq!(all.threads.len(), THREADS);
    }
}
