//! The reasons of a wait as a sentence.

use std::fmt::Write;

use super::places::{InSyscall, Place, RanIn};
use super::{Activity, Wait, largest_first};
use crate::correlate::state::acceptors::{Acceptors, Unseen};
use crate::duration::Human;
use crate::event::{StackKey, Task};
use crate::fields::{Frame, LateReason, OtherAcceptor};

/// Upper bound on the parts of a sentence. The time of the others is added up.
const PARTS: usize = 4;

/// Upper bound on the user functions of a place.
const FUNCTIONS: usize = 2;

/// Parts that are both shorter than this, in nanoseconds, and less than 1 % of the wait are left
/// out.
const SHORT_NS: u64 = 1_000_000;

/// A part of a sentence: a time and its reason.
struct Part<'a> {
    ns: u64,
    reason: LateReason,
    /// Set if the thread was blocked.
    place: Option<&'a Place<'a>>,
    /// The functions of the place, `kernel ← user ← user`; empty if unknown.
    functions: String,
}

/// Returns the sentence of a wait.
pub fn sentence(
    acceptors: &Acceptors,
    wait: &Wait,
    acceptor: Option<Task>,
    activity: &Activity,
    ran_in: &RanIn,
    others: &[OtherAcceptor],
) -> String {
    let Some(task) = acceptor else {
        let why = match acceptors.is_visible {
            true => "no thread has called accept() on its listener during the trace",
            false => "no hook sees the scheduler",
        };
        return format!("what its acceptors did is not known: {why}");
    };
    let mut who = format!("{}[{}]", task.comm, task.tid);
    if wait.accepted_by.is_none() && !wait.accept {
        who.push_str(", which has called listen() but not accept(),");
    }
    let wait_ns = wait.to_ns.saturating_sub(wait.from_ns);
    let main = activity.main_reason();
    let mut parts = parts(acceptors, activity, ran_in);
    parts.retain(|it| it.ns >= SHORT_NS.min(wait_ns / 100));
    // The longest part of the main reason comes first.
    parts.sort_by_key(|it| it.reason != main);
    if parts.len() > 1 {
        largest_first(&mut parts[1..], |it| it.ns);
    }
    let mut text = String::new();
    let rest = match (main, parts.split_first()) {
        (LateReason::Unseen, _) | (_, None) => {
            let why = unseen(acceptors, activity);
            text.push_str("what ");
            text.push_str(&who);
            if activity.unseen_ns < wait_ns {
                let _ = write!(text, " did for {}", Human(activity.unseen_ns));
            } else {
                text.push_str(" did");
            }
            let _ = write!(text, " is not known: {why}");
            parts.get(1..).unwrap_or_default()
        }
        (_, Some((first, rest))) => {
            let _ = write!(text, "late because {who} ");
            first.begin(&mut text);
            rest
        }
    };
    for part in rest.iter().take(PARTS - 1) {
        text.push_str(", ");
        part.go_on(&mut text);
    }
    let more: u64 = rest.iter().skip(PARTS - 1).map(|it| it.ns).sum();
    if more > 0 {
        let _ = write!(text, ", {} elsewhere", Human(more));
    }
    add_others(&mut text, others);
    text
}

fn parts<'a>(acceptors: &Acceptors, activity: &'a Activity, ran_in: &RanIn) -> Vec<Part<'a>> {
    let sum = |reason| Part {
        ns: activity.of_reason(reason),
        reason,
        place: None,
        functions: String::new(),
    };
    let ran_in = ran_in.main().and_then(|it| it.stack);
    let running = Part {
        functions: functions(acceptors, None, ran_in),
        ..sum(LateReason::Running)
    };
    let places = activity.places.longest_first();
    let places = places.into_iter().map(|place| Part {
        ns: place.ns,
        reason: place.reason,
        place: Some(place),
        functions: functions(acceptors, place.function, place.stack),
    });
    let sums = [LateReason::Cpu, LateReason::Quota, LateReason::Unseen].map(sum);
    let all = places.chain([running]).chain(sums);
    let mut all: Vec<Part> = all.filter(|it| it.ns > 0).collect();
    largest_first(&mut all, |it| it.ns);
    all
}

impl Part<'_> {
    /// Writes the part as the predicate of the thread.
    fn begin(&self, to: &mut String) {
        let time = Human(self.ns);
        let _ = match self.reason {
            LateReason::Running => write!(to, "ran for {time}"),
            LateReason::Cpu => write!(to, "waited {time} for a CPU"),
            LateReason::Quota => write!(to, "waited {time} for CPU quota (cpu.max)"),
            LateReason::Blocked | LateReason::PageFault => {
                write!(to, "was blocked {time} in {}", self.place())
            }
            LateReason::Lock => write!(to, "waited {time} for a lock (futex)"),
            LateReason::NotWoken => write!(
                to,
                "sat {time} in {} although a connection was queued",
                self.place()
            ),
            LateReason::Stopped => {
                write!(to, "was stopped by a signal (such as SIGSTOP) for {time}")
            }
            LateReason::Traced => write!(to, "was stopped by a debugger for {time}"),
            LateReason::Frozen => {
                write!(to, "did not run for {time}: its cgroup was frozen")
            }
            LateReason::Unseen => write!(to, "was not seen for {time}"),
        };
        self.add_functions(to);
        if self.reason == LateReason::NotWoken {
            // A single block has no wake-up inside.
            to.push_str(match self.place.is_some_and(|it| it.times > 1) {
                true => ": it was woken in between but did not accept this one (",
                false => ": nothing woke it in that time (",
            });
            to.push_str(match self.place.and_then(|it| it.syscall.name()) {
                Some(name) if name.starts_with("epoll") => {
                    "is the listener in its epoll set? EPOLLEXCLUSIVE wakes only one waiter"
                }
                Some(name) if name.starts_with("accept") => "is that another listener?",
                Some(name) if name.starts_with("io_uring") => "has it submitted an accept?",
                _ => "does it wait for the listener?",
            });
            to.push(')');
        }
    }

    /// Writes the part after another one.
    fn go_on(&self, to: &mut String) {
        let time = Human(self.ns);
        let _ = match self.reason {
            LateReason::Running => write!(to, "{time} running"),
            LateReason::Cpu => write!(to, "{time} waiting for a CPU"),
            LateReason::Quota => write!(to, "{time} waiting for CPU quota (cpu.max)"),
            LateReason::Blocked | LateReason::PageFault => {
                write!(to, "{time} blocked in {}", self.place())
            }
            LateReason::Lock => write!(to, "{time} waiting for a lock (futex)"),
            LateReason::NotWoken => write!(to, "{time} in {}", self.place()),
            LateReason::Stopped => write!(to, "{time} stopped by a signal"),
            LateReason::Traced => write!(to, "{time} stopped by a debugger"),
            LateReason::Frozen => write!(to, "{time} frozen with its cgroup"),
            LateReason::Unseen => write!(to, "{time} not known"),
        };
        if self.reason != LateReason::Running {
            self.add_functions(to);
        }
    }

    fn place(&self) -> String {
        self.place.map_or_else(String::new, in_words)
    }

    fn add_functions(&self, to: &mut String) {
        let is_about_code = matches!(
            self.reason,
            LateReason::Running | LateReason::Blocked | LateReason::PageFault | LateReason::Lock
        );
        if is_about_code && !self.functions.is_empty() {
            let _ = write!(to, " ({})", self.functions);
        }
        if let Some(waker) = self.place.and_then(|it| it.released_by) {
            let _ = write!(to, ", released by {}[{}]", waker.comm, waker.tid);
        }
    }
}

/// Returns the place of a block, such as `fsync()`.
fn in_words(place: &Place) -> String {
    match place.syscall {
        InSyscall::Named(name) => format!("{name}()"),
        InSyscall::Unnamed | InSyscall::Unknown => "an unknown system call".to_owned(),
        InSyscall::Outside => "a page fault".to_owned(),
    }
}

/// Returns a function of the kernel and the innermost functions of the program, `kernel ← user ←
/// user`. Empty if none is known.
fn functions(acceptors: &Acceptors, kernel: Option<&str>, stack: Option<StackKey>) -> String {
    let stack = stack.and_then(|key| acceptors.stacks.get(key));
    let user = stack.map_or(&[][..], |it| &it.stack.user);
    let user = user.iter().filter(|it| is_of_program(it));
    let user = user.filter_map(|it| it.function.as_deref());
    let all: Vec<&str> = kernel.into_iter().chain(user.take(FUNCTIONS)).collect();
    all.join(" ← ")
}

/// Returns whether a frame is of the program itself, and not of the C library, the dynamic linker or
/// Rust's standard library.
fn is_of_program(frame: &Frame) -> bool {
    let module = frame.module.as_deref().unwrap_or_default();
    let function = frame.function.as_deref().unwrap_or_default();
    let libraries = [
        "libc.",
        "libc-",
        "libpthread",
        "ld-linux",
        "ld-musl",
        "libm.",
    ];
    let std = [
        "std::", "core::", "alloc::", "<std::", "<core::", "<alloc::", "<&std::",
    ];
    // The C library's own functions, in a static program.
    let libc = ["__libc_", "__GI_"];
    !libraries.iter().any(|it| module.starts_with(it))
        && !libc.iter().any(|it| function.starts_with(it))
        && !std.iter().any(|it| function.starts_with(it))
}

/// Returns why the longest unknown time of a thread is not known.
fn unseen(acceptors: &Acceptors, activity: &Activity) -> &'static str {
    if !acceptors.is_visible {
        return "no hook sees the scheduler";
    }
    match activity.unseen {
        None => "no event of its scheduling was seen",
        Some((_, Unseen::NotYet)) => "it had not called accept() in the trace yet",
        Some((_, Unseen::Lost)) => "events were lost",
        Some((_, Unseen::Contradiction)) => "an event of it is missing",
        Some((_, Unseen::Forgotten)) => "it was too long ago",
        Some((_, Unseen::Exited)) => "it had exited",
    }
}

/// Names the main activity of a thread that accepts on the same listener.
pub fn mainly(activity: &Activity) -> String {
    let reason = activity.main_reason();
    let places = activity.places.longest_first();
    let place = places.into_iter().find(|it| it.reason == reason);
    match reason {
        LateReason::Running => "running".to_owned(),
        LateReason::Cpu => "waiting for a CPU".to_owned(),
        LateReason::Quota => "waiting for CPU quota".to_owned(),
        LateReason::Blocked | LateReason::PageFault => {
            format!("blocked in {}", place.map_or_else(String::new, in_words))
        }
        LateReason::Lock => "waiting for a lock".to_owned(),
        LateReason::NotWoken => "waiting for work".to_owned(),
        LateReason::Stopped => "stopped by a signal".to_owned(),
        LateReason::Traced => "stopped by a debugger".to_owned(),
        LateReason::Frozen => "frozen".to_owned(),
        LateReason::Unseen => "not seen".to_owned(),
    }
}

/// Adds `; 3 other acceptors: 2 waiting for work, 1 blocked in fsync()`.
fn add_others(to: &mut String, others: &[OtherAcceptor]) {
    let mut counts: Vec<(&str, u64)> = vec![];
    for other in others {
        match counts
            .iter_mut()
            .find(|(mainly, _)| *mainly == other.mainly)
        {
            Some((_, count)) => *count += 1,
            None => counts.push((&other.mainly, 1)),
        }
    }
    largest_first(&mut counts, |(_, count)| *count);
    match (others, &counts[..]) {
        ([], _) => {}
        ([one], _) => {
            let _ = write!(
                to,
                "; the other acceptor, {}[{}], was {}",
                one.comm, one.tid, one.mainly
            );
        }
        (all, [(mainly, _)]) => {
            let _ = write!(to, "; {} other acceptors: all {mainly}", all.len());
        }
        (all, counts) => {
            let counts: Vec<String> = counts
                .iter()
                .map(|(mainly, count)| format!("{count} {mainly}"))
                .collect();
            let _ = write!(to, "; {} other acceptors: {}", all.len(), counts.join(", "));
        }
    }
}
