//! The reader of the ring buffer, which drains it in batches.

use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use bytes::BytesMut;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::positions::Positions;
use crate::batch::Batch;
use crate::clock::mono_now_ns;

/// Maximum time between two drains.
const DRAIN_EVERY: Duration = Duration::from_millis(10);

/// Upper bound on a batch, in bytes, so that the pipeline can start on it early. A batch is also
/// limited by the remaining space of the current buffer.
const BATCH_BYTES: usize = 256 << 10;

/// Minimum space in the buffer for a batch, in bytes. A record takes less than half of it.
const LEAST_ROOM: usize = 4 << 10;

/// How long the trace waits for a CPU that was stopped while it wrote a record, in nanoseconds.
const STALLED_NS: u64 = 1_000_000_000;

/// How long a reservation may take to reach this CPU, in nanoseconds. On the CPU of the program the
/// store may still be buffered while the program reads the clock, on arm64 and on x86-64. It leaves
/// the buffer within a microsecond.
const STORE_NS: u64 = 10_000;

/// The reading end of the ring buffer.
pub struct Ring {
    fd: AsyncFd<RingBuf<MapData>>,
    timer: tokio::time::Interval,
    positions: Positions,
    /// Buffer for batches. It is reused when it is full and none of its batches is in use.
    room: BytesMut,
    /// The time of the last [`Ring::mark`] (CLOCK_MONOTONIC, nanoseconds), and the producer
    /// position at that time or just after it.
    mark: (u64, u64),
    /// The last result of [`Ring::complete_until`].
    complete_ns: u64,
}

impl Ring {
    /// Registers the ring buffer with the reactor.
    ///
    /// # Errors
    /// If the descriptor cannot be registered.
    pub fn new(ring: RingBuf<MapData>, positions: Positions) -> std::io::Result<Ring> {
        let mut timer = tokio::time::interval(DRAIN_EVERY);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // SAFETY: the ring buffer keeps its descriptor open as long as it lives, and it outlives the
        // registration.
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

    /// Waits until it is time to drain: for the timer, or for the kernel's wake-up at a quarter
    /// full. Cancel safe.
    pub async fn due(&mut self) {
        tokio::select! {
            _ = self.timer.tick() => {}
            ready = self.fd.readable() => {
                if let Ok(mut ready) = ready {
                    // The caller drains the whole ring buffer, so only the kernel's next wake-up
                    // matters.
                    ready.clear_ready();
                }
            }
        }
    }

    /// Records the producer position, and the time up to which it has all reservations, for
    /// [`Ring::complete_until`].
    pub fn mark(&mut self) {
        let settled_ns = mono_now_ns().saturating_sub(STORE_NS);
        self.mark = (settled_ns, self.positions.reserved());
    }

    /// Returns a time (CLOCK_MONOTONIC, nanoseconds) up to which all records have been drained. It
    /// is nearly always the last [`mark`](Ring::mark).
    ///
    /// A program reserves space for a record before it reads the clock. A hypervisor may stop its
    /// CPU for any time before the record is committed, and no later record can be read meanwhile.
    /// The mark therefore counts only when everything reserved at that time has been drained.
    pub fn complete_until(&mut self) -> u64 {
        let (marked_ns, reserved) = self.mark;
        if self.positions.consumed() >= reserved {
            self.complete_ns = marked_ns;
        }
        // After this time a stalled CPU is not waited for. Its records then count as late.
        self.complete_ns = self.complete_ns.max(marked_ns.saturating_sub(STALLED_NS));
        self.complete_ns
    }

    /// Returns the available records, up to one batch, and true if the ring buffer is empty.
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
