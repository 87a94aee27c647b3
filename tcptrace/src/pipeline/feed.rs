//! What waits for the pipeline: bounded by its size, not by its number.
//!
//! A terminal or a disk is slower than a storm of connections. Records that wait here are out of the
//! kernel's ring buffer, so a burst that fits is not lost, only told later.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};

use super::Message;

/// How many bytes of records may wait. A batch may take twice its size in memory.
const ROOM_BYTES: usize = 64 << 20;

/// So much of the room may be taken, and a message may have waited so long, before the pipeline is
/// too far behind.
const BEHIND_BYTES: usize = ROOM_BYTES / 4;
const BEHIND: Duration = Duration::from_secs(1);

/// The sending end.
pub struct Feed {
    messages: mpsc::UnboundedSender<(Instant, Message)>,
    room: Arc<Semaphore>,
    hurry: Arc<AtomicBool>,
}

/// The receiving end.
pub struct Fed {
    messages: mpsc::UnboundedReceiver<(Instant, Message)>,
    room: Arc<Semaphore>,
    hurry: Arc<AtomicBool>,
    /// Of the message that was received last, which is still in memory.
    held: usize,
    /// How long that one had waited.
    waited: Duration,
}

pub fn feed() -> (Feed, Fed) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(ROOM_BYTES));
    let hurry = Arc::<AtomicBool>::default();
    let feed = Feed {
        messages: sender,
        room: room.clone(),
        hurry: hurry.clone(),
    };
    let fed = Fed {
        messages: receiver,
        room,
        hurry,
        held: 0,
        waited: Duration::ZERO,
    };
    (feed, fed)
}

impl Feed {
    /// Waits for room, if need be; the kernel's ring buffer then fills up and counts what it loses.
    /// A pipeline that is gone is noticed where its outcome is awaited.
    pub async fn send(&self, message: Message) {
        // No batch is larger than a few hundred KiB.
        if let Ok(room) = self.room.acquire_many(message.bytes() as u32).await {
            room.forget();
            let _ = self.messages.send((Instant::now(), message));
        }
    }

    /// From now on somebody waits for the pipeline's end.
    pub fn hurry(&self) {
        self.hurry.store(true, Ordering::Relaxed);
    }
}

impl Fed {
    /// Waits for the next message; `None` when the other end is gone and everything was received.
    pub fn receive(&mut self) -> Option<Message> {
        self.room.add_permits(std::mem::take(&mut self.held));
        let (sent, message) = self.messages.blocking_recv()?;
        self.held = message.bytes();
        self.waited = sent.elapsed();
        Some(message)
    }

    /// How far the pipeline is behind; from 1 on it is too far.
    pub fn behind(&self) -> f64 {
        if self.hurry.load(Ordering::Relaxed) {
            return f64::INFINITY;
        }
        let taken = ROOM_BYTES - self.room.available_permits();
        let by_bytes = taken as f64 / BEHIND_BYTES as f64;
        by_bytes.max(self.waited.as_secs_f64() / BEHIND.as_secs_f64())
    }
}

impl Drop for Fed {
    fn drop(&mut self) {
        // Nobody waits for room that will never be.
        self.room.close();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn drained(bytes: usize) -> Message {
        let record = vec![0; bytes - 4];
        Message::Drained {
            batch: [&record[..]].into_iter().collect(),
            complete_until_ns: 0,
        }
    }

    /// Whether it was taken at once.
    fn taken(feed: &Feed, message: Message) -> bool {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().build().unwrap();
        runtime.block_on(async {
            let sent = feed.send(message);
            let sent = tokio::time::timeout(Duration::from_millis(20), sent);
            sent.await.is_ok()
        })
    }

    #[test]
    fn what_waits_is_bounded_by_its_size() {
        let (feed, mut fed) = feed();
        for _ in 0..4 {
            assert!(taken(&feed, drained(ROOM_BYTES / 4)));
        }
        assert!(fed.behind() > 1.0);
        assert!(!taken(&feed, drained(100)));
        // What has no size always has room.
        assert!(taken(&feed, Message::Missed));

        // While the pipeline works at it, it is still there.
        assert!(matches!(fed.receive(), Some(Message::Drained { .. })));
        assert!(!taken(&feed, drained(100)));
        assert!(matches!(fed.receive(), Some(Message::Drained { .. })));
        assert!(taken(&feed, drained(100)));
    }

    #[test]
    fn behind_is_who_has_much_to_do_or_is_waited_for() {
        let (feed, mut fed) = feed();
        assert!(taken(&feed, drained(BEHIND_BYTES / 2)));
        assert_eq!(fed.behind(), 0.5);
        assert!(taken(&feed, Message::Missed));
        assert!(fed.receive().is_some() && fed.receive().is_some());
        assert!(fed.behind() < 0.5);
        std::thread::sleep(Duration::from_millis(100));
        assert!(fed.behind() < 0.5, "waiting for more is no delay");

        assert!(taken(&feed, Message::Missed));
        std::thread::sleep(BEHIND);
        assert!(fed.receive().is_some());
        assert!(fed.behind() >= 1.0);

        feed.hurry();
        assert!(fed.behind() > 1.0);
    }

    #[test]
    fn a_pipeline_that_is_gone_holds_nobody_up() {
        let (feed, fed) = feed();
        assert!(taken(&feed, drained(ROOM_BYTES)));
        drop(fed);
        assert!(taken(&feed, drained(100)));
    }
}
