//! Drains the ring buffer in batches.

use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use bytes::BytesMut;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::positions::Positions;
use crate::batch::Batch;
use crate::clock::mono_now_ns;

/// How often it is drained when the ring buffer does not fill up sooner.
const DRAIN_EVERY: Duration = Duration::from_millis(10);

/// A batch is no longer than this, so that the reader can start on it, nor than the room that is left
/// beside the last one.
const BATCH_BYTES: usize = 256 << 10;

/// Less room than this is left alone, in bytes. A record takes less than half of it.
const LEAST_ROOM: usize = 4 << 10;

/// How long the trace waits for a CPU that has stopped while it wrote a record.
const STALLED_NS: u64 = 1_000_000_000;

/// The reading end of the ring buffer.
pub struct Ring {
    fd: AsyncFd<RingBuf<MapData>>,
    timer: tokio::time::Interval,
    positions: Positions,
    /// Room for batches. When it is used up and nobody has any of them any more, it is used again.
    room: BytesMut,
    /// A moment, CLOCK_MONOTONIC in nanoseconds, and how much had been reserved at it or just after.
    mark: (u64, u64),
    /// See [`Ring::complete_until`].
    complete_ns: u64,
}

impl Ring {
    /// # Errors
    /// When the descriptor cannot be registered with the reactor, or the positions cannot be mapped.
    pub fn new(ring: RingBuf<MapData>, positions: Positions) -> std::io::Result<Ring> {
        let mut timer = tokio::time::interval(DRAIN_EVERY);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // SAFETY: the ring buffer owns its descriptor and keeps it open as long as it lives,
        // which is longer than its registration.
        let fd = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }
            .map_err(|error| std::io::Error::other(error.to_string()))?;
        Ok(Ring {
            fd,
            timer,
            positions,
            room: BytesMut::new(),
            mark: (0, 0),
            complete_ns: 0,
        })
    }

    /// Waits until it is time to drain: the timer, or the kernel side's wake-up at a quarter full.
    /// Cancel safe.
    pub async fn due(&mut self) {
        tokio::select! {
            _ = self.timer.tick() => {}
            ready = self.fd.readable() => {
                if let Ok(mut ready) = ready {
                    // Everything is drained after this, so the next edge is news.
                    ready.clear_ready();
                }
            }
        }
    }

    /// Marks this moment, for [`Ring::complete_until`].
    pub fn mark(&mut self) {
        let now_ns = mono_now_ns();
        self.mark = (now_ns, self.positions.reserved());
    }

    /// A moment (CLOCK_MONOTONIC, nanoseconds) of which, and of all time before, every record has been
    /// drained: nearly always the last [`mark`](Ring::mark).
    ///
    /// A program reserves room for a record before it takes the record's time. A hypervisor may stop
    /// its CPU before the record can be read, for as long as it likes, and nothing behind that record
    /// can be read meanwhile. So the mark counts only once all that was reserved then has been drained.
    pub fn complete_until(&mut self) -> u64 {
        let (marked_ns, reserved) = self.mark;
        if self.positions.consumed() >= reserved {
            self.complete_ns = marked_ns;
        }
        // Nobody is waited for longer: what comes later is late.
        self.complete_ns = self.complete_ns.max(marked_ns.saturating_sub(STALLED_NS));
        self.complete_ns
    }

    /// Takes what is there, up to one batch, and tells whether that was all; an empty batch when nothing is
    /// there.
    pub fn drain(&mut self) -> (Batch, bool) {
        if self.room.capacity() < LEAST_ROOM {
            self.room.reserve(BATCH_BYTES);
        }
        let most = self.room.capacity() - LEAST_ROOM / 2;
        let ring = self.fd.get_mut();
        let mut is_all = false;
        while self.room.len() < most && !is_all {
            match ring.next() {
                Some(record) => Batch::append(&mut self.room, &record),
                None => is_all = true,
            }
        }
        (Batch::from_bytes(self.room.split().freeze()), is_all)
    }
}
