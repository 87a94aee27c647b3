//! The per-CPU buffers: memory of an array map that is mapped into the loader, one buffer for each CPU.
//!
//! A buffer is a ring of chunks. Positions in it count bytes from its beginning on, and never wrap. A
//! record lies in one chunk, behind its length (a `u64`); both together are a *frame*. A frame begins only
//! where the longest one has room, else at the next chunk. So the end of a frame tells where the next one
//! begins, and nothing is written but frames. Only the CPU's programs move `written`, only the loader
//! moves `read`; each reads the other's position, and both compute with [`Ring`].

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a chunk: the value of the `LANES` map.
pub const CHUNK: usize = 4096;

/// No frame is longer than this.
pub const LONGEST: usize = 256;

/// Bytes of the length in front of a record.
pub const LEN: usize = size_of::<u64>();

/// The layout of a ring of chunks, and all arithmetic with positions in it.
#[derive(Clone, Copy, Debug)]
pub struct Ring {
    /// Bytes of a chunk.
    pub chunk: u64,
    /// Bytes of the longest frame, at most a chunk.
    pub longest: u64,
    /// Chunks of the ring: 0, or a power of two.
    pub chunks: u64,
}

impl Ring {
    /// A CPU's ring of so many chunks.
    #[inline(always)]
    pub const fn of(chunks: u32) -> Ring {
        Ring {
            chunk: CHUNK as u64,
            longest: LONGEST as u64,
            chunks: chunks as u64,
        }
    }

    /// Where a frame begins that follows one that begins at `at` and has `frame` bytes.
    #[inline(always)]
    pub const fn next(&self, at: u64, frame: u64) -> u64 {
        let end = at + frame;
        let rest = self.chunk - end % self.chunk;
        if rest < self.longest { end + rest } else { end }
    }

    /// Whether a frame that begins at `written` overwrites nothing that begins at `read` or later.
    #[inline(always)]
    pub const fn has_room(&self, written: u64, read: u64, frame: u64) -> bool {
        written + frame - read <= self.chunks * self.chunk
    }

    /// The number of the chunk that holds a position.
    #[inline(always)]
    pub const fn chunk_of(&self, at: u64) -> u32 {
        (at / self.chunk) as u32 & (self.chunks as u32).wrapping_sub(1)
    }

    /// The offset of a position in its chunk.
    #[inline(always)]
    pub const fn offset_of(&self, at: u64) -> u64 {
        at % self.chunk
    }
}

/// Programs that can be on top of each other on one CPU: a process's, and a softirq's on top of it.
/// Each has a chunk behind the ring, where it makes a record for the ring buffer.
pub const LEVELS: u32 = 2;

/// `BPF_F_MMAPABLE`, include/uapi/linux/bpf.h
pub const MMAPABLE: u32 = 1 << 10;

/// Where a CPU's programs write next, and where the loader reads next. The value of the `LANE_ENDS` map:
/// a cache line for each side.
///
/// A program raises `level` or `busy` before it takes its record's time, and lowers it when the record
/// can be read. So a loader that has seen both at 0 once after a moment finds every record of that moment
/// and before in the buffers.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct LaneEnds {
    pub written: u64,
    /// How many programs that cannot be preempted are writing on this CPU, one on top of the other.
    pub level: u64,
    /// How many programs that can be preempted are writing on this CPU.
    pub busy: u64,
    pub reserved: [u64; 5],
    pub read: u64,
    pub reserved_too: [u64; 7],
}

/// How many chunks a CPU has in the `LANES` map: its ring's, and one for each level.
pub const fn chunks(of_the_ring: u32) -> u32 {
    of_the_ring + LEVELS
}
