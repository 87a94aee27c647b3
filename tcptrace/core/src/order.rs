//! Sorting of events by time.
//!
//! The records of one CPU's buffer are in order of time, and the buffers are merged. But a
//! timestamp is taken before its record can be read. An interrupt or a hypervisor can stretch the
//! time in between. The longest delay measured with the ring buffer was 42 µs. Therefore events are
//! held back for a moment, sorted, and released when no earlier event can still arrive.

use crate::event::Event;

/// How long an event is held back, in nanoseconds: a hundred times the longest delay measured.
pub const HOLD_BACK_NS: u64 = 5_000_000;

/// A new event is inserted in order if it belongs within the last `NEAR` held events. Otherwise it
/// is appended, and the held events are sorted on release.
const NEAR: usize = 64;

/// Events that are held back until they are due.
#[derive(Default)]
pub struct Order {
    /// Sorted by time unless `unsorted` is set.
    held: Vec<Event>,
    /// True if the last held events are in the order of arrival.
    unsorted: bool,
    /// Number of events at the front of `held` that were released.
    released: usize,
    /// Number of events at the front of `held` that were released or are due.
    due: usize,
    /// Time of the last released event.
    released_ns: u64,
    late: u64,
}

impl Order {
    /// Takes an event and holds it back.
    pub fn push(&mut self, event: Event) {
        // Nearly every event belongs at the end or a few places before it. Sorting all held events
        // would move each of them several times.
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
            // The sort is stable, so equal times keep the order of arrival.
            self.held.sort_by_key(|event| event.mono_ns);
        }
        self.due = self.held.partition_point(|event| event.mono_ns <= until_ns);
    }

    /// Returns the next event that is due, the known events after it, and whether the event is
    /// late. Equal times keep the order of arrival.
    #[expect(
        clippy::should_implement_trait,
        reason = "the items borrow from self, which Iterator does not allow"
    )]
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

    /// Returns the events that are not released yet.
    pub fn held(&self) -> &[Event] {
        &self.held[self.released..]
    }

    /// Returns the time of the last event that was held or released.
    pub fn latest_ns(&self) -> u64 {
        let held = self.held().iter().map(|event| event.mono_ns);
        held.fold(self.released_ns, u64::max)
    }

    /// Returns the number of events that arrived after a later event had been released.
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
    fn swapped_events_are_released_in_order() {
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
    fn each_event_is_released_with_the_known_later_events() {
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
    fn event_far_out_of_order_is_sorted() {
        let mut order = Order::default();
        let many = 3 * NEAR as u64;
        let swapped = (1..=many).map(|time| if time % 7 == 0 { time - 3 } else { time });
        // The last three events arrive after events with later times.
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
    fn event_after_the_release_time_is_held() {
        let mut order = Order::default();
        order.push(at(10, 0));
        assert_eq!(released(&mut order, 9), []);
    }

    #[test]
    fn event_after_a_later_release_is_counted_and_marked_late() {
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
