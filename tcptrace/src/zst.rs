//! Zstandard (RFC 8878), for recordings.
//!
//! A file is a row of frames, each of whole lines and complete in itself: whatever ends the
//! writer, what it had written can be read.

use std::io::{self, BufRead, Read, Write};

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

/// The first bytes of a frame.
pub const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Bytes after which a frame is ended, before compression.
const FRAME: usize = 512 * 1024;

/// Compresses what is written.
pub struct Writer<W: Write> {
    out: W,
    /// Not compressed yet.
    frame: Vec<u8>,
}

impl<W: Write> Writer<W> {
    pub fn new(out: W) -> Writer<W> {
        Writer {
            out,
            frame: Vec::with_capacity(FRAME),
        }
    }

    fn end_frame(&mut self) -> io::Result<()> {
        if self.frame.is_empty() {
            return Ok(());
        }
        let compressed = compress_to_vec(&self.frame[..], CompressionLevel::Fastest);
        self.frame.clear();
        self.out.write_all(&compressed)
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.frame.extend_from_slice(bytes);
        if self.frame.len() >= FRAME {
            self.end_frame()?;
        }
        Ok(bytes.len())
    }

    /// Ends the frame.
    fn flush(&mut self) -> io::Result<()> {
        self.end_frame()?;
        self.out.flush()
    }
}

/// Decompresses what is read: any number of frames, whoever wrote them.
pub struct Reader<R> {
    from: R,
    decoder: FrameDecoder,
    /// Between two frames.
    idle: bool,
}

impl<R: BufRead> Reader<R> {
    pub fn new(from: R) -> Reader<R> {
        Reader {
            from,
            decoder: FrameDecoder::new(),
            idle: true,
        }
    }

    /// Begins the next frame; false when there is none.
    fn begin(&mut self) -> io::Result<bool> {
        if self.from.fill_buf()?.is_empty() {
            return Ok(false);
        }
        self.decoder.init(&mut self.from).map_err(damaged)?;
        self.idle = false;
        Ok(true)
    }

    /// Compares the frame with its checksum, if it has one.
    fn end(&mut self) -> io::Result<()> {
        self.idle = true;
        let wanted = self.decoder.get_checksum_from_data();
        match wanted.is_some() && wanted != self.decoder.get_calculated_checksum() {
            true => Err(damaged("a checksum is wrong")),
            false => Ok(()),
        }
    }
}

impl<R: BufRead> Read for Reader<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.idle && !self.begin()? {
                return Ok(0);
            }
            let n = self.decoder.read(bytes)?;
            if n > 0 || bytes.is_empty() {
                return Ok(n);
            }
            if self.decoder.is_finished() {
                self.end()?;
            } else {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder
                    .decode_blocks(&mut self.from, one)
                    .map_err(damaged)?;
            }
        }
    }
}

fn damaged(why: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("zstd: {why}"))
}
