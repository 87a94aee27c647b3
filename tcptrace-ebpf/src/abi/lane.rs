//! Lanes: a piece of memory for each CPU, shared with the loader, that the programs of the hooks which
//! run most write their records into.
//!
//! A lane is a ring of chunks. Its ends count bytes from the beginning on, and never wrap. A record
//! lies in one chunk, behind its length (a `u64`); a length of 0 says that the rest of the chunk is
//! empty. Only its CPU's programs move `written`, only the loader moves `read`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a chunk that hold records.
pub const CHUNK: usize = 4096;

/// A chunk as it is in the `LANES` map: what follows its last record is a length, too.
pub const CHUNK_WORDS: usize = CHUNK / 8 + 1;

/// Programs that can be on top of each other on one CPU: a process's, and a softirq's on top of it.
/// Each has a chunk behind the lane, where it makes a record for the ring buffer.
pub const LEVELS: u32 = 2;

/// `BPF_F_MMAPABLE`, include/uapi/linux/bpf.h
pub const MMAPABLE: u32 = 1 << 10;

/// Where in a lane is written and read next. The value of the `LANE_ENDS` map: a cache line for each.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct LaneEnds {
    pub written: u64,
    /// How many programs are writing on this CPU, one on top of the other.
    pub level: u64,
    pub reserved: [u64; 6],
    pub read: u64,
    pub reserved_too: [u64; 7],
}

/// How many chunks a CPU has in the `LANES` map: its lane's, and one for each level.
pub const fn chunks(of_the_lane: u32) -> u32 {
    of_the_lane + LEVELS
}
