//! Reader of `struct task_struct`, of any thread and its process.

use aya_ebpf::Global;
use aya_ebpf::helpers::bpf_get_current_task;

use crate::globals::{
    PID_LEVEL, PID_NUMBERS, SIGNAL_LIVE, TASK_COMM, TASK_GROUP_LEADER, TASK_PID, TASK_SIGNAL,
    TASK_TGID, TASK_THREAD_PID,
};
use crate::kernel::memory::{Memory, Probed};

/// Size of a `struct upid`, a number and a pointer. `pid.numbers` has one for each level of PID
/// namespaces.
const UPID_SIZE: u32 = 16;

/// A `struct task_struct`.
#[derive(Clone, Copy)]
pub struct Thread(*const u8);

impl Thread {
    pub fn new(task: *const u8) -> Thread {
        Thread(task)
    }

    #[inline(always)]
    pub fn current() -> Thread {
        // SAFETY: the helper takes nothing and cannot fail.
        Thread(unsafe { bpf_get_current_task() } as *const u8)
    }

    #[inline(always)]
    fn get<T: Copy>(self, offset: &Global<u32>) -> T {
        // SAFETY: a struct task_struct, and every caller names an offset into one.
        unsafe { Probed::read(self.0, offset) }
    }

    /// The process: the kernel's tgid.
    #[inline(always)]
    pub fn process(self) -> u32 {
        self.get(&TASK_TGID)
    }

    /// Returns whether it is the first thread of its process.
    #[inline(always)]
    pub fn is_first(self) -> bool {
        self.get::<u32>(&TASK_PID) == self.process()
    }

    /// Returns the name of the process: its first thread's name.
    #[inline(always)]
    pub fn process_name(self) -> [u8; 16] {
        let first: *const u8 = self.get(&TASK_GROUP_LEADER);
        // SAFETY: a struct task_struct.
        unsafe { Probed::read(first, &TASK_COMM) }
    }

    /// Returns whether a thread of the process has not exited yet.
    #[inline(always)]
    pub fn is_process_alive(self) -> bool {
        let signal: *const u8 = self.get(&TASK_SIGNAL);
        // SAFETY: a struct signal_struct, whose `live` is an int.
        unsafe { Probed::read::<i32>(signal, &SIGNAL_LIVE) > 0 }
    }

    /// Returns the thread's number in the PID namespace of another thread; 0 if it has none there.
    #[inline(always)]
    pub fn pid_in_namespace_of(self, other: Thread) -> u32 {
        let (own, theirs) = (self.thread_pid(), other.thread_pid());
        // SAFETY: each is a struct pid.
        unsafe {
            let level: u32 = Probed::read(theirs, &PID_LEVEL);
            if level > Probed::read(own, &PID_LEVEL) {
                return 0;
            }
            let at = PID_NUMBERS
                .load()
                .wrapping_add(level.wrapping_mul(UPID_SIZE));
            Probed::read_at(own.wrapping_add(at as usize))
        }
    }

    /// Returns the thread's `struct pid`.
    #[inline(always)]
    fn thread_pid(self) -> *const u8 {
        self.get(&TASK_THREAD_PID)
    }
}
