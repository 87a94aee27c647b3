//! The activities of one thread, in order of time.

use std::collections::VecDeque;

use crate::event::{Comm, OffCpu, SchedStep, StackKey, Syscall};

/// Upper bound on the intervals of all threads together, and bounds on those of one thread.
const ALL: usize = 1 << 20;
const EACH: usize = 1 << 14;
const LEAST: usize = 256;

/// Upper bound on samples of one thread. The oldest are forgotten first.
const SAMPLES: usize = 1024;

/// A wake-up can be seen before the switch that it follows: the thread has announced that it will
/// block, and is still on its CPU. The wake-up belongs to the switch if the switch comes within this
/// time, in nanoseconds.
const WAKE_BEFORE_SWITCH_NS: u64 = 1_000_000;

/// An activity of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    Running,
    /// The thread waits for a CPU. `throttled`: its cgroup has used up its CPU quota.
    Runnable {
        throttled: bool,
    },
    Blocked(Blocked),
    Unseen(Unseen),
}

/// A block of a thread, from the switch away from it to its wake-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked {
    pub off: OffCpu,
    /// `None` if unknown.
    pub syscall: Option<Syscall>,
    pub stack: Option<StackKey>,
    /// The current thread at the wake-up; `None` before the wake-up.
    pub waker: Option<Waker>,
}

/// The current thread at a wake-up. It is the waker unless the wake-up comes from an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waker {
    pub tid: u32,
    pub comm: Comm,
    pub syscall: Option<Syscall>,
}

/// The reason why an activity is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unseen {
    /// The thread had not called accept() in the trace.
    NotYet,
    /// Events were lost, or came too late to be put in order.
    Lost,
    /// Two events contradict each other, so one in between is missing.
    Contradiction,
    /// The trace has forgotten the oldest activities to make room.
    Forgotten,
    /// The thread had exited.
    Exited,
}

/// A sample that found the thread on a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    pub mono_ns: u64,
    pub is_user: bool,
    pub stack: Option<StackKey>,
}

/// A part of an interval that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub ns: u64,
    pub doing: Doing,
}

/// The activities of a thread. Each lasts from its time to the time of the next.
pub struct Timeline {
    intervals: VecDeque<(u64, Doing)>,
    samples: VecDeque<Sample>,
    /// The activity before the first interval.
    before: Unseen,
    /// When an event last showed the current activity.
    sure_ns: u64,
    /// Number of event losses noticed before that event.
    losses: u64,
    /// When the running thread was woken, see [`WAKE_BEFORE_SWITCH_NS`].
    woken_ns: Option<u64>,
    /// Upper bound on `intervals`.
    pub most: usize,
}

impl Default for Timeline {
    fn default() -> Timeline {
        Timeline {
            intervals: VecDeque::new(),
            samples: VecDeque::new(),
            before: Unseen::NotYet,
            sure_ns: 0,
            losses: 0,
            woken_ns: None,
            most: EACH,
        }
    }
}

impl Timeline {
    /// Returns the upper bound on the intervals of one of `threads` threads.
    pub fn most(threads: usize) -> usize {
        (ALL / threads.max(1)).clamp(LEAST, EACH)
    }

    /// Takes an event of the thread. `losses`: the number of event losses noticed so far.
    pub fn step(&mut self, mono_ns: u64, step: &SchedStep, losses: u64) {
        if self.losses != losses {
            self.losses = losses;
            self.become_unseen(Unseen::Lost);
        }
        if mono_ns < self.sure_ns {
            self.become_unseen(Unseen::Lost);
            return;
        }
        let now = self.now();
        match step {
            SchedStep::Enrolled { .. } | SchedStep::Sample { .. } => {
                if !matches!(now, Doing::Running | Doing::Unseen(_)) {
                    self.become_unseen(Unseen::Contradiction);
                }
                self.push(mono_ns, Doing::Running);
            }
            SchedStep::In => self.gets_cpu(mono_ns, now),
            SchedStep::Out {
                off,
                syscall,
                stack,
            } => {
                if !matches!(now, Doing::Running | Doing::Unseen(_)) {
                    self.become_unseen(Unseen::Contradiction);
                }
                let since_ns = mono_ns.saturating_sub(WAKE_BEFORE_SWITCH_NS);
                self.woken_ns = self.woken_ns.filter(|&ns| since_ns <= ns);
                self.push(
                    mono_ns,
                    match *off {
                        OffCpu::Runnable { throttled } => Doing::Runnable { throttled },
                        OffCpu::Dead => Doing::Unseen(Unseen::Exited),
                        off => Doing::Blocked(Blocked {
                            off,
                            syscall: *syscall,
                            stack: *stack,
                            waker: None,
                        }),
                    },
                );
            }
            SchedStep::Waking { by, syscall } => match now {
                Doing::Blocked(_) => {
                    let waker = Waker {
                        tid: by.tid,
                        comm: by.comm,
                        syscall: *syscall,
                    };
                    if let Some((_, Doing::Blocked(blocked))) = self.intervals.back_mut() {
                        blocked.waker = Some(waker);
                    }
                    self.woken_ns = None;
                    self.push(mono_ns, Doing::Runnable { throttled: false });
                }
                Doing::Running => {
                    self.woken_ns = Some(mono_ns);
                    return;
                }
                Doing::Runnable { .. } | Doing::Unseen(_) => return,
            },
        }
        if let SchedStep::Sample { is_user, stack, .. } = *step {
            if self.samples.len() >= SAMPLES {
                self.samples.pop_front();
            }
            self.samples.push_back(Sample {
                mono_ns,
                is_user,
                stack,
            });
        }
        self.sure_ns = mono_ns;
    }

    fn gets_cpu(&mut self, mono_ns: u64, now: Doing) {
        match now {
            Doing::Runnable { .. } | Doing::Unseen(_) => {}
            Doing::Blocked(_) if self.woken_ns.take().is_some() => {
                if let Some((_, doing)) = self.intervals.back_mut() {
                    *doing = Doing::Runnable { throttled: false };
                }
            }
            Doing::Blocked(_) | Doing::Running => self.become_unseen(Unseen::Contradiction),
        }
        self.woken_ns = None;
        self.push(mono_ns, Doing::Running);
    }

    /// Returns whether the thread has exited.
    pub fn has_exited(&self) -> bool {
        self.now() == Doing::Unseen(Unseen::Exited)
    }

    fn now(&self) -> Doing {
        match self.intervals.back() {
            Some(&(_, doing)) => doing,
            None => Doing::Unseen(self.before),
        }
    }

    /// Marks the time since the last sure event as unseen.
    fn become_unseen(&mut self, why: Unseen) {
        if !matches!(self.now(), Doing::Unseen(_)) {
            self.push(self.sure_ns, Doing::Unseen(why));
        }
    }

    fn push(&mut self, from_ns: u64, doing: Doing) {
        if self.intervals.back().is_some_and(|it| it.0 >= from_ns) {
            self.intervals.pop_back();
        }
        if self.intervals.back().is_some_and(|it| it.1 == doing) {
            return;
        }
        while self.intervals.len() >= self.most {
            self.intervals.pop_front();
            self.before = Unseen::Forgotten;
        }
        self.intervals.push_back((from_ns, doing));
    }

    /// Returns the activities between two times. Their durations add up to the time in between.
    /// `losses`: the number of event losses noticed so far.
    pub fn spans(&self, from_ns: u64, to_ns: u64, losses: u64) -> impl Iterator<Item = Span> {
        let lost = Doing::Unseen(Unseen::Lost);
        let tail = (self.losses != losses && !matches!(self.now(), Doing::Unseen(_)))
            .then_some((self.sure_ns, lost));
        let first = self.intervals.partition_point(|it| it.0 <= from_ns);
        let before = match first.checked_sub(1) {
            Some(at) => self.intervals[at].1,
            None => Doing::Unseen(self.before),
        };
        let starts = self.intervals.range(first..).copied().chain(tail);
        let mut starts = starts.take_while(move |it| it.0 < to_ns);
        let mut current = Some((from_ns, before));
        std::iter::from_fn(move || {
            let (start_ns, doing) = current?;
            current = starts.next();
            let end_ns = current.map_or(to_ns, |(ns, _)| ns.max(from_ns));
            let ns = end_ns.saturating_sub(start_ns.max(from_ns));
            Some(Span { ns, doing })
        })
    }

    /// Returns the samples between two times.
    pub fn samples(&self, from_ns: u64, to_ns: u64) -> impl Iterator<Item = &Sample> {
        let first = self.samples.partition_point(|it| it.mono_ns < from_ns);
        let rest = self.samples.range(first..);
        rest.take_while(move |it| it.mono_ns <= to_ns)
    }
}
