//! Outputs for lines: one format in each module, behind the trait [`Sink`].

mod cells;
pub mod chrome;
pub mod columns;
mod csv;
pub mod json;
mod lines;
pub mod pcapng;
pub mod schema;
mod stamp;
pub mod text;

#[cfg(test)]
pub(crate) mod samples;

use std::io;

use crate::fields::{Line, Wanted};

pub use chrome::Chrome;
pub use csv::Csv;
pub use json::Json;
pub use pcapng::Pcapng;
pub use text::Text;

/// An output that writes lines in one format.
pub trait Sink: Send {
    /// Writes one line.
    ///
    /// # Errors
    /// The writer's own (EPIPE, ENOSPC, …).
    fn line(&mut self, line: &Line) -> io::Result<()>;

    /// Passes everything written so far to the operating system.
    fn flush(&mut self) -> io::Result<()>;

    /// Returns the lines that the sink needs. It ignores others.
    fn wants(&self) -> Wanted {
        Wanted::ALL
    }
}

/// Passes each wanted line to a function, and writes nothing.
pub struct Show<F> {
    pub wanted: Wanted,
    pub show: F,
}

impl<F: FnMut(&Line) + Send> Sink for Show<F> {
    fn line(&mut self, line: &Line) -> io::Result<()> {
        if self.wanted.has(line.kind()) {
            (self.show)(line);
        }
        Ok(())
    }

    fn wants(&self) -> Wanted {
        self.wanted
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
