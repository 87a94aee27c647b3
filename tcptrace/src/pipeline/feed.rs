//! What waits for the pipeline: bounded by its size, not by its number.
//!
//! A terminal or a disk is slower than a storm of connections. Records that wait here are out of the
//! kernel's ring buffer, so a burst that fits is not lost, only told later.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};

use super::Message;

/// How many bytes of records may wait. A batch may take twice its size in memory.
const ROOM_BYTES: usize = 64 << 20;

/// The sending end.
pub struct Feed {
    messages: mpsc::UnboundedSender<Message>,
    room: Arc<Semaphore>,
}

/// The receiving end.
pub struct Fed {
    messages: mpsc::UnboundedReceiver<Message>,
    room: Arc<Semaphore>,
    /// Of the message that was received last, which is still in memory.
    held: usize,
}

pub fn feed() -> (Feed, Fed) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(ROOM_BYTES));
    let feed = Feed {
        messages: sender,
        room: room.clone(),
    };
    let fed = Fed {
        messages: receiver,
        room,
        held: 0,
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
            let _ = self.messages.send(message);
        }
    }
}

impl Fed {
    /// Waits for the next message; `None` when the other end is gone and everything was received.
    pub fn receive(&mut self) -> Option<Message> {
        self.room.add_permits(std::mem::take(&mut self.held));
        let message = self.messages.blocking_recv()?;
        self.held = message.bytes();
        Some(message)
    }

    /// How much of the room is taken, from 0 to 1.
    pub fn fill(&self) -> f64 {
        1.0 - self.room.available_permits() as f64 / ROOM_BYTES as f64
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
        assert_eq!(fed.fill(), 1.0);
        assert!(!taken(&feed, drained(100)));
        // What has no size always has room.
        assert!(taken(&feed, Message::Missed));

        // While the pipeline works at it, it is still there.
        assert!(matches!(fed.receive(), Some(Message::Drained { .. })));
        assert!(!taken(&feed, drained(100)));
        assert!(matches!(fed.receive(), Some(Message::Drained { .. })));
        assert_eq!(fed.fill(), 0.75);
        assert!(taken(&feed, drained(100)));
    }

    #[test]
    fn a_pipeline_that_is_gone_holds_nobody_up() {
        let (feed, fed) = feed();
        assert!(taken(&feed, drained(ROOM_BYTES)));
        drop(fed);
        assert!(taken(&feed, drained(100)));
    }
}
