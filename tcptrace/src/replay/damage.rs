//! What of a recording could not be read.

use std::fmt::{self, Display};

use crate::printable::printable;

/// How much of a recording has been read, and what was wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Lines read so far, those left out among them.
    pub lines: u64,
    /// Lines that could not be read and were left out.
    pub unreadable: u64,
    /// The number of the first of them, from 1, and what was wrong with it.
    pub first: Option<(u64, String)>,
    /// Lines of kinds that this version does not know. They are left out, and no damage.
    pub unknown: u64,
    /// The name of the first such kind.
    pub first_unknown: Option<String>,
    /// It does not begin with its `session` line.
    pub headless: bool,
    /// Its end was reached, or what stands in `failed`, before its `summary` line.
    pub no_summary: bool,
    /// Why nothing more could be read, where that was not just its end.
    pub failed: Option<String>,
    /// The number of a line where another trace begins. From there on nothing was read.
    pub another: Option<u64>,
}

impl Damage {
    /// Everything that was written was read.
    pub fn is_none(&self) -> bool {
        let lacks = self.headless || self.no_summary;
        self.unreadable == 0 && !lacks && self.failed.is_none() && self.another.is_none()
    }

    /// Counts the line that was read last as left out.
    pub(super) fn leave_out(&mut self, why: impl Display) {
        self.unreadable += 1;
        let line = self.lines;
        self.first
            .get_or_insert_with(|| (line, printable(&why.to_string()).into_owned()));
    }

    /// The same for a kind of line that is not known.
    pub(super) fn pass_over(&mut self, kind: &str) {
        self.unknown += 1;
        self.first_unknown
            .get_or_insert_with(|| printable(kind).into_owned());
    }

    pub(super) fn fail(&mut self, why: impl Display) {
        self.failed = Some(printable(&why.to_string()).into_owned());
    }
}

/// One line for the person at the terminal, without a full stop; empty when there is nothing to say.
impl Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = vec![];
        if self.headless {
            told.push("its session line is missing".to_owned());
        }
        if let Some((line, why)) = &self.first {
            told.push(match self.unreadable {
                1 => format!("line {line} cannot be read and is left out: {why}"),
                n => format!(
                    "{n} lines cannot be read and are left out, the first is line {line}: {why}"
                ),
            });
        }
        if let Some(kind) = &self.first_unknown {
            told.push(match self.unknown {
                1 => format!("a line of the kind {kind} is left out: this version does not know it"),
                n => format!(
                    "{n} lines of kinds that this version does not know, such as {kind}, are left out"
                ),
            });
        }
        if self.no_summary || self.failed.is_some() {
            let why = self.failed.as_ref().map(|why| format!(" ({why})"));
            let missing = match self.no_summary {
                true => "; its summary is missing",
                false => "",
            };
            told.push(format!(
                "it breaks off after line {}{}{missing}",
                self.lines,
                why.unwrap_or_default()
            ));
        }
        if let Some(line) = self.another {
            told.push(format!(
                "line {line} begins another trace, which is left out: give each a file of its own"
            ));
        }
        f.write_str(&told.join("; "))
    }
}
