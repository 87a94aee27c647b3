//! One listening address: its queue, and what the last seconds brought.

use std::collections::VecDeque;

use hdrhistogram::Histogram;
use smallvec::SmallVec;

use super::{Depth, Owner, Row, SPARK_S, Sight};
use crate::fields::Backlog;

const SECOND_NS: u64 = 1_000_000_000;

/// One address, whose sockets are several where they share it (SO_REUSEPORT): a connection does
/// not say which of them it was queued at.
#[derive(Default)]
pub(super) struct Listener {
    /// `conn` of those that are open.
    sockets: SmallVec<[u64; 1]>,
    /// None of them is left.
    pub closed: bool,
    pub owner: Option<Owner>,
    pub acceptor: Option<Owner>,
    pub backlog: Backlog,
    pub half_open: u64,
    /// ESTABLISHED, and no accept() seen.
    waiting: u64,
    /// What the queues hold, going by the kernel's own numbers.
    queued: Option<u64>,
    /// Events were lost since the kernel last said how many are queued.
    doubtful: bool,
    pub connections: u64,
    pub accepted: u64,
    pub never_accepted: u64,
    pub failed_accepts: u64,
    pub overflows: u64,
    /// Of the last seconds in which there was something, oldest first.
    slots: VecDeque<Slot>,
    /// When something last happened.
    pub last_ns: u64,
}

/// A second.
#[derive(Default)]
struct Slot {
    second: u64,
    connections: u64,
    accepted: u64,
    longest_ns: Option<u64>,
    /// Waits in the accept queue, as long as the second is within the window.
    waits: Option<Histogram<u32>>,
}

impl Listener {
    pub fn has_socket(&self, conn: u64) -> bool {
        self.sockets.contains(&conn)
    }

    /// A socket that listens here, with so many in its queue.
    pub fn open(&mut self, conn: u64, queued: u64) {
        if self.has_socket(conn) {
            return;
        }
        self.queued = match self.sockets.is_empty() {
            true => Some(queued),
            false => self.queued.map(|before| before.saturating_add(queued)),
        };
        self.met(conn);
    }

    /// The same, of which only the number is known.
    pub fn met(&mut self, conn: u64) {
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

    /// An accept() returned a connection that waited so long, and left so many in the queue.
    pub fn accept(&mut self, mono_ns: u64, window_s: u64, wait_ns: Option<u64>, left: u64) {
        self.kernel_says(left);
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

    /// The number of queued connections that an event has with it. With several sockets it is
    /// only one's.
    pub fn kernel_says(&mut self, queued: u64) {
        if self.sockets.len() <= 1 {
            self.queued = Some(queued);
            self.doubtful = false;
        }
    }

    /// One that waited does so no more.
    pub fn leave(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// One that waited is gone, and no accept() was seen to take it.
    pub fn vanish(&mut self) {
        self.leave();
        self.queued = self.queued.map(|n| n.saturating_sub(1));
    }

    pub fn lost_events(&mut self) {
        self.doubtful = true;
    }

    /// Whether all that waits here has been accepted, by the kernel's own word.
    pub fn is_known_empty(&self) -> bool {
        self.queued == Some(0) && !self.doubtful
    }

    /// Those in its queue that the trace did not see come.
    pub fn unnamed(&self) -> u64 {
        self.queued.unwrap_or(0).saturating_sub(self.waiting)
    }

    fn depth(&self, sight: Sight) -> Depth {
        match self.queued {
            Some(n) if sight.accepts && !self.doubtful => Depth::Exact(n),
            Some(n) => Depth::Doubtful(n),
            None if sight.accepts && !self.doubtful => Depth::AtLeast(self.waiting),
            None => Depth::Doubtful(self.waiting),
        }
    }

    /// The slot of a moment. A line that comes late is counted in the last second.
    fn slot(&mut self, mono_ns: u64, window_s: u64) -> &mut Slot {
        let second = mono_ns / SECOND_NS;
        if self.slots.back().is_none_or(|last| last.second < second) {
            self.forget(second, window_s);
            self.slots.push_back(Slot {
                second,
                ..Slot::default()
            });
        }
        self.slots.back_mut().expect("one was just put there")
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

    /// What is shown of it. The window is the second of `now_ns` and the `window_s` before it, as
    /// far as the trace, which began at `began_ns`, was there for them.
    pub fn row(&mut self, of: Row, sight: Sight, now_ns: u64, began_ns: u64, window_s: u64) -> Row {
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
                .expect("a histogram that resizes takes every other");
        }
        let max_ns = slots().filter_map(|slot| slot.longest_ns).max();
        // The histogram answers with the upper end of a bucket, which may lie above every wait.
        let quantile = |share| Some(waits.as_ref()?.value_at_quantile(share).min(max_ns?));

        let mut longest = vec![None; SPARK_S as usize];
        for slot in &self.slots {
            // The last bar is the second that is not over.
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
            depth: self.depth(sight),
            half_open: sight.requests.then_some(self.half_open),
            overflows: sight.overflows.then_some(self.overflows),
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
            ..of
        }
    }
}

/// One percent is finer than anybody reads, and each second of each listener has one.
fn new_histogram() -> Histogram<u32> {
    Histogram::new(2).expect("two significant digits are within 0..=5")
}
