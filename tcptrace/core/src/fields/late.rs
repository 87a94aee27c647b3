//! The fields that explain a late accept().

use std::borrow::Cow;
use std::cmp::Reverse;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::event::Comm;

/// Explains a wait in the accept queue by the activity of the acceptor. The wait lasts from
/// ESTABLISHED to the accept() that returned the connection, or to the end of the connection if
/// none did. Only with `--why`, and only if the wait was longer than its time.
///
/// The acceptor is the thread that accepted the connection. For a connection that no thread
/// accepted, it is the thread that accepts on the listener and was observed for longest; if none
/// accepts, the thread that called listen(). The four times add up to the wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Late {
    /// The acceptor's thread id; null if no acceptor of the listener is known.
    pub acceptor_tid: Option<u32>,
    /// Time that the acceptor ran on a CPU, in nanoseconds.
    pub acceptor_running_ns: u64,
    /// Time that the acceptor was runnable and waited for a CPU, in nanoseconds.
    pub acceptor_runnable_ns: u64,
    /// The part of `acceptor_runnable_ns` in which the acceptor's cgroup had used up its CPU quota
    /// (`cpu.max`), in nanoseconds.
    pub acceptor_throttled_ns: u64,
    /// Time that the acceptor was blocked or stopped, in nanoseconds.
    pub acceptor_blocked_ns: u64,
    /// Time without knowledge about the acceptor, in nanoseconds: it was not known as an acceptor
    /// yet, or events were lost.
    pub acceptor_unseen_ns: u64,
    /// Where the acceptor was blocked, longest first, at most 8 places.
    pub acceptor_blocked_in: Vec<BlockedIn>,
    /// Where the acceptor ran, by samples, most samples first, at most 8 places.
    pub acceptor_running_in: Vec<RunningIn>,
    /// The other threads that accept on the listener, at most 16.
    pub other_acceptors: Vec<OtherAcceptor>,
    /// The main reason of the wait.
    pub late_reason: LateReason,
    /// The reasons of the wait as a sentence.
    pub late_because: String,
    /// The wait by reason.
    #[serde(skip)]
    pub times: LateTimes,
}

impl Late {
    /// Returns the numbers of the stacks that the line refers to.
    pub fn stacks(&self) -> impl Iterator<Item = u64> {
        let blocked = self.acceptor_blocked_in.iter().filter_map(|it| it.stack);
        let running = self.acceptor_running_in.iter();
        blocked.chain(running.filter_map(|it| it.stack))
    }
}

/// The waits in the accept queue that `--why` explains, added up by reason. Each part of a wait
/// counts for the reason that the acceptor had then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LateTimes {
    /// Number of connections that waited longer than the time of `--why`.
    pub late_connections: u64,
    /// Time in which the acceptors ran on a CPU, in nanoseconds.
    pub late_running_ns: u64,
    /// Time in which the acceptors waited for a CPU, in nanoseconds.
    pub late_cpu_ns: u64,
    /// Time in which the acceptors' cgroups had used up their CPU quota, in nanoseconds.
    pub late_quota_ns: u64,
    /// Time in which the acceptors were blocked in system calls, or in the kernel, in nanoseconds.
    pub late_blocked_ns: u64,
    /// Time in which the acceptors waited for locks (futex), in nanoseconds.
    pub late_lock_ns: u64,
    /// Time in which the acceptors waited for pages from disk or swap, in nanoseconds.
    pub late_page_fault_ns: u64,
    /// Time in which the acceptors waited for events or connections, and nothing woke them, in nanoseconds.
    pub late_not_woken_ns: u64,
    /// Time in which the acceptors were stopped by signals, in nanoseconds.
    pub late_stopped_ns: u64,
    /// Time in which the acceptors were stopped by debuggers, in nanoseconds.
    pub late_traced_ns: u64,
    /// Time in which the acceptors' cgroups were frozen, in nanoseconds.
    pub late_frozen_ns: u64,
    /// Time in which the acceptors' activity is not known, in nanoseconds.
    pub late_unseen_ns: u64,
}

impl LateTimes {
    /// Adds a time in nanoseconds to a reason.
    pub fn add(&mut self, reason: LateReason, ns: u64) {
        let sum = self.of_mut(reason);
        *sum = sum.saturating_add(ns);
    }

    /// Returns the time of a reason, in nanoseconds.
    pub fn of(mut self, reason: LateReason) -> u64 {
        *self.of_mut(reason)
    }

    /// Adds other waits.
    pub fn add_all(&mut self, other: &LateTimes) {
        self.late_connections += other.late_connections;
        for (reason, ns) in other.largest_first() {
            self.add(reason, ns);
        }
    }

    /// Returns the reasons with their times in nanoseconds, largest first. Reasons without a time
    /// are left out.
    pub fn largest_first(&self) -> Vec<(LateReason, u64)> {
        let times = LateReason::ALL.map(|reason| (reason, self.of(reason)));
        let mut times: Vec<_> = times.into_iter().filter(|(_, ns)| *ns > 0).collect();
        times.sort_by_key(|&(_, ns)| Reverse(ns));
        times
    }

    fn of_mut(&mut self, reason: LateReason) -> &mut u64 {
        match reason {
            LateReason::Running => &mut self.late_running_ns,
            LateReason::Cpu => &mut self.late_cpu_ns,
            LateReason::Quota => &mut self.late_quota_ns,
            LateReason::Blocked => &mut self.late_blocked_ns,
            LateReason::Lock => &mut self.late_lock_ns,
            LateReason::PageFault => &mut self.late_page_fault_ns,
            LateReason::NotWoken => &mut self.late_not_woken_ns,
            LateReason::Stopped => &mut self.late_stopped_ns,
            LateReason::Traced => &mut self.late_traced_ns,
            LateReason::Frozen => &mut self.late_frozen_ns,
            LateReason::Unseen => &mut self.late_unseen_ns,
        }
    }
}

/// A place where an acceptor was blocked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BlockedIn {
    /// Name of the system call; null outside of a system call or if unknown.
    pub syscall: Option<Cow<'static, str>>,
    /// The innermost function of the kernel that is not part of the scheduler and does not only
    /// wait; null if unknown.
    pub function: Option<String>,
    /// The kind of the block.
    pub late_reason: LateReason,
    /// Time in this place, in nanoseconds.
    pub ns: u64,
    /// Number of times that the thread was blocked in this place.
    pub times: u64,
    /// Number of the `stack` line of the longest block in this place; null without a stack.
    pub stack: Option<u64>,
    /// The thread that released the lock that the acceptor waited for, as `comm[tid]`; null if
    /// unknown.
    pub woken_by: Option<String>,
}

/// A place where an acceptor ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunningIn {
    /// The innermost function; null if unknown.
    pub function: Option<String>,
    /// Whether the thread was in user mode.
    pub user_mode: bool,
    /// Number of samples.
    pub samples: u64,
    /// Number of the `stack` line of one of the samples; null without a stack.
    pub stack: Option<u64>,
}

/// Another thread that accepts on the listener, with its activity in the same time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OtherAcceptor {
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// The thread's name.
    pub comm: Comm,
    /// As `acceptor_running_ns`.
    pub running_ns: u64,
    /// As `acceptor_runnable_ns`.
    pub runnable_ns: u64,
    /// As `acceptor_blocked_ns`.
    pub blocked_ns: u64,
    /// As `acceptor_unseen_ns`.
    pub unseen_ns: u64,
    /// Names its main activity, such as `blocked in fsync()` or `waiting for work`.
    pub mainly: String,
}

/// A reason why accept() was late.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum LateReason {
    /// The acceptor ran on a CPU.
    Running,
    /// The acceptor waited for a CPU.
    Cpu,
    /// The acceptor's cgroup had used up its CPU quota.
    Quota,
    /// The acceptor was blocked in a system call, or in the kernel.
    Blocked,
    /// The acceptor waited for a lock or a condition of another thread (futex).
    Lock,
    /// The acceptor waited for a page from disk or swap (page fault).
    PageFault,
    /// The acceptor waited for events or connections although a connection was queued. Its epoll set
    /// may lack the listener, or another thread was woken.
    NotWoken,
    /// The acceptor was stopped by a signal.
    Stopped,
    /// The acceptor was stopped by a debugger.
    Traced,
    /// The acceptor's cgroup was frozen.
    Frozen,
    /// The acceptor's activity is not known.
    Unseen,
}

impl LateReason {
    pub const ALL: [LateReason; 11] = [
        LateReason::Running,
        LateReason::Cpu,
        LateReason::Quota,
        LateReason::Blocked,
        LateReason::Lock,
        LateReason::PageFault,
        LateReason::NotWoken,
        LateReason::Stopped,
        LateReason::Traced,
        LateReason::Frozen,
        LateReason::Unseen,
    ];

    /// Returns what the acceptor did, in words that follow a time.
    pub fn words(self) -> &'static str {
        match self {
            LateReason::Running => "running",
            LateReason::Cpu => "waiting for a CPU",
            LateReason::Quota => "waiting for CPU quota",
            LateReason::Blocked => "blocked",
            LateReason::Lock => "waiting for a lock",
            LateReason::PageFault => "in page faults",
            LateReason::NotWoken => "not woken",
            LateReason::Stopped => "stopped by a signal",
            LateReason::Traced => "stopped by a debugger",
            LateReason::Frozen => "frozen",
            LateReason::Unseen => "not known",
        }
    }

    /// Returns the value's name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            LateReason::Running => "running",
            LateReason::Cpu => "cpu",
            LateReason::Quota => "quota",
            LateReason::Blocked => "blocked",
            LateReason::Lock => "lock",
            LateReason::PageFault => "page_fault",
            LateReason::NotWoken => "not_woken",
            LateReason::Stopped => "stopped",
            LateReason::Traced => "traced",
            LateReason::Frozen => "frozen",
            LateReason::Unseen => "unseen",
        }
    }
}

/// A pair of call stacks that the next line refers to by its number. It is written before the first
/// such line, and again with the same number if more functions have become known since. Only with
/// `--why`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stack {
    /// Time of the first line that refers to the stacks, in CLOCK_MONOTONIC nanoseconds.
    pub mono_ns: u64,
    /// Number of the stack, unique in the trace.
    pub stack: u64,
    /// The process.
    pub pid: u32,
    /// The kernel stack, innermost function first.
    pub kernel_frames: Vec<Frame>,
    /// The user stack, innermost function first.
    pub user_frames: Vec<Frame>,
}

/// A function call in a stack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Frame {
    /// The address in the process or in the kernel.
    pub address: u64,
    /// Name of the function; null without a symbol.
    pub function: Option<String>,
    /// Name of the file that contains the code, without its directory; null if unknown, and in the
    /// kernel.
    pub module: Option<String>,
    /// Source file; null without debug information.
    pub file: Option<String>,
    /// Line in the source file; null without debug information.
    pub line: Option<u32>,
    /// True if the compiler inlined this function into the next frame's.
    pub inlined: bool,
}
