//! Lets what is traced run first, as long as the pipeline keeps up.
//!
//! A server that is busy on every CPU would share them with its tracer. What the tracer has to do can
//! wait a little: records are safe in memory. So its working thread is nice, and takes no CPU away
//! from a thread that runs (SCHED_BATCH), until it is too far behind.

/// How much nicer the thread is while it keeps up.
const NICER: libc::c_int = 10;

/// As far as this it must have caught up before it yields again.
const CAUGHT_UP: f64 = 0.2;

/// The priority of a thread. Threads and processes that it starts would inherit it.
pub struct Priority {
    /// Its nice value as the user wants it.
    own: libc::c_int,
    /// Whether it is nicer now.
    yields: bool,
    /// Where going back is not allowed (CAP_SYS_NICE, RLIMIT_NICE), it never is.
    may_change: bool,
}

impl Priority {
    /// Has the calling thread yield, if that can be taken back.
    pub fn of_this_thread() -> Priority {
        // Allowed to everybody, there and back.
        let param = libc::sched_param { sched_priority: 0 };
        // SAFETY: a valid parameter; a refusal changes nothing.
        unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &param) };
        // SAFETY: a plain system call about the calling thread.
        let own = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        // Who may be less nice than now may come back to it.
        let may_change = set_nice(own - 1) && set_nice(own);
        let mut priority = Priority {
            own,
            yields: false,
            may_change,
        };
        priority.set(true);
        priority
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
            set_nice(if yields { self.own + NICER } else { self.own });
            self.yields = yields;
        }
    }
}

/// Sets the calling thread's nice value, within its limits; whether that was allowed.
fn set_nice(nice: libc::c_int) -> bool {
    // SAFETY: a plain system call about the calling thread alone; a refusal changes nothing.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a thread of its own, whose end ends all that.
    fn in_a_thread<T: Send + 'static>(test: fn() -> T) -> T {
        std::thread::spawn(test).join().unwrap()
    }

    fn nice() -> libc::c_int {
        // SAFETY: a plain system call about the calling thread.
        unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
    }

    #[test]
    fn it_yields_until_too_much_waits() {
        let before = nice();
        let seen = in_a_thread(|| {
            let mut priority = Priority::of_this_thread();
            let seen = [0.0, 0.9, 1.1, 0.3, 0.1].map(|behind| {
                priority.adjust(behind);
                nice()
            });
            priority.may_change.then_some(seen)
        });
        // Nobody but root may go back; everybody else stays as they were.
        if let Some(seen) = seen {
            let nicer = (before + NICER).min(19);
            assert_eq!(seen, [nicer, nicer, before, before, nicer]);
        }
        assert_eq!(nice(), before);
    }
}
