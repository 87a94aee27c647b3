//! Recordings: the inputs of a [`Trace`](crate::trace::Trace) in a file.
//!
//! docs/src/recording-format.md describes the format byte by byte. A file is a [`Header`] followed by blocks.
//! A block has a marker, a number and a checksum, and contains items. Each item is an input. Blocks
//! that are intact can be read even if other parts of the file are damaged.

mod damage;
mod read;
mod replay;
#[cfg(test)]
mod tests;
mod write;

pub use damage::{Damage, Gap};
pub use read::{Item, OpenError, Reader};
pub use replay::Replay;
pub use write::{Block, Header, item};

/// The first bytes of a recording.
pub const MAGIC: [u8; 12] = *b"\x89tcptrace\r\n\x1a";

/// The version of the format that is written. No other version is read.
pub const FORMAT: u32 = 1;

/// The first bytes of each block.
pub const MARKER: [u8; 8] = [0xb1, 0x0c, 0x5e, 0x9d, 0x74, 0xc3, 0x2a, 0xf6];

/// Size of a block's head in bytes.
pub const BLOCK_HEAD: usize = 28;

/// Size of an item's head in bytes.
pub const ITEM_HEAD: usize = 8;

/// Upper bound on the contents of a block in bytes, compressed or not, so that a crafted file
/// cannot make a reader allocate more.
pub const LONGEST: usize = 16 << 20;

/// The bits of a block's flags.
pub mod flag {
    /// The contents are compressed: one frame of Zstandard (RFC 8878).
    pub const ZSTD: u32 = 1 << 0;
}

/// The kinds of items.
pub mod kind {
    /// [`Begin`](crate::trace::Begin) as JSON.
    pub const BEGIN: u8 = 1;
    /// `complete_until_ns` (`u64`), then records, each preceded by its length (`u32`).
    pub const RECORDS: u8 = 2;
    /// [`Small`](crate::trace::Small) as JSON.
    pub const SMALL: u8 = 3;
}
