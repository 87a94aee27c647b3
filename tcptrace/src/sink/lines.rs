//! Lines on their way out.

use std::io::{self, Write};

/// Bytes gathered before a write; the pipeline flushes after each batch of events anyway.
const BUFFER: usize = 64 * 1024;

/// Gathers whole lines. A line is made of many small pieces, which a `Vec` takes with less ado than a
/// `BufWriter`; and nobody is given half a line.
pub struct Lines {
    out: Box<dyn Write + Send>,
    /// The line in the making, and those before it.
    pub text: Vec<u8>,
}

impl Lines {
    pub fn new(out: Box<dyn Write + Send>) -> Lines {
        Lines {
            out,
            text: Vec::with_capacity(2 * BUFFER),
        }
    }

    /// Ends a line.
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
