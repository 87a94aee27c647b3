//! CSV output (RFC 4180, with LF line ends): a header, and one row for each line.

use std::io::{self, Write};

use super::Sink;
use super::cells::{Cell, Cells};
use super::columns::Columns;
use crate::clock::Clock;
use crate::fields::{Line, Wanted};
use crate::printable::printable;

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

    /// Writes the header before the first line. A trace without rows also gets it.
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

    fn wants(&self) -> Wanted {
        self.columns.wants()
    }
}

/// Returns the writer's own error, so that a closed pipe is recognized.
fn plain(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        // Rows of different lengths and serialization errors cannot occur here.
        other => io::Error::other(format!("{other:?}")),
    }
}

/// Returns the text of a cell on one line with control characters escaped.
///
/// A spreadsheet would run text that begins like a formula, so such text gets an apostrophe in
/// front.
fn text(cell: &Cell) -> String {
    let guard = cell.is_string && cell.text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let mut text = String::with_capacity(cell.text.len() + 1);
    text.extend(guard.then_some('\''));
    text.push_str(&printable(&cell.text));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Comm;
    use crate::fields::Subject;
    use crate::sink::samples;

    fn csv(lines: &[Line], columns: Columns) -> String {
        samples::all_written(lines, |out| {
            Box::new(Csv::new(out, samples::clock(), columns))
        })
    }

    fn chosen(fields: &[&str]) -> Columns {
        let fields: Vec<String> = fields.iter().map(|&it| it.to_owned()).collect();
        Columns::of(&fields, &[])
    }

    #[test]
    fn output_has_a_header_and_one_row_a_line() {
        let columns = chosen(&["ts", "conn", "oldstate", "newstate", "error", "synthetic"]);
        assert_eq!(
            csv(&[Line::Transition(samples::transition())], columns),
            "ts,conn,oldstate,newstate,error,synthetic\n\
             2026-03-01T14:03:07.123456789Z,3,SYN_RECV,ESTABLISHED,,false\n"
        );
    }

    /// The CSV is read back by an independent parser.
    #[test]
    fn all_columns_have_the_values_of_json() {
        let lines = samples::all();
        let text = csv(&lines, Columns::all(&[]));
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let names = reader.headers().unwrap().clone();
        let rows: Vec<_> = reader.records().map(|row| row.unwrap()).collect();
        assert_eq!(rows.len(), lines.len());
        assert_eq!(text.lines().count(), lines.len() + 1);
        for (row, line) in rows.iter().zip(&lines) {
            let json = samples::json(line);
            for (name, cell) in names.iter().zip(row) {
                match &json[name] {
                    serde_json::Value::Null => assert_eq!(cell, ""),
                    // Characters outside printable ASCII are escaped.
                    serde_json::Value::String(text) if text.is_ascii() => assert_eq!(cell, text),
                    serde_json::Value::String(_) => {}
                    other => {
                        let cell: serde_json::Value = serde_json::from_str(cell).unwrap();
                        assert_eq!(&cell, other, "{name}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_cell_is_one_line_and_never_a_formula() {
        for (name, cell) in [
            ("=1+1", "'=1+1"),
            ("+x", "'+x"),
            ("-x", "'-x"),
            ("@x", "'@x"),
            ("\t=x", "'\\t=x"),
            ("\r\n", "'\\r\\n"),
            ("a\nb", "a\\nb"),
            ("\u{1b}[31m", "\\u{1b}[31m"),
            ("a,\"b\"", "\"a,\"\"b\"\"\""),
            ("a=b", "a=b"),
        ] {
            let mut line = samples::transition();
            line.subject = Subject {
                comm: Some(Comm::from(name)),
                ..line.subject
            };
            line.backlog.backlog_asked = Some(-1);
            let columns = chosen(&["comm", "backlog_asked"]);
            let text = csv(&[Line::Transition(line)], columns);
            assert_eq!(text, format!("comm,backlog_asked\n{cell},-1\n"));
        }
    }
}
