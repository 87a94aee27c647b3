//! The places where an acceptor was blocked or ran.

use super::{Wait, largest_first};
use crate::correlate::state::acceptors::{Acceptors, Blocked, Thread, Waker};
use crate::event::{OffCpu, StackKey, Syscall};
use crate::fields::{BlockedIn, Frame, LateReason, RunningIn};
use crate::syscall;

/// The places where a thread was blocked.
#[derive(Default)]
pub struct Places<'a>(Vec<Place<'a>>);

/// A place where a thread was blocked, with the sum of its blocks there.
pub struct Place<'a> {
    pub syscall: InSyscall,
    /// The innermost function of the kernel that is not part of the scheduler.
    pub function: Option<&'a str>,
    pub reason: LateReason,
    pub ns: u64,
    /// The number of blocks.
    pub times: u64,
    /// The longest block in this place.
    longest_ns: u64,
    pub stack: Option<StackKey>,
    pub released_by: Option<Waker>,
}

/// The system call of a block.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum InSyscall {
    Named(&'static str),
    /// The number has no known name.
    Unnamed,
    Outside,
    Unknown,
}

impl InSyscall {
    fn of(acceptors: &Acceptors, syscall: Option<Syscall>) -> InSyscall {
        match syscall {
            None => InSyscall::Unknown,
            Some(Syscall::None) => InSyscall::Outside,
            Some(Syscall::Number(number)) => match acceptors.machine.syscall(number) {
                Some(name) => InSyscall::Named(name),
                None => InSyscall::Unnamed,
            },
        }
    }

    pub fn name(self) -> Option<&'static str> {
        match self {
            InSyscall::Named(name) => Some(name),
            InSyscall::Unnamed | InSyscall::Outside | InSyscall::Unknown => None,
        }
    }
}

/// Returns the reason why a thread was blocked.
fn reason(off: OffCpu, syscall: InSyscall) -> LateReason {
    match (off, syscall) {
        (OffCpu::Stopped, _) => LateReason::Stopped,
        (OffCpu::Traced, _) => LateReason::Traced,
        (OffCpu::Frozen, _) => LateReason::Frozen,
        (_, InSyscall::Outside) => LateReason::PageFault,
        (_, InSyscall::Named(name)) if syscall::is_futex(name) => LateReason::Lock,
        (_, InSyscall::Named(name)) if syscall::waits_for_work(name) => LateReason::NotWoken,
        _ => LateReason::Blocked,
    }
}

impl<'a> Places<'a> {
    /// Adds a block, or the part of it that belongs to the wait.
    pub fn add(&mut self, acceptors: &'a Acceptors, blocked: Blocked, ns: u64) {
        let syscall = InSyscall::of(acceptors, blocked.syscall);
        let reason = reason(blocked.off, syscall);
        let stack = blocked.stack.and_then(|key| acceptors.stacks.get(key));
        let function = stack.and_then(|it| kernel_function(&it.stack.kernel));
        let same =
            |it: &&mut Place| (it.syscall, it.function, it.reason) == (syscall, function, reason);
        let at = match self.0.iter_mut().find(same) {
            Some(at) => at,
            None => {
                self.0.push(Place {
                    syscall,
                    function,
                    reason,
                    ns: 0,
                    times: 0,
                    longest_ns: 0,
                    stack: None,
                    released_by: None,
                });
                self.0.last_mut().expect("it was pushed")
            }
        };
        at.ns += ns;
        at.times += 1;
        if at.longest_ns < ns {
            at.longest_ns = ns;
            at.stack = blocked.stack;
            let is_futex = |waker: &Waker| {
                let syscall = InSyscall::of(acceptors, waker.syscall);
                reason == LateReason::Lock && syscall.name().is_some_and(syscall::is_futex)
            };
            at.released_by = blocked.waker.filter(is_futex);
        }
    }

    /// Returns the time of a reason, in nanoseconds.
    pub fn of_reason(&self, reason: LateReason) -> u64 {
        let of = self.0.iter().filter(|it| it.reason == reason);
        of.map(|it| it.ns).sum()
    }

    /// Returns the places, longest first.
    pub fn longest_first(&self) -> Vec<&Place<'a>> {
        let mut all: Vec<_> = self.0.iter().collect();
        largest_first(&mut all, |it| it.ns);
        all
    }

    pub fn lines(&self, acceptors: &Acceptors, most: usize) -> Vec<BlockedIn> {
        let longest = self.longest_first().into_iter().take(most);
        let lines = longest.map(|it| BlockedIn {
            syscall: it.syscall.name().map(Into::into),
            function: it.function.map(str::to_owned),
            late_reason: it.reason,
            ns: it.ns,
            times: it.times,
            stack: number(acceptors, it.stack),
            woken_by: it
                .released_by
                .map(|waker| format!("{}[{}]", waker.comm, waker.tid)),
        });
        lines.collect()
    }
}

/// The places where samples found a thread on a CPU, most samples first.
#[derive(Default)]
pub struct RanIn<'a>(Vec<SampledIn<'a>>);

/// A place where samples found a thread on a CPU.
pub struct SampledIn<'a> {
    is_user: bool,
    function: Option<&'a str>,
    samples: u64,
    pub stack: Option<StackKey>,
}

impl<'a> RanIn<'a> {
    pub fn of(acceptors: &'a Acceptors, wait: &Wait, thread: &Thread) -> RanIn<'a> {
        let mut all: Vec<SampledIn> = vec![];
        for sample in thread.timeline.samples(wait.from_ns, wait.to_ns) {
            let stack = sample.stack.and_then(|key| acceptors.stacks.get(key));
            let function = stack.and_then(|it| match sample.is_user {
                true => it.stack.user.first()?.function.as_deref(),
                false => kernel_function(&it.stack.kernel),
            });
            let is_user = sample.is_user;
            let same = |it: &&mut SampledIn| (it.is_user, it.function) == (is_user, function);
            match all.iter_mut().find(same) {
                Some(at) => at.samples += 1,
                None => all.push(SampledIn {
                    is_user,
                    function,
                    samples: 1,
                    stack: sample.stack,
                }),
            }
        }
        largest_first(&mut all, |it| it.samples);
        RanIn(all)
    }

    /// Returns the place with the most samples.
    pub fn main(&self) -> Option<&SampledIn<'a>> {
        self.0.first()
    }

    pub fn lines(&self, acceptors: &Acceptors, most: usize) -> Vec<RunningIn> {
        let lines = self.0.iter().take(most).map(|it| RunningIn {
            function: it.function.map(str::to_owned),
            user_mode: it.is_user,
            samples: it.samples,
            stack: number(acceptors, it.stack),
        });
        lines.collect()
    }
}

fn number(acceptors: &Acceptors, stack: Option<StackKey>) -> Option<u64> {
    Some(acceptors.stacks.get(stack?)?.number)
}

/// Returns the innermost function of the kernel that is not part of the scheduler. `None` if the
/// thread entered the scheduler from the entry of its system call.
fn kernel_function(frames: &[Frame]) -> Option<&str> {
    let functions = frames.iter().filter_map(|it| it.function.as_deref());
    let functions = functions.map(|it| (it, without_suffix(it)));
    let mut outside = functions.skip_while(|(_, name)| is_scheduler(name));
    let (function, name) = outside.next()?;
    (!is_entry(name)).then_some(function)
}

/// Returns the name of a function without what the compiler adds to it, such as `.isra.0`.
fn without_suffix(function: &str) -> &str {
    function.split('.').next().unwrap_or(function)
}

/// Returns whether a function of the kernel is part of the scheduler, or one of the helpers that
/// only wait (kernel/sched, kernel/time, mm/filemap.c, Linux 5.10 to 6.18).
fn is_scheduler(name: &str) -> bool {
    let helpers = [
        "__cond_resched",
        "__io_schedule",
        "__schedule",
        "__wait_on_bit",
        "__wait_on_bit_lock",
        "bit_wait",
        "bit_wait_io",
        "folio_wait_bit",
        "folio_wait_bit_common",
        "io_schedule",
        "io_schedule_timeout",
        "out_of_line_wait_on_bit",
        "preempt_schedule",
        "preempt_schedule_common",
        "preempt_schedule_irq",
        "schedule",
        "wait_woken",
    ];
    helpers.contains(&name)
        || name.starts_with("schedule_")
        || name.starts_with("wait_for_completion")
        || name.starts_with("__wait_for_comm")
}

/// Returns whether a function of the kernel is the entry of a system call or of an exception.
fn is_entry(name: &str) -> bool {
    let entries = [
        "do_el0_svc",
        "do_syscall_64",
        "el0_svc",
        "el0_svc_common",
        "el0t_64_sync",
        "el0t_64_sync_handler",
        "invoke_syscall",
        "irqentry_exit_to_user_mode",
        "ret_from_fork",
        "syscall_exit_to_user_mode",
        "x64_sys_call",
    ];
    entries.contains(&name)
        || [
            "__x64_sys_",
            "__arm64_sys_",
            "__se_sys_",
            "__do_sys_",
            "entry_SYSCALL",
            "asm_",
        ]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}
