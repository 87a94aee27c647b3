//! The scheduling of acceptors: threads that have called accept() on a traced listener.

use serde::{Deserialize, Serialize};

use super::{Sk, Task};
use crate::fields::Frame;

/// A scheduling event of an acceptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sched {
    /// The thread (the kernel's pid).
    pub tid: u32,
    /// The process (the kernel's tgid).
    pub pid: u32,
    pub step: SchedStep,
}

/// The kind of a scheduling event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchedStep {
    /// The thread called accept() on a listener for which it was not known as an acceptor, or
    /// listen(). From now on its scheduling is recorded. It is running.
    Enrolled {
        task: Task,
        listener: Option<Sk>,
        /// True if the thread called listen(), and accept() not yet.
        listens: bool,
    },
    /// The thread leaves its CPU.
    Out {
        off: OffCpu,
        /// The system call that the thread is in; `None` if unknown.
        syscall: Option<Syscall>,
        stack: Option<StackKey>,
    },
    /// The thread gets a CPU.
    In,
    /// The blocked thread is woken.
    Waking {
        /// The current thread. It is the waker only if the wake-up does not come from an interrupt
        /// on top of it.
        by: Task,
        /// The system call that `by` is in; `None` if unknown.
        syscall: Option<Syscall>,
    },
    /// A periodic sample found the thread on a CPU.
    Sample {
        /// True in user mode, false in the kernel.
        is_user: bool,
        syscall: Option<Syscall>,
        stack: Option<StackKey>,
    },
}

/// The reason why a thread is not on a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffCpu {
    /// The thread is runnable and waits for a CPU. `throttled`: its cgroup has used up its CPU
    /// quota.
    Runnable { throttled: bool },
    /// The thread is blocked, and a signal can wake it (TASK_INTERRUPTIBLE).
    Interruptible,
    /// The thread is blocked, and no signal can wake it (TASK_UNINTERRUPTIBLE).
    Uninterruptible,
    /// The thread was stopped by a signal such as SIGSTOP (__TASK_STOPPED).
    Stopped,
    /// The thread was stopped by a debugger (__TASK_TRACED).
    Traced,
    /// The thread's cgroup was frozen (`cgroup.freeze`).
    Frozen,
    /// The thread has exited.
    Dead,
}

/// The system call that a thread is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syscall {
    /// The thread is in no system call, for example in a page fault.
    None,
    /// The number of a 64-bit system call on the machine of the trace.
    Number(u32),
}

/// Identifies a pair of kernel stack and user stack of one process: a hash of the process and the
/// frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StackKey(pub u64);

/// A stack whose addresses have been looked up. It is an input of a trace, before the records that
/// refer to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stack {
    pub key: StackKey,
    pub pid: u32,
    /// The frames of the kernel stack, innermost function first.
    pub kernel: Vec<Frame>,
    /// The frames of the user stack, innermost function first.
    pub user: Vec<Frame>,
}
