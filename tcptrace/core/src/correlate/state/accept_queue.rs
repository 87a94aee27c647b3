//! The accept queue of a listener as events show it, and the failures of accept() while connections
//! wait in it.

use smallvec::SmallVec;

use crate::errno;

/// The state of one accept queue, as the last events showed it.
#[derive(Default)]
pub struct AcceptQueue {
    /// The current or last period in which the queue was full.
    full: Option<Full>,
    /// True if the queue was full at some time since the last call of [`AcceptQueue::was_full`].
    was_full: bool,
    pub failures: Failures,
}

/// A period in which an accept queue was full. The kernel treats a queue as full if it has more
/// entries than its limit (`sk_acceptq_is_full`, include/net/sock.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// CLOCK_MONOTONIC, nanoseconds.
    from_ns: u64,
    /// `None` while the queue is full.
    until_ns: Option<u64>,
    /// Number of entries in the accept queue at the last event.
    pub held: u32,
    pub limit: u32,
}

impl AcceptQueue {
    /// Takes the length and the limit of the queue from an event.
    pub fn holds(&mut self, mono_ns: u64, held: u32, limit: u32) {
        let still = self.full.filter(|full| full.until_ns.is_none());
        if held > limit {
            self.was_full = true;
            self.full = Some(Full {
                from_ns: still.map_or(mono_ns, |full| full.from_ns),
                until_ns: None,
                held,
                limit,
            });
        } else if let Some(full) = &mut self.full {
            full.until_ns = full.until_ns.or(Some(mono_ns));
        }
    }

    /// Ends the queue because the listener closed.
    pub fn close(&mut self, mono_ns: u64) {
        self.holds(mono_ns, 0, 0);
    }

    /// Returns the current full period, with the length and the limit of the queue, if the queue is
    /// full now.
    pub fn full(&self) -> Option<Full> {
        self.full.filter(|full| full.until_ns.is_none())
    }

    /// Returns the period that contains `ns`, if the queue was full then. Only the last full period
    /// is remembered.
    pub fn full_at(&self, ns: u64) -> Option<Full> {
        let until = |full: &Full| full.until_ns.is_none_or(|until_ns| ns <= until_ns);
        self.full.filter(|full| full.from_ns <= ns && until(full))
    }

    /// Returns whether the queue was full at some time since the last call.
    pub fn was_full(&mut self) -> bool {
        let is_full = self.full().is_some();
        std::mem::replace(&mut self.was_full, is_full)
    }
}

/// Failed accept() calls of a listener, except for routine errors such as EAGAIN.
#[derive(Default)]
pub struct Failures {
    pub count: u64,
    /// Each errno with the time of its last return, CLOCK_MONOTONIC in nanoseconds.
    errnos: SmallVec<[(u32, u64); 2]>,
}

impl Failures {
    /// Errors that accept() returns routinely in a server that polls or receives signals: EAGAIN,
    /// EINTR, and the kernel's internal numbers for a restarted call.
    const ROUTINE: [u32; 6] = [11, 4, 512, 513, 514, 516];

    pub fn note(&mut self, mono_ns: u64, errno: u32) {
        if Failures::ROUTINE.contains(&errno) {
            return;
        }
        self.count += 1;
        match self.errnos.iter_mut().find(|(it, _)| *it == errno) {
            Some((_, last_ns)) => *last_ns = mono_ns,
            None => self.errnos.push((errno, mono_ns)),
        }
    }

    /// Returns the accept() failures since `since_ns` as text: `meanwhile accept() failed 137 times
    /// with EMFILE`. `before`: the count of failures at `since_ns`. `None` if no call failed since.
    pub fn since(&self, before: u64, since_ns: u64) -> Option<String> {
        let times = match self.count.checked_sub(before)? {
            0 => return None,
            1 => "once".to_owned(),
            n => format!("{n} times"),
        };
        let fresh = self
            .errnos
            .iter()
            .filter(|(_, last_ns)| *last_ns >= since_ns);
        let names: Vec<_> = fresh.map(|&(it, _)| errno::name(it)).collect();
        let names = names.join(" or ");
        Some(format!("meanwhile accept() failed {times} with {names}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EAGAIN: u32 = 11;
    const ENFILE: u32 = 23;
    const EMFILE: u32 = 24;

    #[test]
    fn queue_is_full_above_its_limit() {
        let mut queue = AcceptQueue::default();
        queue.holds(10, 4, 4);
        assert_eq!(queue.full(), None);
        queue.holds(20, 5, 4);
        let full = queue.full().unwrap();
        assert_eq!((full.held, full.limit), (5, 4));
        queue.holds(30, 4, 4);
        assert_eq!(queue.full(), None);
        assert_eq!(queue.full_at(19), None);
        assert!(queue.full_at(20).is_some() && queue.full_at(30).is_some());
        assert_eq!(queue.full_at(31), None);
        assert!(queue.was_full());
        assert!(!queue.was_full());
    }

    #[test]
    fn queue_that_stays_full_is_full_at_every_reading() {
        let mut queue = AcceptQueue::default();
        queue.holds(20, 5, 4);
        assert!(queue.was_full());
        assert!(queue.was_full());
        queue.close(30);
        assert!(queue.was_full());
        assert!(!queue.was_full());
    }

    #[test]
    fn failures_since_a_time_are_counted_and_named() {
        let mut failures = Failures::default();
        failures.note(1, ENFILE);
        failures.note(2, EAGAIN);
        assert_eq!(failures.count, 1);
        assert_eq!(failures.since(1, 5), None);
        failures.note(6, EMFILE);
        assert_eq!(
            failures.since(1, 5).as_deref(),
            Some("meanwhile accept() failed once with EMFILE")
        );
        failures.note(7, EMFILE);
        assert_eq!(
            failures.since(0, 0).as_deref(),
            Some("meanwhile accept() failed 3 times with ENFILE or EMFILE")
        );
    }
}
