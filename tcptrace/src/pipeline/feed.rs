//! The queue of the pipeline, bounded by the size of its messages.
//!
//! A terminal or a disk may be slower than a burst of connections. Records in this queue have left
//! the kernel's ring buffer. A burst that fits in the queue is delayed, not lost.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};

use super::Message;
use super::priority::Priority;

/// Size of the queue in bytes of records.
const ROOM_BYTES: usize = 64 << 20;

/// The pipeline is too far behind if messages take this many bytes, or if one has waited this long.
const BEHIND_BYTES: usize = ROOM_BYTES / 4;
const BEHIND: Duration = Duration::from_millis(250);

/// The sending end. It also adjusts the priority of the receiving thread.
pub struct Feed {
    messages: mpsc::UnboundedSender<Message>,
    shared: Arc<Shared>,
    priority: Priority,
    /// Send times of the messages that are not done, oldest first.
    waiting: VecDeque<Instant>,
    sent: u64,
    /// A caller waits for the end of the pipeline.
    hurry: bool,
}

/// The receiving end.
pub struct Fed {
    messages: mpsc::UnboundedReceiver<Message>,
    shared: Arc<Shared>,
    /// Size of the message received last. It is still being processed, so it still takes room.
    held: Option<usize>,
}

struct Shared {
    room: Semaphore,
    /// Number of messages that the receiver has finished.
    done: AtomicU64,
}

/// Creates both ends. `fed` starts the receiving thread and returns its priority.
pub fn feed(fed: impl FnOnce(Fed) -> io::Result<Priority>) -> io::Result<Feed> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared {
        room: Semaphore::new(ROOM_BYTES),
        done: AtomicU64::new(0),
    });
    let priority = fed(Fed {
        messages: receiver,
        shared: shared.clone(),
        held: None,
    })?;
    Ok(Feed {
        messages: sender,
        shared,
        priority,
        waiting: VecDeque::new(),
        sent: 0,
        hurry: false,
    })
}

impl Feed {
    /// Sends a message. Waits while the queue is full; meanwhile the kernel's ring buffer fills up
    /// and counts what it loses.
    ///
    /// Returns without an error if the pipeline has ended. The caller sees that when it waits for
    /// the outcome.
    pub async fn send(&mut self, message: Message) {
        self.adjust();
        let room = self.shared.room.acquire_many(room_for(&message) as u32);
        if let Ok(room) = room.await {
            room.forget();
            self.waiting.push_back(Instant::now());
            self.sent += 1;
            // A send error means that the receiver has ended.
            let _ = self.messages.send(message);
        }
    }

    /// Announces that a caller waits for the end of the pipeline, so that it gets full priority.
    pub fn hurry(&mut self) {
        self.hurry = true;
        self.adjust();
    }

    fn adjust(&mut self) {
        let behind = self.behind();
        // After the pipeline's thread has ended, the kernel may reuse its thread id.
        if !self.shared.room.is_closed() {
            self.priority.adjust(behind);
        }
    }

    /// Returns how far the pipeline is behind. 1 or more is too far.
    fn behind(&mut self) -> f64 {
        let done = self.shared.done.load(Ordering::Relaxed);
        let waiting = (self.sent - done) as usize;
        self.waiting.drain(..self.waiting.len() - waiting);
        if self.hurry {
            return f64::INFINITY;
        }
        let taken = ROOM_BYTES - self.shared.room.available_permits();
        let by_bytes = taken as f64 / BEHIND_BYTES as f64;
        let waits = self
            .waiting
            .front()
            .map_or(Duration::ZERO, Instant::elapsed);
        by_bytes.max(waits.div_duration_f64(BEHIND))
    }
}

impl Fed {
    /// Marks the last message as done and waits for the next. Returns `None` when the sender is
    /// gone and all messages have been received.
    pub fn receive(&mut self) -> Option<Message> {
        if let Some(held) = self.held.take() {
            self.shared.room.add_permits(held);
            self.shared.done.fetch_add(1, Ordering::Relaxed);
        }
        let message = self.messages.blocking_recv()?;
        self.held = Some(room_for(&message));
        Some(message)
    }
}

/// Returns the room that a message takes in the queue, in bytes. A snapshot of half a million
/// sockets takes the whole queue.
fn room_for(message: &Message) -> usize {
    message.bytes().min(ROOM_BYTES)
}

impl Drop for Fed {
    fn drop(&mut self) {
        // Wakes a sender that waits for room.
        self.shared.room.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Note;
    use crate::trace::Input;

    /// Timeout for events that must happen, however busy the machine is.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// Returns both ends for use in one thread. Priority changes go to a thread that has ended.
    fn both() -> (Feed, Fed) {
        let mut receiving = None;
        let feed = feed(|fed| {
            receiving = Some(fed);
            let thread = std::thread::spawn(Priority::of_this_thread);
            Ok(thread.join().unwrap())
        });
        (feed.unwrap(), receiving.unwrap())
    }

    fn tick() -> Message {
        Message::Input(Input::note(1, Note::Tick))
    }

    /// Returns a message of this size.
    fn drained(bytes: usize) -> Message {
        let record = vec![0; bytes - tick().bytes() - 4];
        Message::Input(Input::Records {
            batch: [&record[..]].into_iter().collect(),
            complete_until_ns: 0,
        })
    }

    /// Returns true if the message was accepted immediately.
    fn taken(feed: &mut Feed, message: Message) -> bool {
        taken_within(Duration::from_millis(20), feed, message)
    }

    fn taken_within(time: Duration, feed: &mut Feed, message: Message) -> bool {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().build().unwrap();
        runtime.block_on(async {
            let sent = feed.send(message);
            tokio::time::timeout(time, sent).await.is_ok()
        })
    }

    #[test]
    fn the_queue_is_bounded_by_the_size_of_its_messages() {
        let (mut feed, mut fed) = both();
        for _ in 0..4 {
            assert!(taken(&mut feed, drained(ROOM_BYTES / 4)));
        }
        assert!(feed.behind() > 1.0);
        assert!(!taken(&mut feed, drained(1000)));

        // A message that is being processed still counts.
        assert!(matches!(
            fed.receive(),
            Some(Message::Input(Input::Records { .. }))
        ));
        assert!(!taken(&mut feed, drained(1000)));
        assert!(matches!(
            fed.receive(),
            Some(Message::Input(Input::Records { .. }))
        ));
        assert!(taken(&mut feed, drained(1000)));
    }

    #[test]
    fn a_message_larger_than_the_queue_takes_all_of_it() {
        let (mut feed, mut fed) = both();
        assert!(taken(&mut feed, drained(1000)));
        assert!(!taken(&mut feed, drained(2 * ROOM_BYTES)));
        let pipeline = std::thread::spawn(move || while fed.receive().is_some() {});
        assert!(taken_within(PATIENCE, &mut feed, drained(2 * ROOM_BYTES)));
        drop(feed);
        pipeline.join().unwrap();
    }

    #[test]
    fn a_message_without_records_takes_room() {
        let (mut feed, _fed) = both();
        assert!(taken(&mut feed, drained(ROOM_BYTES - 1000)));
        let more = (0..100).take_while(|_| taken(&mut feed, tick()));
        assert!(more.count() < 100);
    }

    #[test]
    fn a_pipeline_is_behind_when_messages_take_much_room_or_wait_long() {
        let (mut feed, mut fed) = both();
        assert!(taken(&mut feed, drained(BEHIND_BYTES / 2)));
        assert!((0.5..1.0).contains(&feed.behind()));
        assert!(fed.receive().is_some());
        // A message that is being processed is not done.
        std::thread::sleep(BEHIND);
        assert!(feed.behind() >= 1.0);

        assert!(taken(&mut feed, tick()));
        assert!(fed.receive().is_some());
        assert!(feed.behind() < 0.5);

        drop(fed);
        feed.hurry();
        assert!(feed.behind() > 1.0);
    }

    #[test]
    fn an_idle_pipeline_is_not_behind() {
        let (mut feed, mut fed) = both();
        assert!(taken(&mut feed, tick()));
        let pipeline = std::thread::spawn(move || while fed.receive().is_some() {});
        std::thread::sleep(2 * BEHIND);
        let deadline = Instant::now() + PATIENCE;
        while feed.behind() > 0.0 && Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert_eq!(feed.behind(), 0.0);
        drop(feed);
        pipeline.join().unwrap();
    }

    #[test]
    fn a_sender_does_not_wait_for_a_pipeline_that_has_ended() {
        let (mut feed, fed) = both();
        assert!(taken(&mut feed, drained(ROOM_BYTES)));
        drop(fed);
        assert!(taken(&mut feed, drained(1000)));
    }
}
