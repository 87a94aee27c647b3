//! Lets what is traced run first, as long as the pipeline keeps up.
//!
//! A server that is busy on every CPU would share them with its tracer. What the tracer has to do can
//! wait a little: records are safe in memory. So its working thread takes only what nobody else wants
//! (SCHED_IDLE), until it is too far behind. That is more than being nice: to a thread that wakes
//! up, a CPU with nothing else on it is idle (`sched_idle_cpu`, kernel/sched/fair.c), so it comes back
//! to the CPU where it was, and does not displace another that is traced.

/// As far as this it must have caught up before it yields again.
const CAUGHT_UP: f64 = 0.2;

/// The priority of a thread, in the hands of another: one that gets no CPU cannot help itself.
/// Threads and processes that it starts would inherit it.
pub struct Priority {
    /// The kernel's number of the thread.
    tid: libc::pid_t,
    /// Whether it takes only what nobody wants now.
    yields: bool,
    /// Where going back is not allowed (CAP_SYS_NICE, RLIMIT_NICE), it never does.
    may_change: bool,
}

impl Priority {
    /// Of the calling thread, which is to yield where that can be taken back.
    pub fn of_this_thread() -> Priority {
        // SAFETY: a plain system call.
        let tid = unsafe { libc::gettid() };
        // Allowed to everybody: it never takes the CPU from a thread that runs.
        set_policy(tid, libc::SCHED_BATCH);
        // Who may be less nice than now may also leave SCHED_IDLE (`can_nice`,
        // kernel/sched/syscalls.c).
        // SAFETY: a plain system call about the calling thread.
        let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        let may_change = set_nice(nice - 1) && set_nice(nice);
        Priority {
            tid,
            yields: false,
            may_change,
        }
    }

    /// Decides anew by how far the thread is behind; from 1 on it is too far.
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

fn set_policy(tid: libc::pid_t, policy: libc::c_int) {
    let param = libc::sched_param { sched_priority: 0 };
    // SAFETY: a valid parameter; a refusal changes nothing.
    unsafe { libc::sched_setscheduler(tid, policy, &param) };
}

/// Sets the calling thread's nice value, within its limits; whether that was allowed.
fn set_nice(nice: libc::c_int) -> bool {
    // SAFETY: a plain system call about the calling thread alone; a refusal changes nothing.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) == 0 }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Runs `test` in this thread, and beside it the one whose priority it gets.
    fn beside_a_thread(test: impl FnOnce(Priority)) {
        let (hand_over, handed) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            hand_over.send(Priority::of_this_thread()).unwrap();
            // An error: the other end is gone.
            let _ = ended.recv();
        });
        test(handed.recv().unwrap());
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
    fn it_yields_until_too_much_waits() {
        let own = (policy(0), nice(0));
        beside_a_thread(|mut priority| {
            let seen = [0.0, 0.9, 1.1, 0.3, 0.1].map(|behind| {
                priority.adjust(behind);
                policy(priority.tid)
            });
            let (idle, batch) = (libc::SCHED_IDLE, libc::SCHED_BATCH);
            // Nobody but root may go back; everybody else stays as they were.
            match priority.may_change {
                true => assert_eq!(seen, [idle, idle, batch, batch, idle]),
                false => assert_eq!(seen, [batch; 5]),
            }
            assert_eq!(nice(priority.tid), own.1);
        });
        assert_eq!((policy(0), nice(0)), own);
    }
}
