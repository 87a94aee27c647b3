//! A buffer of complete output lines.

use std::io::{self, Write};

/// Buffer size that triggers a write. The pipeline also flushes after each batch of events.
const BUFFER: usize = 64 * 1024;

/// Collects complete lines. A line consists of many small pieces, which a `Vec` takes faster than a
/// `BufWriter`. Readers never get half a line.
pub struct Lines {
    out: Box<dyn Write + Send>,
    /// The complete lines, and the line being written.
    pub text: Vec<u8>,
}

impl Lines {
    pub fn new(out: Box<dyn Write + Send>) -> Lines {
        Lines {
            out,
            text: Vec::with_capacity(2 * BUFFER),
        }
    }

    /// Ends the current line.
    pub fn end(&mut self) -> io::Result<()> {
        self.text.push(b'\n');
        match self.text.len() < BUFFER {
            true => Ok(()),
            false => self.write_out(),
        }
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.write_out()?;
        self.out.flush()
    }

    fn write_out(&mut self) -> io::Result<()> {
        let written = self.out.write_all(&self.text);
        self.text.clear();
        written
    }
}
