//! The priority of the pipeline thread: traced programs run first, unless the pipeline is too far
//! behind.
//!
//! On a busy machine the tracer would compete with the traced server for CPUs. The pipeline can
//! wait, because its records are safe in memory. It therefore runs as SCHED_IDLE until it is too
//! far behind.
//!
//! SCHED_IDLE is better than a high nice value: a waking thread considers a CPU that only runs
//! SCHED_IDLE as idle (`sched_idle_cpu`, kernel/sched/fair.c). It then wakes up on its previous CPU
//! and displaces no other traced thread.

/// The pipeline yields again when it is no further behind than this.
const CAUGHT_UP: f64 = 0.2;

/// The scheduling policy of a thread. Another thread must set it, because a thread that gets no CPU
/// cannot raise its own priority. Threads and processes that it starts would inherit the policy.
pub struct Priority {
    /// The kernel's id of the thread.
    tid: libc::pid_t,
    /// The policy is SCHED_IDLE now.
    yields: bool,
    /// The process may leave SCHED_IDLE (CAP_SYS_NICE, RLIMIT_NICE). If not, the policy never
    /// changes.
    may_change: bool,
}

impl Priority {
    /// Returns the priority of the calling thread, which may yield if the policy can be restored.
    pub fn of_this_thread() -> Priority {
        // SAFETY: a plain system call.
        let tid = unsafe { libc::gettid() };
        // Every process may set SCHED_BATCH. A SCHED_BATCH thread never preempts a running one.
        set_policy(tid, libc::SCHED_BATCH);
        let may_change = may_leave_idle();
        Priority {
            tid,
            yields: false,
            may_change,
        }
    }

    /// Sets the policy by how far the thread is behind. 1 or more is too far.
    pub fn adjust(&mut self, behind: f64) {
        match self.yields {
            true if behind >= 1.0 => self.set(false),
            false if behind < CAUGHT_UP => self.set(true),
            _ => {}
        }
    }

    fn set(&mut self, yields: bool) {
        if self.may_change {
            let policy = if yields {
                libc::SCHED_IDLE
            } else {
                libc::SCHED_BATCH
            };
            set_policy(self.tid, policy);
            self.yields = yields;
        }
    }
}

/// Returns whether the calling thread may take another thread out of SCHED_IDLE. It may if it can lower
/// its nice value (`can_nice`, kernel/sched/syscalls.c).
pub fn may_leave_idle() -> bool {
    // SAFETY: a plain system call about the calling thread.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    set_nice(nice - 1) && set_nice(nice)
}

fn set_policy(tid: libc::pid_t, policy: libc::c_int) {
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameter is valid. If the call fails, nothing changes.
    unsafe { libc::sched_setscheduler(tid, policy, &param) };
}

/// Sets the calling thread's nice value. Returns true on success.
fn set_nice(nice: libc::c_int) -> bool {
    // SAFETY: a plain system call that affects the calling thread only.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) == 0 }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Runs `test` with the priority of another thread, which lives until the test returns.
    fn beside_a_thread(test: impl FnOnce(Priority)) {
        let (hand_over, received) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            hand_over.send(Priority::of_this_thread()).unwrap();
            // An error means that the sender is gone, so the test has returned.
            let _ = ended.recv();
        });
        test(received.recv().unwrap());
        drop(end);
        thread.join().unwrap();
    }

    fn policy(tid: libc::pid_t) -> libc::c_int {
        // SAFETY: a plain system call.
        unsafe { libc::sched_getscheduler(tid) }
    }

    fn nice(tid: libc::pid_t) -> libc::c_int {
        // SAFETY: a plain system call.
        unsafe { libc::getpriority(libc::PRIO_PROCESS, tid as libc::id_t) }
    }

    #[test]
    fn a_thread_yields_until_it_is_too_far_behind() {
        let own = (policy(0), nice(0));
        beside_a_thread(|mut priority| {
            let seen = [0.0, 0.9, 1.1, 0.3, 0.1].map(|behind| {
                priority.adjust(behind);
                policy(priority.tid)
            });
            let (idle, batch) = (libc::SCHED_IDLE, libc::SCHED_BATCH);
            // Only a privileged process may leave SCHED_IDLE. Otherwise the policy stays.
            match priority.may_change {
                true => assert_eq!(seen, [idle, idle, batch, batch, idle]),
                false => assert_eq!(seen, [batch; 5]),
            }
            assert_eq!(nice(priority.tid), own.1);
        });
        assert_eq!((policy(0), nice(0)), own);
    }
}
