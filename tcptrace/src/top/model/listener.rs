//! The state of one listening address: its queue, and counters of the last seconds.

use std::collections::VecDeque;

use hdrhistogram::Histogram;
use smallvec::SmallVec;

use super::late::{Cause, Causes};
use super::{Depth, Owner, Row, SPARK_S, Visibility};
use crate::fields::Backlog;

const SECOND_NS: u64 = 1_000_000_000;

/// One listening address. Several sockets may share it (SO_REUSEPORT). A connection does not show
/// in which of their queues it waits.
#[derive(Default)]
pub(super) struct Listener {
    /// `conn` of the open sockets.
    sockets: SmallVec<[u64; 1]>,
    /// All listening sockets at this address have closed.
    pub closed: bool,
    pub owner: Option<Owner>,
    pub acceptor: Option<Owner>,
    pub backlog: Backlog,
    pub half_open: u64,
    /// Connections that are ESTABLISHED without a seen accept().
    waiting: u64,
    /// Length of all queues, based on the kernel's own numbers.
    queued: Option<u64>,
    /// Events were lost after the kernel last reported the queue's length.
    doubtful: bool,
    pub connections: u64,
    pub accepted: u64,
    pub never_accepted: u64,
    pub failed_accepts: u64,
    pub overflows: u64,
    /// The seconds of the window that had events, oldest first.
    slots: VecDeque<Slot>,
    /// Time of the last event.
    pub last_ns: u64,
}

/// Counters of one second.
#[derive(Default)]
struct Slot {
    second: u64,
    connections: u64,
    accepted: u64,
    longest_ns: Option<u64>,
    /// Waits in the accept queue. Dropped when the second leaves the window.
    waits: Option<Histogram<u32>>,
    late: Causes,
}

impl Listener {
    pub fn has_socket(&self, conn: u64) -> bool {
        self.sockets.contains(&conn)
    }

    /// Adds a listening socket with this number of queued connections.
    pub fn open(&mut self, conn: u64, queued: u64) {
        if self.has_socket(conn) {
            return;
        }
        self.queued = match self.sockets.is_empty() {
            true => Some(queued),
            false => self.queued.map(|before| before.saturating_add(queued)),
        };
        self.add_socket(conn);
    }

    /// Adds a listening socket whose queue length is unknown.
    pub fn add_socket(&mut self, conn: u64) {
        if !self.has_socket(conn) {
            self.sockets.push(conn);
        }
        self.closed = false;
    }

    pub fn close(&mut self, conn: u64) {
        self.sockets.retain(|it| *it != conn);
        if self.sockets.is_empty() {
            self.closed = true;
            self.queued = Some(0);
        }
    }

    pub fn established(&mut self, mono_ns: u64, window_s: u64) {
        self.waiting += 1;
        self.queued = self.queued.map(|n| n.saturating_add(1));
        self.connections += 1;
        self.slot(mono_ns, window_s).connections += 1;
    }

    /// Counts an accept() that returned a connection after `wait_ns`. `left` connections remain in
    /// the queue.
    pub fn accept(&mut self, mono_ns: u64, window_s: u64, wait_ns: Option<u64>, left: u64) {
        self.set_reported_length(left);
        if self.sockets.len() > 1 {
            self.queued = self.queued.map(|n| n.saturating_sub(1));
        }
        self.accepted += 1;
        let slot = self.slot(mono_ns, window_s);
        slot.accepted += 1;
        if let Some(ns) = wait_ns {
            slot.longest_ns = slot.longest_ns.max(Some(ns));
            slot.waits
                .get_or_insert_with(new_histogram)
                .record(ns)
                .expect("a histogram that resizes takes every value");
        }
    }

    /// Counts the wait of a late connection.
    pub fn late(&mut self, mono_ns: u64, window_s: u64, cause: Cause, wait_ns: u64) {
        self.slot(mono_ns, window_s).late.add(cause, wait_ns);
    }

    /// Sets the queue length that the kernel reported with an event. Ignored if several sockets
    /// share the address, because the length is that of one queue.
    pub fn set_reported_length(&mut self, queued: u64) {
        if self.sockets.len() <= 1 {
            self.queued = Some(queued);
            self.doubtful = false;
        }
    }

    /// Removes one waiting connection.
    pub fn leave(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// Removes one waiting connection that ended without an accept() being seen.
    pub fn vanish(&mut self) {
        self.leave();
        self.queued = self.queued.map(|n| n.saturating_sub(1));
    }

    pub fn lost_events(&mut self) {
        self.doubtful = true;
    }

    /// Returns true if the kernel has reported an empty queue and no event was lost since.
    pub fn is_known_empty(&self) -> bool {
        self.queued == Some(0) && !self.doubtful
    }

    /// Returns the number of queued connections whose arrival the trace did not see.
    pub fn unnamed(&self) -> u64 {
        self.queued.unwrap_or(0).saturating_sub(self.waiting)
    }

    fn depth(&self, visible: Visibility) -> Depth {
        match self.queued {
            Some(n) if visible.accepts && !self.doubtful => Depth::Exact(n),
            Some(n) => Depth::Doubtful(n),
            None if visible.accepts && !self.doubtful => Depth::AtLeast(self.waiting),
            None => Depth::Doubtful(self.waiting),
        }
    }

    /// Returns the counters for a time. A late line counts in the latest second.
    fn slot(&mut self, mono_ns: u64, window_s: u64) -> &mut Slot {
        let second = mono_ns / SECOND_NS;
        if self.slots.back().is_none_or(|last| last.second < second) {
            self.forget(second, window_s);
            self.slots.push_back(Slot {
                second,
                ..Slot::default()
            });
        }
        self.slots.back_mut().expect("a slot was just pushed")
    }

    fn forget(&mut self, now_s: u64, window_s: u64) {
        let keep_s = window_s.max(SPARK_S);
        while (self.slots.front()).is_some_and(|slot| slot.second + keep_s < now_s) {
            self.slots.pop_front();
        }
        let old = self.slots.iter_mut();
        old.take_while(|slot| slot.second + window_s < now_s)
            .for_each(|slot| slot.waits = None);
    }

    /// Returns the row for the view. The window covers the second of `now_ns` and the `window_s`
    /// seconds before it, but starts no earlier than the trace (`began_ns`).
    pub fn row(
        &mut self,
        of: Row,
        visible: Visibility,
        now_ns: u64,
        began_ns: u64,
        window_s: u64,
    ) -> Row {
        let now_s = now_ns / SECOND_NS;
        self.forget(now_s, window_s);
        let first_s = now_s.saturating_sub(window_s);
        let since_ns = began_ns.max(first_s * SECOND_NS);
        let span = now_ns.saturating_sub(since_ns) as f64 / SECOND_NS as f64;
        let slots = || self.slots.iter().filter(|slot| slot.second >= first_s);
        let per_second = |n: u64| if span > 0.0 { n as f64 / span } else { 0.0 };

        let mut waits: Option<Histogram<u32>> = None;
        for slot in slots().filter_map(|slot| slot.waits.as_ref()) {
            waits
                .get_or_insert_with(new_histogram)
                .add(slot)
                .expect("a histogram that resizes accepts every other");
        }
        let max_ns = slots().filter_map(|slot| slot.longest_ns).max();
        // `value_at_quantile` returns a bucket's upper bound, which may exceed the maximum.
        let quantile = |share| Some(waits.as_ref()?.value_at_quantile(share).min(max_ns?));

        let mut late = Causes::default();
        slots().for_each(|slot| late.add_all(&slot.late));

        let mut longest = vec![None; SPARK_S as usize];
        for slot in &self.slots {
            // The last bar is the current, incomplete second.
            if let Some(back) = now_s.checked_sub(slot.second).filter(|it| *it < SPARK_S) {
                longest[(SPARK_S - 1 - back) as usize] = slot.longest_ns;
            }
        }
        Row {
            sockets: self.sockets.len(),
            closed: self.closed,
            owner: self.owner,
            acceptor: self.acceptor,
            backlog: self.backlog,
            depth: self.depth(visible),
            half_open: visible.requests.then_some(self.half_open),
            overflows: visible.overflows.then_some(self.overflows),
            connections_per_s: per_second(slots().map(|slot| slot.connections).sum()),
            accepted_per_s: per_second(slots().map(|slot| slot.accepted).sum()),
            p50_ns: quantile(0.50),
            p99_ns: quantile(0.99),
            max_ns,
            longest_ns: longest,
            connections: self.connections,
            accepted: self.accepted,
            never_accepted: self.never_accepted,
            failed_accepts: self.failed_accepts,
            late: late.sorted(),
            ..of
        }
    }
}

/// Returns a histogram with a precision of 1 %. Every listener has one for each second, so they
/// must be small.
fn new_histogram() -> Histogram<u32> {
    Histogram::new(2).expect("two significant digits are within 0..=5")
}
