//! Reading of the inputs of a recording. Damaged parts are skipped.

use std::io::{self, Read};

use bytes::Bytes;

use super::write::checksum;
use super::{BLOCK_HEAD, Damage, FORMAT, Header, ITEM_HEAD, LONGEST, MAGIC, MARKER, flag, kind};
use crate::batch::Batch;
use crate::decode::ABI;
use crate::printable::printable;
use crate::trace::{Begin, Input, Small};

/// The reason why a recording cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{0}")]
    Unreadable(#[from] io::Error),
    #[error("it is empty; tcptrace record writes recordings")]
    Empty,
    #[error("it is not a recording; tcptrace record writes recordings")]
    NoRecording,
    #[error(
        "it is JSON, which tcptrace does not read; tcptrace record and --write FILE write recordings"
    )]
    Json,
    #[error("it is compressed as a whole; decompress it with zstd -d, or record with --zstd")]
    Compressed,
    #[error(
        "it has format {format}, this tcptrace reads format {FORMAT}; use tcptrace {}",
        printable(version)
    )]
    Format { format: u32, version: String },
    #[error(
        "its records have layout {abi}, this tcptrace reads layout {ABI}; use tcptrace {}",
        printable(version)
    )]
    Layout { abi: u8, version: String },
    #[error(
        "it is from a machine with the other byte order ({machine}); replay it on a machine with \
         that order"
    )]
    ByteOrder { machine: String },
    #[error("its beginning, which describes the trace, is damaged")]
    Headless,
}

/// The next part of a recording.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    Input(Input),
    /// A damaged or missing part.
    Gap,
}

/// A reader of a recording.
pub struct Reader<R> {
    source: Source<R>,
    /// Contents of the current block that are not read yet.
    contents: Bytes,
    /// Offset of the current block in the file.
    offset: u64,
    /// The expected number of the next block.
    number: u32,
    /// Bytes of blocks whose checksum did not match.
    mismatched: u64,
    damage: Damage,
    /// True if a part was left out and not yet returned as a gap.
    gap: bool,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Opens a recording and reads its beginning.
    ///
    /// # Errors
    /// [`OpenError`] if nothing of it can be read.
    pub fn open(from: R) -> Result<(Begin, Reader<R>), OpenError> {
        let mut reader = Reader {
            source: Source::new(from),
            contents: Bytes::new(),
            offset: 0,
            number: 0,
            mismatched: 0,
            damage: Damage::default(),
            gap: false,
            ended: false,
        };
        reader.header()?;
        while let Some((kind, payload)) = reader.item() {
            if kind != kind::BEGIN {
                // Items before the beginning of the trace cannot be understood.
                reader.lose(payload.len(), "its beginning is missing");
                continue;
            }
            match serde_json::from_slice::<Begin>(&payload) {
                Ok(begin) => {
                    reader.gap = false;
                    return check(begin).map(|begin| (begin, reader));
                }
                Err(error) => reader.lose(payload.len(), error),
            }
        }
        Err(OpenError::Headless)
    }

    /// Reads the header, or finds out what kind of file this is.
    fn header(&mut self) -> Result<(), OpenError> {
        self.source.fill(Header::LEN)?;
        let bytes = self.source.bytes();
        if bytes.is_empty() {
            return Err(OpenError::Empty);
        }
        let header = bytes.first_chunk().and_then(Header::from_bytes);
        if let Some(Header { format, version }) = header {
            if format != FORMAT {
                return Err(OpenError::Format { format, version });
            }
            self.source.skip(Header::LEN);
            return Ok(());
        }
        // The header may be damaged. A block later in the file shows that it is a recording.
        self.source.fill(4096)?;
        let bytes = self.source.bytes();
        let has_block = bytes.windows(MARKER.len()).any(|it| it == MARKER);
        match bytes.trim_ascii_start().first() {
            _ if has_block => Ok(()),
            Some(b'{') => Err(OpenError::Json),
            _ if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) => Err(OpenError::Compressed),
            _ if bytes.starts_with(&MAGIC) => Err(OpenError::Headless),
            _ => Err(OpenError::NoRecording),
        }
    }

    /// Returns the damage found so far. It is complete when [`next`](Reader::next) has returned
    /// `None`.
    pub fn damage(&self) -> &Damage {
        &self.damage
    }

    /// Returns the next input or gap; `None` at the end.
    #[expect(
        clippy::should_implement_trait,
        reason = "after the end, damage() must be read"
    )]
    pub fn next(&mut self) -> Option<Item> {
        loop {
            if std::mem::take(&mut self.gap) {
                return Some(Item::Gap);
            }
            let Some((kind, payload)) = self.item() else {
                return std::mem::take(&mut self.gap).then_some(Item::Gap);
            };
            let input = match kind {
                // The beginning of the trace is stored twice, because nothing can be read without
                // it.
                kind::BEGIN => continue,
                kind::RECORDS => {
                    records(&payload).ok_or_else(|| "records without a time".to_owned())
                }
                kind::SMALL => serde_json::from_slice::<Small>(&payload)
                    .map(Input::Small)
                    .map_err(|error| error.to_string()),
                kind => Err(format!("an item of unknown kind {kind}")),
            };
            match input {
                Ok(input) => {
                    self.ended |=
                        matches!(input, Input::Small(Small::Cut { .. } | Small::End { .. }));
                    return Some(Item::Input(input));
                }
                Err(why) => self.lose(payload.len(), why),
            }
        }
    }

    /// Leaves out bytes of the current block.
    fn lose(&mut self, bytes: usize, why: impl std::fmt::Display) {
        let why = why.to_string();
        (self.damage).add(self.offset, bytes as u64, printable(&why));
        self.gap = true;
    }

    /// Returns the next item's kind and payload.
    fn item(&mut self) -> Option<(u8, Bytes)> {
        loop {
            if let Some(head) = self.contents.first_chunk::<ITEM_HEAD>() {
                let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
                let kind = head[0];
                let mut item = self.contents.split_off(ITEM_HEAD);
                if len <= item.len() {
                    self.contents = item.split_off(len);
                    return Some((kind, item));
                }
                self.contents = item;
            }
            if !self.contents.is_empty() {
                // The checksum is correct, so the block was written in this way.
                self.lose(self.contents.len(), "a block ends in the middle of an item");
                self.contents.clear();
            }
            match self.block() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.damage.failed = Some(printable(&error.to_string()).into_owned());
                    self.damage.breaks_off.get_or_insert(self.source.offset);
                    return None;
                }
            }
        }
    }

    /// Reads the next block; returns false at the end of the file.
    fn block(&mut self) -> io::Result<bool> {
        let mut begin = self.source.offset;
        let mut why = "no block begins there";
        loop {
            match self.read_block()? {
                Piece::Block(contents) => {
                    let offset = self.source.offset;
                    self.leave_out(begin, offset, why);
                    self.source.skip(BLOCK_HEAD + contents.stored);
                    self.offset = offset;
                    self.numbered(contents.number);
                    match contents.plain() {
                        Some(plain) => {
                            self.contents = plain;
                            return Ok(true);
                        }
                        None => {
                            self.lose(contents.stored, "a block cannot be decompressed");
                            begin = self.source.offset;
                        }
                    }
                }
                Piece::Header if self.ended => {
                    self.leave_out(begin, self.source.offset, why);
                    self.damage.another = Some(self.source.offset);
                    return Ok(false);
                }
                Piece::End => {
                    let end = self.source.offset + self.source.bytes().len() as u64;
                    if !self.ended {
                        self.damage.breaks_off.get_or_insert(begin);
                        self.gap = end > begin;
                    } else {
                        self.leave_out(begin, end, why);
                    }
                    return Ok(false);
                }
                piece => {
                    if let Piece::Damaged = piece
                        && self.source.offset == begin
                    {
                        why = "a block is damaged";
                    }
                    self.source.skip(1);
                    self.source.seek(&[&MARKER[..], &MAGIC[..]])?;
                }
            }
        }
    }

    fn leave_out(&mut self, begin: u64, end: u64, why: &str) {
        if end > begin {
            self.damage.add(begin, end - begin, why);
            self.gap = true;
        }
    }

    fn numbered(&mut self, number: u32) {
        let missing = number.wrapping_sub(self.number);
        if missing != 0 {
            self.gap = true;
            // The missing blocks may be among the bytes that were left out.
            if missing < u32::MAX / 2 {
                self.damage.missing += u64::from(missing);
            }
        }
        self.number = number.wrapping_add(1);
    }

    /// Reads a block at the current offset.
    fn read_block(&mut self) -> io::Result<Piece> {
        self.source.fill(BLOCK_HEAD)?;
        let bytes = self.source.bytes();
        if bytes.is_empty() {
            return Ok(Piece::End);
        }
        if bytes.starts_with(&MAGIC) {
            return Ok(Piece::Header);
        }
        let Some(head) = bytes.first_chunk::<BLOCK_HEAD>() else {
            return Ok(Piece::Nothing);
        };
        if !head.starts_with(&MARKER) {
            return Ok(Piece::Nothing);
        }
        let head = *head;
        let number = |at| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (flags, stored, len) = (number(12), number(16) as usize, number(20) as usize);
        let is_sound = flags & !flag::ZSTD == 0 && stored <= LONGEST && len <= LONGEST;
        if !is_sound {
            return Ok(Piece::Damaged);
        }
        self.source.fill(BLOCK_HEAD + stored)?;
        let contents = self.source.bytes().get(BLOCK_HEAD..BLOCK_HEAD + stored);
        let Some(contents) = contents else {
            return Ok(Piece::Damaged);
        };
        if self.mismatched > self.source.read + LONGEST as u64 {
            // Only a crafted file has so many bytes in blocks whose checksum does not match.
            return Err(io::Error::other(
                "it is full of block markers without blocks",
            ));
        }
        if checksum(&head[8..24], contents) != number(24) {
            self.mismatched += stored as u64;
            return Ok(Piece::Damaged);
        }
        Ok(Piece::Block(Contents {
            number: number(8),
            stored,
            len,
            is_compressed: flags & flag::ZSTD != 0,
            bytes: Bytes::copy_from_slice(contents),
        }))
    }
}

/// The content of a file at an offset.
enum Piece {
    Block(Contents),
    /// A block that is cut or whose checksum does not match.
    Damaged,
    /// The header of another recording.
    Header,
    Nothing,
    End,
}

struct Contents {
    number: u32,
    /// Size in the file in bytes.
    stored: usize,
    /// Size after decompression in bytes.
    len: usize,
    is_compressed: bool,
    bytes: Bytes,
}

impl Contents {
    fn plain(&self) -> Option<Bytes> {
        if !self.is_compressed {
            return Some(self.bytes.clone());
        }
        let plain = zstd::bulk::decompress(&self.bytes, self.len).ok()?;
        (plain.len() == self.len).then(|| plain.into())
    }
}

fn records(payload: &Bytes) -> Option<Input> {
    let complete_until_ns = u64::from_le_bytes(*payload.first_chunk()?);
    Some(Input::Records {
        batch: Batch::from_bytes(payload.slice(8..)),
        complete_until_ns,
    })
}

/// Checks that this program can read the records.
fn check(begin: Begin) -> Result<Begin, OpenError> {
    if begin.big_endian != cfg!(target_endian = "big") {
        let machine = printable(&begin.machine).into_owned();
        return Err(OpenError::ByteOrder { machine });
    }
    if begin.abi != ABI {
        let (abi, version) = (begin.abi, begin.version);
        return Err(OpenError::Layout { abi, version });
    }
    Ok(begin)
}

/// The bytes of a file, read ahead in large pieces.
struct Source<R> {
    from: R,
    ahead: Vec<u8>,
    /// Number of bytes of `ahead` that were skipped.
    done: usize,
    /// Offset of the first byte in the file that was not skipped.
    offset: u64,
    /// Number of bytes read so far.
    read: u64,
    at_end: bool,
}

/// Number of bytes per read.
const AT_ONCE: usize = 256 << 10;

impl<R: Read> Source<R> {
    fn new(from: R) -> Source<R> {
        Source {
            from,
            ahead: vec![],
            done: 0,
            offset: 0,
            read: 0,
            at_end: false,
        }
    }

    /// Returns the bytes that were read and not skipped.
    fn bytes(&self) -> &[u8] {
        &self.ahead[self.done..]
    }

    fn skip(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes().len());
        self.done += bytes;
        self.offset += bytes as u64;
    }

    /// Reads until this many bytes are available, or the file ends.
    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        if self.bytes().len() >= wanted || self.at_end {
            return Ok(());
        }
        self.ahead.drain(..self.done);
        self.done = 0;
        while self.ahead.len() < wanted && !self.at_end {
            let had = self.ahead.len();
            self.ahead.resize(had + AT_ONCE, 0);
            let read = loop {
                match self.from.read(&mut self.ahead[had..]) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    read => break read,
                }
            };
            self.ahead.truncate(had + *read.as_ref().unwrap_or(&0));
            let read = read?;
            self.read += read as u64;
            self.at_end = read == 0;
        }
        Ok(())
    }

    /// Skips to the next place that begins with one of `wanted`, or to the end of the file.
    fn seek(&mut self, wanted: &[&[u8]]) -> io::Result<()> {
        let longest = wanted.iter().map(|it| it.len()).max().unwrap_or(0);
        loop {
            let bytes = self.bytes();
            let mut places = 0..bytes.len();
            let piece = places.find(|&at| wanted.iter().any(|it| bytes[at..].starts_with(it)));
            if let Some(at) = piece {
                self.skip(at);
                return Ok(());
            }
            if self.at_end {
                self.skip(self.bytes().len());
                return Ok(());
            }
            // A match may begin in the last bytes.
            self.skip((self.bytes().len() + 1).saturating_sub(longest));
            self.fill(self.bytes().len() + 1)?;
        }
    }
}
