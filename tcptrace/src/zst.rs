//! Zstandard (RFC 8878), for recordings.
//!
//! A file is a row of frames, each of whole lines and complete in itself: whatever ends the
//! writer, what it had written can be read.

use std::io::{self, BufRead, Read, Write};

use zstd::bulk::Compressor;
use zstd::stream::read::Decoder;

/// The first bytes of a frame.
pub const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Bytes after which a frame is ended, before compression.
const FRAME: usize = 512 * 1024;

/// As fast as it goes: it runs where lines are written.
const LEVEL: i32 = 1;

/// Compresses what is written.
pub struct Writer<W: Write> {
    out: W,
    compressor: Compressor<'static>,
    /// Not compressed yet.
    frame: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// There may be no memory for it.
    pub fn new(out: W) -> io::Result<Writer<W>> {
        let mut compressor = Compressor::new(LEVEL)?;
        compressor.include_checksum(true)?;
        Ok(Writer {
            out,
            compressor,
            frame: Vec::with_capacity(2 * FRAME),
        })
    }

    fn end_frame(&mut self) -> io::Result<()> {
        if self.frame.is_empty() {
            return Ok(());
        }
        let compressed = self.compressor.compress(&self.frame)?;
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
pub struct Reader<R: BufRead>(Decoder<'static, R>);

impl<R: BufRead> Reader<R> {
    /// There may be no memory for it.
    pub fn new(from: R) -> io::Result<Reader<R>> {
        Decoder::with_buffer(from).map(Reader)
    }
}

impl<R: BufRead> Read for Reader<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0
            .read(bytes)
            .map_err(|error| match error.raw_os_error() {
                // The file's own.
                Some(_) => error,
                None => io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("its zstd data is damaged or breaks off: {error}"),
                ),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not all alike, and not at random.
    fn text(lines: u64) -> Vec<u8> {
        let line = |n: u64| {
            format!(
                "{{\"conn\":{n},\"mono_ns\":{}}}\n",
                n.wrapping_mul(0x9e37_79b9)
            )
        };
        (0..lines).flat_map(|n| line(n).into_bytes()).collect()
    }

    fn compressed(parts: &[&[u8]]) -> Vec<u8> {
        let mut out = vec![];
        let mut writer = Writer::new(&mut out).unwrap();
        for part in parts {
            writer.write_all(part).unwrap();
            writer.flush().unwrap();
        }
        out
    }

    fn read(bytes: &[u8]) -> (Vec<u8>, io::Result<usize>) {
        let mut text = vec![];
        let done = Reader::new(bytes).unwrap().read_to_end(&mut text);
        (text, done)
    }

    #[test]
    fn what_was_written_is_read() {
        for lines in [1, 100, 100_000] {
            let text = text(lines);
            let (again, done) = read(&compressed(&[&text]));
            assert_eq!(done.unwrap(), text.len());
            assert!(again == text, "{lines} lines");
        }
        assert!(compressed(&[&text(100_000)]).len() < text(100_000).len() / 2);
    }

    #[test]
    fn what_was_flushed_is_read_whatever_became_of_the_rest() {
        let (first, second) = (text(20), text(30));
        let begun = compressed(&[&first]).len();
        let whole = compressed(&[&first, &second]);
        for len in begun + 1..whole.len() {
            let (again, done) = read(&whole[..len]);
            assert!(again.starts_with(&first), "{len} bytes");
            assert!(done.is_err(), "{len} bytes");
        }
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let text = text(30);
        let good = compressed(&[&text]);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            let (again, done) = read(&bad);
            assert!(done.is_err() || again == text, "byte {at}");
        }
    }
}
