//! Recordings: the inputs of a [`Trace`](crate::trace::Trace) in a file.
//!
//! docs/recording.md describes the format byte by byte. A file is a [`Header`] and blocks. A block has a
//! marker to find it by, a number, and a checksum; it holds items, each of which is an input. So whatever
//! becomes of a part of a file, the rest of it can be read.

mod damage;
mod read;
mod replay;
#[cfg(test)]
mod tests;
mod write;

pub use damage::{Damage, Gap};
pub use read::{Item, Reader, Refused};
pub use replay::Replay;
pub use write::{Block, Header, item};

/// The first bytes of a recording.
pub const MAGIC: [u8; 12] = *b"\x89tcptrace\r\n\x1a";

/// The version of the format that is written, and the only one that is read.
pub const FORMAT: u32 = 1;

/// Begins each block.
pub const MARKER: [u8; 8] = [0xb1, 0x0c, 0x5e, 0x9d, 0x74, 0xc3, 0x2a, 0xf6];

/// Bytes of a block before its contents.
pub const BLOCK_HEAD: usize = 28;

/// Bytes of an item before its payload.
pub const ITEM_HEAD: usize = 8;

/// A block has no longer contents, compressed or not, in bytes.
pub const LONGEST: usize = 16 << 20;

/// Bits of a block's flags.
pub mod flag {
    /// The contents are compressed: one frame of Zstandard (RFC 8878).
    pub const ZSTD: u32 = 1 << 0;
}

/// What an item is.
pub mod kind {
    /// [`Begin`](crate::trace::Begin) as JSON.
    pub const BEGIN: u8 = 1;
    /// `complete_until_ns` (`u64`), and records, each behind its length (`u32`).
    pub const RECORDS: u8 = 2;
    /// [`Small`](crate::trace::Small) as JSON.
    pub const SMALL: u8 = 3;
}
