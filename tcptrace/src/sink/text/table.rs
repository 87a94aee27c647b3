//! `--fields` and `-o wide`: a table of fields instead of the log's columns.

use std::io;

use super::Text;
use super::paint::{DIM, PLAIN, STRONG};
use super::piece::Said;
use crate::duration::Human;
use crate::fields::{Kind, Line, Wanted};
use crate::sink::cells::Cells;
use crate::sink::columns::{Column, Columns, Shape};

/// Number of blanks between two columns.
const GAP: usize = 2;

/// The columns with their start positions.
pub struct Table {
    columns: Columns,
    starts: Vec<usize>,
    cells: Cells,
    begun: bool,
}

impl Table {
    pub fn new(columns: Columns, clock: crate::clock::Clock) -> Table {
        let starts = columns.columns.iter().scan(0, |next, column| {
            let start = *next;
            *next += column.width + GAP;
            Some(start)
        });
        Table {
            starts: starts.collect(),
            cells: Cells::new(&columns.columns, clock),
            columns,
            begun: false,
        }
    }

    /// Returns the lines that fill rows, and the lines about the trace itself.
    pub fn wants(&self) -> Wanted {
        let about = [Kind::Session, Kind::Lost, Kind::Summary].into_iter();
        self.columns.wants() | about.collect()
    }
}

impl Text {
    /// Writes a row if the table has one for this line.
    pub(super) fn row_of(&mut self, table: &mut Table, line: &Line) -> io::Result<()> {
        if !std::mem::replace(&mut table.begun, true) {
            self.headings(table)?;
        }
        match line {
            // Lost events are always shown, so that readers know that rows are missing.
            Line::Lost(lost) => return self.lost(lost),
            _ if !table.columns.take(line) => return Ok(()),
            _ => {}
        }
        let cells = table.cells.of(line)?;
        for ((column, cell), &start) in table.columns.columns.iter().zip(cells).zip(&table.starts) {
            self.row.column(start);
            let ns = cell.text.parse().map(Human);
            match (column.shape, ns) {
                _ if cell.text.is_empty() => self.put_in(column, DIM, "-"),
                (Shape::Time, _) => self.time(line.mono_ns()),
                (Shape::Duration, Ok(duration)) => {
                    self.put_in(column, PLAIN, &duration.to_string())
                }
                _ => self.put_in(column, PLAIN, &cell.text),
            }
        }
        self.end()
    }

    fn headings(&mut self, table: &Table) -> io::Result<()> {
        for (column, &start) in table.columns.columns.iter().zip(&table.starts) {
            self.row.column(start);
            self.put_in(column, STRONG, &column.name.to_uppercase());
        }
        self.end()
    }

    /// Writes a text in a column. Numbers are right-aligned.
    fn put_in(&mut self, column: &Column, style: anstyle::Style, text: &str) {
        match column.shape {
            Shape::Number | Shape::Duration => self.row.right(style, column.width, Said(text)),
            Shape::Time | Shape::Text => self.row.put(style, Said(text)),
        };
    }
}
