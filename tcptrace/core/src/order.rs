//! Puts events in order of time.
//!
//! A CPU's lane is in order of time, and lanes are merged; but a timestamp is taken before the record can
//! be read, and an interrupt or a hypervisor can stretch the gap between the two (42 µs at worst was
//! measured with the ring buffer, which keeps the order of reservation on all CPUs). So events are held back for
//! a moment, sorted, and released when nothing earlier can still be on its way.

use crate::event::Event;

/// How long an event is held back, in nanoseconds: a hundred times the worst inversion measured.
pub const HOLD_BACK_NS: u64 = 5_000_000;

/// As many places before the last one an event is looked a place for as it comes; one that
/// belongs further back is left to a sort.
const NEAR: usize = 64;

/// Events that are not released yet.
#[derive(Default)]
pub struct Order {
    /// Sorted by time, unless said otherwise.
    held: Vec<Event>,
    /// The last of them are in the order of their arrival.
    unsorted: bool,
    /// So many of the first were released already.
    released: usize,
    /// So many of the first are released, or due.
    due: usize,
    /// Time of the last event released.
    released_ns: u64,
    late: u64,
}

impl Order {
    pub fn push(&mut self, event: Event) {
        // Nearly every event belongs behind the last one, and the others a few places before it:
        // a sort of all would move each several times.
        let end = self.held.len();
        let first = end.saturating_sub(NEAR).max(self.due);
        let near = self.held[first..].iter().rev();
        let later = near.take_while(|it| it.mono_ns > event.mono_ns).count();
        if self.unsorted || later == NEAR {
            self.unsorted = true;
            self.held.push(event);
        } else {
            self.held.insert(end - later, event);
        }
    }

    /// Marks the events up to `until_ns` as due, for [`next`](Order::next) to release.
    pub fn release(&mut self, until_ns: u64) {
        self.forget_released();
        if std::mem::take(&mut self.unsorted) {
            // It is stable.
            self.held.sort_by_key(|event| event.mono_ns);
        }
        self.due = self.held.partition_point(|event| event.mono_ns <= until_ns);
    }

    /// Releases the next event that is due, with those that are known to come after it, and with whether it
    /// is late. Equal times keep the order of arrival.
    #[expect(clippy::should_implement_trait, reason = "it lends what it holds")]
    pub fn next(&mut self) -> Option<(&Event, &[Event], bool)> {
        if self.released == self.due {
            self.forget_released();
            return None;
        }
        let (event, later) = self.held[self.released..].split_first()?;
        self.released += 1;
        let is_late = event.mono_ns < self.released_ns;
        self.late += u64::from(is_late);
        self.released_ns = self.released_ns.max(event.mono_ns);
        Some((event, later, is_late))
    }

    fn forget_released(&mut self) {
        self.held.drain(..self.released);
        self.due -= self.released;
        self.released = 0;
    }

    /// Those that are not released yet.
    pub fn held(&self) -> &[Event] {
        &self.held[self.released..]
    }

    /// Time of the last event that is held, or else that was released.
    pub fn latest_ns(&self) -> u64 {
        let held = self.held().iter().map(|event| event.mono_ns);
        held.fold(self.released_ns, u64::max)
    }

    /// Events that came after a later one had been released: the hold-back was too short for
    /// them.
    pub fn late(&self) -> u64 {
        self.late
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Kind, SetState, Sk, State, Tuple};
    use std::net::{IpAddr, Ipv4Addr};

    fn at(mono_ns: u64, cpu: u16) -> Event {
        Event {
            mono_ns,
            cpu,
            lost: 0,
            kind: Kind::SetState(SetState {
                sk: Sk(1),
                cookie: None,
                cgroup: None,
                netns: 1,
                tuple: Tuple {
                    laddr: IpAddr::V4(Ipv4Addr::LOCALHOST),
                    lport: None,
                    raddr: None,
                    rport: None,
                },
                scope: None,
                oldstate: State::Close,
                newstate: State::Listen,
                context: None,
                task: None,
                backlog_len: 0,
                backlog_max: 0,
                held: false,
                fin_received: false,
                orphaned: false,
                srtt_ns: None,
                uid: 0,
                err: None,
                stats: None,
                listen: None,
                no_fast_open: false,
                repair: false,
                fastopen_connect: false,
                fin_uncounted: false,
                clone_of: None,
            }),
        }
    }

    fn released(order: &mut Order, until_ns: u64) -> Vec<(u64, u16)> {
        let mut times = vec![];
        order.release(until_ns);
        while let Some((event, ..)) = order.next() {
            times.push((event.mono_ns, event.cpu));
        }
        times
    }

    #[test]
    fn swapped_records_come_out_in_order() {
        let mut order = Order::default();
        for time in [10, 30, 20, 40] {
            order.push(at(time, 0));
        }
        assert_eq!(released(&mut order, 30), [(10, 0), (20, 0), (30, 0)]);
        order.push(at(35, 1));
        assert_eq!(released(&mut order, u64::MAX), [(35, 1), (40, 0)]);
        assert_eq!(order.late(), 0);
    }

    #[test]
    fn each_is_released_with_those_after_it() {
        let mut order = Order::default();
        for time in [10, 30, 20] {
            order.push(at(time, 0));
        }
        let mut after = vec![];
        order.release(20);
        while let Some((_, later, _)) = order.next() {
            after.push(later.iter().map(|it| it.mono_ns).collect::<Vec<_>>());
        }
        assert_eq!(after, [vec![20, 30], vec![30]]);
    }

    #[test]
    fn however_far_back_an_event_belongs_it_comes_to_its_place() {
        let mut order = Order::default();
        let many = 3 * NEAR as u64;
        let swapped = (1..=many).map(|time| if time % 7 == 0 { time - 3 } else { time });
        // The last come after all that is later than they.
        for time in swapped.chain([2 * NEAR as u64, 1, many]) {
            order.push(at(time, 0));
        }
        let times = released(&mut order, u64::MAX);
        assert_eq!(times.len(), many as usize + 3);
        assert!(times.is_sorted());
    }

    #[test]
    fn equal_times_keep_the_order_of_arrival() {
        let mut order = Order::default();
        for cpu in [2, 0, 1] {
            order.push(at(10, cpu));
        }
        assert_eq!(released(&mut order, 10), [(10, 2), (10, 0), (10, 1)]);
    }

    #[test]
    fn nothing_is_released_early() {
        let mut order = Order::default();
        order.push(at(10, 0));
        assert_eq!(released(&mut order, 9), []);
    }

    #[test]
    fn a_late_event_is_counted_and_said_to_be_late() {
        let mut order = Order::default();
        order.push(at(10, 0));
        released(&mut order, 10);
        order.push(at(5, 1));
        order.push(at(12, 1));
        let mut late = vec![];
        order.release(12);
        while let Some((event, _, is_late)) = order.next() {
            late.push((event.mono_ns, is_late));
        }
        assert_eq!(late, [(5, true), (12, false)]);
        assert_eq!(order.late(), 1);
    }
}
