//! Writing of headers, blocks and items of a recording.

use crc32fast::Hasher;
use serde::Serialize;

use super::{BLOCK_HEAD, FORMAT, ITEM_HEAD, MAGIC, MARKER, flag, kind};
use crate::trace::{Begin, Input};

/// The header of a file. Its layout is the same in every version of the format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub format: u32,
    /// Version of the tcptrace that writes; the file stores at most 12 bytes of it.
    pub version: String,
}

impl Header {
    /// Size of a header in bytes.
    pub const LEN: usize = 32;

    /// Makes the header of a file that this version of tcptrace writes.
    pub fn new(version: &str) -> Header {
        Header {
            format: FORMAT,
            version: version.to_owned(),
        }
    }

    /// Returns the bytes of the header, with its checksum.
    pub fn to_bytes(&self) -> [u8; Header::LEN] {
        let mut bytes = [0; Header::LEN];
        bytes[..12].copy_from_slice(&MAGIC);
        bytes[12..16].copy_from_slice(&self.format.to_le_bytes());
        let version = self.version.as_bytes();
        let len = version.len().min(12);
        bytes[16..16 + len].copy_from_slice(&version[..len]);
        let checksum = crc32fast::hash(&bytes[..28]);
        bytes[28..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads a header; `None` if the bytes are not a header or are damaged.
    pub fn from_bytes(bytes: &[u8; Header::LEN]) -> Option<Header> {
        let number = |at: usize| bytes[at..].first_chunk().map(|it| u32::from_le_bytes(*it));
        if !bytes.starts_with(&MAGIC) || number(28)? != crc32fast::hash(&bytes[..28]) {
            return None;
        }
        let version = bytes[16..28].split(|&byte| byte == 0).next()?;
        Some(Header {
            format: number(12)?,
            version: String::from_utf8_lossy(version).into_owned(),
        })
    }
}

/// The writer of block heads, which numbers the blocks.
#[derive(Debug, Default)]
pub struct Block {
    number: u32,
}

impl Block {
    /// Returns the head of the next block, which is written before its contents. `len` is the length
    /// of the uncompressed contents; `None` if `contents` is not compressed.
    pub fn head(&mut self, contents: &[u8], len: Option<usize>) -> [u8; BLOCK_HEAD] {
        let flags = if len.is_some() { flag::ZSTD } else { 0 };
        let len = len.unwrap_or(contents.len());
        let mut head = [0; BLOCK_HEAD];
        head[..8].copy_from_slice(&MARKER);
        let numbers = [self.number, flags, contents.len() as u32, len as u32];
        for (at, number) in numbers.iter().enumerate() {
            head[8 + 4 * at..][..4].copy_from_slice(&number.to_le_bytes());
        }
        let checksum = checksum(&head[8..24], contents);
        head[24..].copy_from_slice(&checksum.to_le_bytes());
        self.number = self.number.wrapping_add(1);
        head
    }
}

/// Returns the CRC-32 (as in zip and PNG) of a block's numbers and its contents.
pub(super) fn checksum(numbers: &[u8], contents: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(numbers);
    hasher.update(contents);
    hasher.finalize()
}

/// Appends an input to the contents of a block.
pub fn item(input: &Input, contents: &mut Vec<u8>) {
    match input {
        Input::Records {
            batch,
            complete_until_ns,
        } => {
            head(kind::RECORDS, 8 + batch.len(), contents);
            contents.extend_from_slice(&complete_until_ns.to_le_bytes());
            contents.extend_from_slice(batch.bytes());
        }
        Input::Small(small) => json(kind::SMALL, small, contents),
    }
}

/// Appends the beginning of a trace to the contents of a block.
pub(super) fn begin(begin: &Begin, contents: &mut Vec<u8>) {
    json(kind::BEGIN, begin, contents);
}

fn head(kind: u8, len: usize, contents: &mut Vec<u8>) {
    contents.extend_from_slice(&[kind, 0, 0, 0]);
    contents.extend_from_slice(&(len as u32).to_le_bytes());
}

fn json(kind: u8, value: &impl Serialize, contents: &mut Vec<u8>) {
    let at = contents.len();
    head(kind, 0, contents);
    // Writing to memory cannot fail, and these types have only numbers and strings as keys.
    let written = serde_json::to_writer(&mut *contents, value);
    debug_assert!(written.is_ok(), "{written:?}");
    let len = (contents.len() - at - ITEM_HEAD) as u32;
    contents[at + 4..at + ITEM_HEAD].copy_from_slice(&len.to_le_bytes());
}

impl Begin {
    /// Returns the first item of a recording. It is the only item of its block.
    pub fn item(&self) -> Vec<u8> {
        let mut contents = vec![];
        begin(self, &mut contents);
        contents
    }
}
