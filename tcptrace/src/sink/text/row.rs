//! One line of the terminal log: columns, colours, and nothing that a terminal would obey.

use std::fmt::{self, Display, Write as _};
use std::io::{self, Write};

use anstyle::Style;

/// Two blanks between columns, however long the text before.
const GAP: usize = 2;

const BLANKS: &str = "                                ";

/// A line in the making. Reused from line to line.
pub struct Row {
    text: String,
    /// Characters on the screen so far: no colour codes.
    width: usize,
    color: bool,
}

impl Row {
    pub fn new(color: bool) -> Row {
        Row {
            text: String::new(),
            width: 0,
            color,
        }
    }

    /// Appends something in a style.
    pub fn put(&mut self, style: Style, what: impl Display) -> &mut Row {
        if self.color {
            let _ = write!(self.text, "{style}");
        }
        let _ = write!(Printable(self), "{what}");
        if self.color {
            let _ = write!(self.text, "{style:#}");
        }
        self
    }

    /// Appends something as it is.
    pub fn plain(&mut self, what: impl Display) -> &mut Row {
        self.put(Style::new(), what)
    }

    /// Goes on at column `at`, counted from 0. A text that was too long for its column shifts the
    /// next one by no more than it must: the columns after it are in line again.
    pub fn column(&mut self, at: usize) -> &mut Row {
        let to = if self.width == 0 {
            at
        } else {
            at.max(self.width + GAP)
        };
        self.blank(to - self.width)
    }

    /// Appends something that ends where a column of this width ends, which starts here.
    pub fn right(&mut self, style: Style, width: usize, what: impl Display) -> &mut Row {
        let text = what.to_string();
        self.blank(width.saturating_sub(text.chars().count()))
            .put(style, text)
    }

    /// Writes the line and starts the next one.
    pub fn end(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.text.push('\n');
        let written = out.write_all(self.text.as_bytes());
        self.text.clear();
        self.width = 0;
        written
    }

    fn blank(&mut self, n: usize) -> &mut Row {
        let mut rest = n;
        while rest > 0 {
            let some = rest.min(BLANKS.len());
            self.text.push_str(&BLANKS[..some]);
            rest -= some;
        }
        self.width += n;
        self
    }
}

/// Escapes whatever is not printable, whoever let it through: thread names are chosen by their
/// owners.
struct Printable<'a>(&'a mut Row);

impl fmt::Write for Printable<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let Printable(row) = self;
        if s.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            row.text.push_str(s);
            row.width += s.len();
            return Ok(());
        }
        for c in s.chars() {
            let before = row.text.len();
            match c {
                // All that this program itself writes.
                ' '..='~' | '→' | '←' | '⇄' | 'µ' | '≈' | '…' | '−' => {
                    row.text.push(c);
                    row.width += 1;
                }
                _ => {
                    row.text.extend(c.escape_debug());
                    row.width += row.text[before..].chars().count();
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(row: &mut Row) -> String {
        let mut out = Vec::new();
        row.end(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_long_text_shifts_only_its_neighbour() {
        let mut row = Row::new(false);
        row.plain("→ too long")
            .column(5)
            .plain("b")
            .column(20)
            .plain("c");
        assert_eq!(end(&mut row), "→ too long  b       c\n");
    }

    #[test]
    fn right_aligned() {
        let mut row = Row::new(false);
        row.plain("a").column(4).right(Style::new(), 8, "23.1 µs");
        assert_eq!(end(&mut row), "a    23.1 µs\n");
    }

    #[test]
    fn nothing_unprintable_gets_through() {
        let mut row = Row::new(true);
        row.plain("\x1b[31m\u{9b}\n\u{202e}é'\"\\");
        assert_eq!(end(&mut row), "\\u{1b}[31m\\u{9b}\\n\\u{202e}é'\"\\\n");
    }
}
