//! A bounded queue between threads. Adding to it never waits for a collector.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// An entry of a queue.
#[derive(Debug)]
pub struct Entry<T> {
    pub item: T,
    /// Number of data points or spans, for counters.
    pub units: u64,
    /// The room that the entry takes in the queue.
    pub size: u64,
}

/// The entry that has to go when a queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The newest entry is always added, even beside a batch that is being sent.
    DropOldest,
    DropNewest,
}

/// How [`Queue::take`] forms a batch.
#[derive(Clone, Copy, Debug)]
pub struct Batching {
    /// Upper bound on the units of a batch of several entries.
    pub units: u64,
    /// How long the first entry waits for others.
    pub delay: Duration,
}

pub struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    when_full: WhenFull,
    /// Upper bound on the sum of sizes, those of the batch that is being sent included.
    capacity: u64,
}

struct State<T> {
    entries: VecDeque<(Entry<T>, Instant)>,
    /// Sum of sizes and of units, those of the batch that is being sent included.
    size: u64,
    units: u64,
    /// The time at which the queue's reader gives up. `None` while the queue is open.
    deadline: Option<Instant>,
}

impl<T> Queue<T> {
    pub fn new(capacity: u64, when_full: WhenFull) -> Queue<T> {
        Queue {
            state: Mutex::new(State {
                entries: VecDeque::new(),
                size: 0,
                units: 0,
                deadline: None,
            }),
            changed: Condvar::new(),
            when_full,
            capacity,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an entry. Returns the number of units that were dropped for want of room. An entry that is
    /// larger than the queue fits into an empty one.
    pub fn push(&self, entry: Entry<T>) -> u64 {
        let mut state = self.lock();
        let is_over = |state: &State<T>| state.size + entry.size > self.capacity;
        let mut dropped = 0;
        match self.when_full {
            WhenFull::DropNewest if state.size > 0 && is_over(&state) => return entry.units,
            WhenFull::DropNewest => {}
            WhenFull::DropOldest => {
                while is_over(&state)
                    && let Some((oldest, _)) = state.entries.pop_front()
                {
                    dropped += oldest.units;
                    state.release(oldest.size, oldest.units);
                }
            }
        }
        state.size += entry.size;
        state.units += entry.units;
        state.entries.push_back((entry, Instant::now()));
        drop(state);
        self.changed.notify_all();
        dropped
    }

    /// Waits for entries, and takes the next batch. Its room stays taken until [`Queue::done`].
    /// Returns `None` if the queue is closed and empty, or past its deadline.
    pub fn take(&self, batching: Batching) -> Option<Vec<Entry<T>>> {
        let mut state = self.lock();
        loop {
            if state.deadline.is_some_and(|it| it <= Instant::now()) {
                return None;
            }
            let waiting: u64 = state.entries.iter().map(|(entry, _)| entry.units).sum();
            match state.entries.front() {
                None if state.deadline.is_some() => return None,
                None => {
                    let woken = self.changed.wait(state);
                    state = woken.unwrap_or_else(PoisonError::into_inner);
                }
                Some((_, since)) => {
                    let left = batching.delay.saturating_sub(since.elapsed());
                    if waiting >= batching.units || left.is_zero() || state.deadline.is_some() {
                        return Some(state.batch(batching.units));
                    }
                    let woken = self.changed.wait_timeout(state, left);
                    state = woken.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    /// Gives the room of a batch free.
    pub fn done(&self, size: u64, units: u64) {
        self.lock().release(size, units);
    }

    /// Waits for a time, but not beyond the deadline. Returns early if the queue is closed meanwhile.
    pub fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut state = self.lock();
        let was_open = state.deadline.is_none();
        loop {
            let until = until.min(state.deadline.unwrap_or(until));
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || was_open && state.deadline.is_some() {
                return;
            }
            let woken = self.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Closes the queue: the reader sends the rest without delay, and gives up at the deadline.
    pub fn close(&self, deadline: Instant) {
        self.lock().deadline = Some(deadline);
        self.changed.notify_all();
    }

    /// Returns the time that is left for the reader; `None` while the queue is open.
    pub fn left(&self) -> Option<Duration> {
        let deadline = self.lock().deadline?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    /// Returns the number of units in the queue, those of the batch that is being sent included.
    pub fn units(&self) -> u64 {
        self.lock().units
    }
}

impl<T> State<T> {
    fn release(&mut self, size: u64, units: u64) {
        self.size -= size;
        self.units -= units;
    }

    /// Takes entries with at most this many units, and at least one entry.
    fn batch(&mut self, units: u64) -> Vec<Entry<T>> {
        let mut batch = vec![];
        let mut taken = 0;
        while let Some((entry, _)) = self.entries.front() {
            taken += entry.units;
            if taken > units && !batch.is_empty() {
                break;
            }
            batch.extend(self.entries.pop_front().map(|(entry, _)| entry));
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_ONCE: Batching = Batching {
        units: 4,
        delay: Duration::ZERO,
    };

    fn entry(item: char, units: u64) -> Entry<char> {
        Entry {
            item,
            units,
            size: units,
        }
    }

    fn items(batch: Option<Vec<Entry<char>>>) -> String {
        batch.unwrap_or_default().iter().map(|it| it.item).collect()
    }

    #[test]
    fn a_full_queue_drops_the_newest_entry_and_counts_its_units() {
        let queue = Queue::new(5, WhenFull::DropNewest);
        assert_eq!(queue.push(entry('a', 2)), 0);
        assert_eq!(queue.push(entry('b', 3)), 0);
        assert_eq!(queue.push(entry('c', 1)), 1);
        assert_eq!(items(queue.take(AT_ONCE)), "a");
        // The batch that is being sent takes room.
        assert_eq!(queue.push(entry('d', 2)), 2);
        assert_eq!(queue.units(), 5);
        queue.done(2, 2);
        assert_eq!(queue.push(entry('e', 2)), 0);
        assert_eq!(items(queue.take(AT_ONCE)), "b");
        assert_eq!(items(queue.take(AT_ONCE)), "e");
    }

    #[test]
    fn a_full_queue_drops_the_oldest_waiting_entries_if_newer_ones_replace_them() {
        let queue = Queue::new(5, WhenFull::DropOldest);
        assert_eq!(queue.push(entry('a', 2)), 0);
        assert_eq!(items(queue.take(AT_ONCE)), "a");
        assert_eq!(queue.push(entry('b', 1)), 0);
        assert_eq!(queue.push(entry('c', 2)), 0);
        assert_eq!(queue.push(entry('d', 3)), 3);
        // The batch that is being sent cannot make room, and the newest entry is added nevertheless.
        assert_eq!(queue.push(entry('e', 9)), 3);
        assert_eq!(queue.units(), 2 + 9);
        queue.done(2, 2);
        assert_eq!(items(queue.take(AT_ONCE)), "e");
    }

    #[test]
    fn a_batch_has_at_most_the_given_units_unless_one_entry_has_more() {
        let queue = Queue::new(100, WhenFull::DropNewest);
        for (item, units) in [('a', 1), ('b', 3), ('c', 1), ('d', 9), ('e', 1)] {
            queue.push(entry(item, units));
        }
        let batches = [(); 4].map(|()| items(queue.take(AT_ONCE)));
        assert_eq!(batches, ["ab", "c", "d", "e"]);
    }

    #[test]
    fn the_first_entry_of_a_batch_waits_for_others_but_not_in_a_closed_queue() {
        let queue = Queue::new(100, WhenFull::DropNewest);
        let slowly = Batching {
            units: 4,
            delay: Duration::from_millis(50),
        };
        let begin = Instant::now();
        queue.push(entry('a', 1));
        assert_eq!(items(queue.take(slowly)), "a");
        assert!(begin.elapsed() >= Duration::from_millis(50));

        let forever = Batching {
            units: 4,
            delay: Duration::from_secs(3600),
        };
        queue.push(entry('b', 4));
        assert_eq!(items(queue.take(forever)), "b");
        queue.push(entry('c', 1));
        queue.close(Instant::now() + Duration::from_secs(3600));
        assert_eq!(items(queue.take(forever)), "c");
        assert!(queue.take(forever).is_none());
    }

    #[test]
    fn closing_ends_a_pause_and_the_deadline_ends_the_reading() {
        let queue = Queue::new(100, WhenFull::DropNewest);
        queue.push(entry('a', 1));
        std::thread::scope(|scope| {
            scope.spawn(|| queue.pause(Duration::from_secs(3600)));
            assert_eq!(queue.left(), None);
            queue.close(Instant::now());
        });
        assert_eq!(queue.left(), Some(Duration::ZERO));
        assert!(queue.take(AT_ONCE).is_none());
        assert_eq!(queue.units(), 1);
    }
}
