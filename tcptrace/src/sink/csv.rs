//! CSV (RFC 4180, lines end in LF): a header and a row a line.

use std::io::{self, Write};

use super::Sink;
use super::cells::{Cell, Cells};
use super::columns::Columns;
use crate::clock::Clock;
use crate::fields::Line;

/// Writes CSV.
pub struct Csv {
    out: csv::Writer<Box<dyn Write + Send>>,
    columns: Columns,
    cells: Cells,
    begun: bool,
}

impl Csv {
    pub fn new(out: Box<dyn Write + Send>, clock: Clock, columns: Columns) -> Csv {
        Csv {
            out: csv::Writer::from_writer(out),
            cells: Cells::new(&columns.columns, clock),
            columns,
            begun: false,
        }
    }

    /// Before the first line, so that a trace in which nothing happens has a header too.
    fn header(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.begun, true) {
            let names = self.columns.columns.iter().map(|column| &column.name);
            self.out.write_record(names).map_err(plain)?;
        }
        Ok(())
    }
}

impl Sink for Csv {
    fn line(&mut self, line: &Line) -> io::Result<()> {
        self.header()?;
        if !self.columns.take(line) {
            return Ok(());
        }
        for cell in self.cells.of(line)? {
            self.out.write_field(text(cell)).map_err(plain)?;
        }
        self.out.write_record(None::<&[u8]>).map_err(plain)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The writer's own error, which tells a closed pipe.
fn plain(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        // Rows of other lengths, or what cannot be serialized: there are none.
        other => io::Error::other(format!("{other:?}")),
    }
}

/// What is written: one line, and nothing that a terminal or a spreadsheet would obey. A
/// spreadsheet takes text that begins as a formula does for one, unless an apostrophe is in front.
fn text(cell: &Cell) -> String {
    let guard = cell.is_string && cell.text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let mut text = String::with_capacity(cell.text.len() + 1);
    text.extend(guard.then_some('\''));
    for c in cell.text.chars() {
        match c {
            ' '..='~' => text.push(c),
            _ => text.extend(c.escape_debug()),
        }
    }
    text
}
