//! What waits for the pipeline: bounded by its size, not by its number.
//!
//! A terminal or a disk is slower than a storm of connections. Records that wait here are out of the
//! kernel's ring buffer, so a burst that fits is not lost, only told later.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};

use super::Message;
use super::priority::Priority;

/// How many bytes of records may wait. A batch may take twice its size in memory.
const ROOM_BYTES: usize = 64 << 20;

/// So much of the room may be taken, and a message may wait so long, before the pipeline is too far
/// behind.
const BEHIND_BYTES: usize = ROOM_BYTES / 4;
const BEHIND: Duration = Duration::from_millis(250);

/// The sending end, which also sees to it that the receiving one gets on.
pub struct Feed {
    messages: mpsc::UnboundedSender<Message>,
    shared: Arc<Shared>,
    priority: Priority,
    /// When those messages were sent that are not done, the first one first.
    waiting: VecDeque<Instant>,
    sent: u64,
    /// Somebody waits for the pipeline's end.
    hurry: bool,
}

/// The receiving end.
pub struct Fed {
    messages: mpsc::UnboundedReceiver<Message>,
    shared: Arc<Shared>,
    /// The room of the message that was received last, which is still in memory.
    held: Option<usize>,
}

struct Shared {
    room: Semaphore,
    /// Messages that were received and are done.
    done: AtomicU64,
}

/// Both ends; `fed` starts the thread that receives, and gives its priority.
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
    /// Waits for room, if need be; the kernel's ring buffer then fills up and counts what it loses.
    /// A pipeline that is gone is noticed where its outcome is awaited.
    pub async fn send(&mut self, message: Message) {
        self.adjust();
        let room = self.shared.room.acquire_many(room_for(&message) as u32);
        if let Ok(room) = room.await {
            room.forget();
            self.waiting.push_back(Instant::now());
            self.sent += 1;
            // An error: it is gone.
            let _ = self.messages.send(message);
        }
    }

    /// From now on somebody waits for the pipeline's end.
    pub fn hurry(&mut self) {
        self.hurry = true;
        self.adjust();
    }

    fn adjust(&mut self) {
        let behind = self.behind();
        // The number of a thread that is gone may be another's.
        if !self.shared.room.is_closed() {
            self.priority.adjust(behind);
        }
    }

    /// How far the pipeline is behind; from 1 on it is too far.
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
    /// Waits for the next message, the last one being done; `None` when the other end is gone and
    /// everything was received.
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

/// How much room a message takes. A look through half a million sockets takes all of it.
fn room_for(message: &Message) -> usize {
    message.bytes().min(ROOM_BYTES)
}

impl Drop for Fed {
    fn drop(&mut self) {
        // Nobody waits for room that will never be.
        self.shared.room.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Note;
    use crate::trace::Input;

    /// For what must happen, however busy the machine is.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// Both ends in one thread; the one whose priority is changed has ended.
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

    /// A message that takes so many bytes.
    fn drained(bytes: usize) -> Message {
        let record = vec![0; bytes - tick().bytes() - 4];
        Message::Input(Input::Records {
            batch: [&record[..]].into_iter().collect(),
            complete_until_ns: 0,
        })
    }

    /// Whether it was taken at once.
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
    fn what_waits_is_bounded_by_its_size() {
        let (mut feed, mut fed) = both();
        for _ in 0..4 {
            assert!(taken(&mut feed, drained(ROOM_BYTES / 4)));
        }
        assert!(feed.behind() > 1.0);
        assert!(!taken(&mut feed, drained(1000)));

        // While the pipeline works at it, it is still there.
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
    fn what_is_larger_than_the_room_has_it_alone() {
        let (mut feed, mut fed) = both();
        assert!(taken(&mut feed, drained(1000)));
        assert!(!taken(&mut feed, drained(2 * ROOM_BYTES)));
        let pipeline = std::thread::spawn(move || while fed.receive().is_some() {});
        assert!(taken_within(PATIENCE, &mut feed, drained(2 * ROOM_BYTES)));
        drop(feed);
        pipeline.join().unwrap();
    }

    #[test]
    fn what_has_no_records_takes_room_too() {
        let (mut feed, _fed) = both();
        assert!(taken(&mut feed, drained(ROOM_BYTES - 1000)));
        let more = (0..100).take_while(|_| taken(&mut feed, tick()));
        assert!(more.count() < 100);
    }

    #[test]
    fn behind_is_who_has_much_to_do_or_is_waited_for() {
        let (mut feed, mut fed) = both();
        assert!(taken(&mut feed, drained(BEHIND_BYTES / 2)));
        assert!((0.5..1.0).contains(&feed.behind()));
        assert!(fed.receive().is_some());
        // What is being worked at is not done.
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
    fn waiting_for_more_is_no_delay() {
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
    fn a_pipeline_that_is_gone_holds_nobody_up() {
        let (mut feed, fed) = both();
        assert!(taken(&mut feed, drained(ROOM_BYTES)));
        drop(fed);
        assert!(taken(&mut feed, drained(1000)));
    }
}
