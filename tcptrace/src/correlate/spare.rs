//! Where connections are kept.
//!
//! A connection is taken out of its map for each of its events, and put back. In a box that moves
//! eight bytes; and the box of one that has ended is the next one's, so that none is allocated
//! while as many begin as end.

use super::connection::Connection;

/// A connection where it stays.
pub(super) type Kept = Box<Connection>;

/// So many are enough for what ends between two drains of the ring buffer.
const MANY: usize = 4096;

/// The boxes of connections that have ended.
#[derive(Default)]
pub(super) struct Spare {
    boxes: Vec<Kept>,
}

impl Spare {
    pub fn keep(&mut self, connection: Connection) -> Kept {
        match self.boxes.pop() {
            Some(mut kept) => {
                *kept = connection;
                kept
            }
            None => Box::new(connection),
        }
    }

    pub fn give_back(&mut self, kept: Kept) {
        if self.boxes.len() < MANY {
            self.boxes.push(kept);
        }
    }
}
