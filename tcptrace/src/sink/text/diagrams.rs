//! `--explain=diagram`: a sequence diagram at the end of each connection.

use std::io;

use super::Text;
use super::row::Row;
use crate::diagram::text::{Look, draw};
use crate::diagram::{Collector, Diagram, Keep};
use crate::fields::Line;

pub(super) struct Diagrams {
    collector: Collector,
    look: Look,
}

impl Text {
    /// Also draws each connection when it has ended at all its traced ends. Does not wait for
    /// TIME_WAIT.
    pub fn with_diagrams(mut self) -> Text {
        self.diagrams = Some(Diagrams {
            collector: Collector::new(Keep::UntilEnded),
            look: Look {
                color: self.style.color,
                ascii: false,
            },
        });
        self
    }
}

impl Diagrams {
    pub(super) fn line(&mut self, line: &Line, row: &mut Row) -> io::Result<()> {
        let group = self.collector.take(line);
        let Some(diagram) = group.as_ref().and_then(Diagram::of) else {
            return Ok(());
        };
        let numbers: Vec<String> = diagram.conns().map(|it| format!("#{it}")).collect();
        let drawn = draw(&diagram, self.look);
        row.verbatim(&format!("\n{}\n{drawn}", numbers.join(" → ")))
    }
}
