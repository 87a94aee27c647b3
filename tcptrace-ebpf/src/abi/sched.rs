//! Records of the scheduling of acceptors: threads that have called accept() on a traced listener.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A scheduling event of an acceptor.
///
/// [`sched_section`] lists the sections that follow: a [`Task`](super::Task), a [`Stack`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Sched {
    /// At [`sched_step::ENROLLED`]: address of the listening `struct sock`. Otherwise 0.
    pub listener: u64,
    /// The acceptor's thread: the kernel's pid.
    pub tid: u32,
    /// The acceptor's process: the kernel's tgid.
    pub pid: u32,
    /// At [`sched_step::OUT`]: `task_struct.__state` as the scheduler saw it (include/linux/sched.h);
    /// 0 if the thread stays runnable. Otherwise 0.
    pub state: u32,
    /// Number of the 64-bit system call that the thread is in; of the waking thread at
    /// [`sched_step::WAKING`]. [`NO_SYSCALL`] outside of a system call, [`UNKNOWN_SYSCALL`] if
    /// unknown.
    pub syscall: i32,
    /// [`sched_step`]
    pub step: u8,
    /// [`sched_section`] bits.
    pub sections: u8,
    /// [`sched_flag`] bits.
    pub flags: u8,
    pub reserved: [u8; 5],
}

impl Sched {
    /// Returns an event of this thread in which everything else is 0 or unknown.
    #[inline(always)]
    pub fn of(tid: u32, pid: u32) -> Sched {
        Sched {
            listener: 0,
            tid,
            pid,
            state: 0,
            syscall: UNKNOWN_SYSCALL,
            step: 0,
            sections: 0,
            flags: 0,
            reserved: [0; 5],
        }
    }
}

/// Default size of the `ACCEPTORS` map, in threads.
pub const ACCEPTORS: u32 = 16384;

/// Value of [`Sched::syscall`]: the thread is in no system call.
pub const NO_SYSCALL: i32 = -1;
/// Value of [`Sched::syscall`]: not known, for example in a 32-bit system call.
pub const UNKNOWN_SYSCALL: i32 = -2;

/// Values of [`Sched::step`].
pub mod sched_step {
    /// The thread called accept() on this listener for the first time, or on another listener than
    /// before, or it called listen() ([`sched_flag::LISTENS`](super::sched_flag::LISTENS)). From
    /// now on its scheduling is recorded. It is running.
    pub const ENROLLED: u8 = 1;
    /// The thread leaves its CPU (`sched_switch`, `prev`).
    pub const OUT: u8 = 2;
    /// The thread gets a CPU (`sched_switch`, `next`).
    pub const IN: u8 = 3;
    /// Another thread or an interrupt wakes the blocked thread (`sched_waking`).
    pub const WAKING: u8 = 4;
    /// A periodic sample found the thread on a CPU.
    pub const SAMPLE: u8 = 5;
}

/// Bits of [`Sched::sections`].
pub mod sched_section {
    /// [`Task`](super::super::Task): at ENROLLED the thread itself, at WAKING the current task.
    pub const TASK: u8 = 1 << 0;
    /// [`Stack`](super::Stack)
    pub const STACK: u8 = 1 << 1;
}

/// Bits of [`Sched::flags`].
pub mod sched_flag {
    /// At OUT: the thread's cgroup has used up its CPU quota (`cpu.max`).
    pub const THROTTLED: u8 = 1 << 0;
    /// At OUT: the thread's cgroup is being frozen (`cgroup.freeze`, JOBCTL_TRAP_FREEZE).
    pub const FROZEN: u8 = 1 << 1;
    /// At SAMPLE: the thread was in user mode.
    pub const USER: u8 = 1 << 2;
    /// At ENROLLED: the thread called listen(), and accept() not yet.
    pub const LISTENS: u8 = 1 << 3;
}

/// Number of return addresses of the kernel stack in a [`Stack`].
pub const KERNEL_FRAMES: usize = 32;
/// Number of return addresses of the user stack in a [`Stack`].
pub const USER_FRAMES: usize = 48;

/// Section: the acceptor's call stacks, innermost function first. 0 behind the last frame.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Stack {
    pub kernel: [u64; KERNEL_FRAMES],
    pub user: [u64; USER_FRAMES],
}
