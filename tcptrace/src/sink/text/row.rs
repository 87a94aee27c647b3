//! One line of the terminal log: columns and colours. What stands in them is [`Piece`]s, which
//! see to it that there is nothing that a terminal would obey.

use std::io::{self, Write};

use anstyle::{Reset, Style};

use super::piece::Piece;
use crate::sink::lines::Lines;

/// Two blanks between columns, however long the text before.
const GAP: usize = 2;

/// A line in the making, behind those that wait to be written.
pub struct Row {
    lines: Lines,
    /// Characters on the screen so far: no colour codes.
    width: usize,
    /// Up to where the text is counted in `width`.
    counted: usize,
    /// Bytes of colour codes behind that.
    codes: usize,
    /// The styles that have been used, with their codes; `None` without colours.
    styles: Option<Vec<(Style, String)>>,
    reset: String,
}

impl Row {
    pub fn new(out: Box<dyn Write + Send>, color: bool) -> Row {
        Row {
            lines: Lines::new(out),
            width: 0,
            counted: 0,
            codes: 0,
            styles: color.then(Vec::new),
            reset: Reset.to_string(),
        }
    }

    /// Appends something in a style.
    pub fn put(&mut self, style: Style, what: impl Piece) -> &mut Row {
        if style.is_plain() {
            return self.plain(what);
        }
        if let Some(styles) = &mut self.styles {
            let known = styles.iter().position(|(it, _)| *it == style);
            let at = known.unwrap_or_else(|| {
                styles.push((style, style.to_string()));
                styles.len() - 1
            });
            let code = &styles[at].1;
            self.lines.text.extend_from_slice(code.as_bytes());
            self.codes += code.len() + self.reset.len();
        }
        what.put(&mut self.lines.text);
        if self.styles.is_some() {
            self.lines.text.extend_from_slice(self.reset.as_bytes());
        }
        self
    }

    /// Appends something as it is.
    #[inline]
    pub fn plain(&mut self, what: impl Piece) -> &mut Row {
        what.put(&mut self.lines.text);
        self
    }

    /// Goes on at column `at`, counted from 0. A text that was too long for its column shifts the
    /// next one by no more than it must: the columns after it are in line again.
    pub fn column(&mut self, at: usize) -> &mut Row {
        let width = self.width();
        let to = if width == 0 { at } else { at.max(width + GAP) };
        self.blank(to - width)
    }

    /// Appends something that ends where a column of this width ends, which starts here.
    pub fn right(&mut self, style: Style, width: usize, what: impl Piece) -> &mut Row {
        let (begin, before) = (self.lines.text.len(), self.width());
        self.put(style, what);
        let blanks = width.saturating_sub(self.width() - before);
        self.blank(blanks);
        // Before its bytes change their places.
        self.width();
        self.lines.text[begin..].rotate_right(blanks);
        self
    }

    /// Ends the line and starts the next one.
    pub fn end(&mut self) -> io::Result<()> {
        let ended = self.lines.end();
        self.begin();
        ended
    }

    /// Whole lines of somebody else's.
    pub fn verbatim(&mut self, text: &str) -> io::Result<()> {
        self.lines.text.extend_from_slice(text.as_bytes());
        self.end()
    }

    pub fn flush(&mut self) -> io::Result<()> {
        let flushed = self.lines.flush();
        self.begin();
        flushed
    }

    fn begin(&mut self) {
        self.width = 0;
        self.codes = 0;
        self.counted = self.lines.text.len();
    }

    /// Counts what has come since it was last asked for.
    fn width(&mut self) -> usize {
        let fresh = &self.lines.text[self.counted..];
        let continues = |byte: &u8| byte & 0b1100_0000 == 0b1000_0000;
        let characters = fresh.iter().filter(|byte| !continues(byte)).count();
        self.width += characters - self.codes;
        self.codes = 0;
        self.counted = self.lines.text.len();
        self.width
    }

    fn blank(&mut self, n: usize) -> &mut Row {
        let to = self.lines.text.len() + n;
        self.lines.text.resize(to, b' ');
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::text::piece::Said;

    fn row(color: bool) -> Row {
        Row::new(Box::new(io::sink()), color)
    }

    fn end(row: &mut Row) -> String {
        row.end().unwrap();
        String::from_utf8(row.lines.text.clone()).unwrap()
    }

    #[test]
    fn a_long_text_shifts_only_its_neighbour() {
        let mut row = row(false);
        row.plain("→ too long")
            .column(5)
            .plain("b")
            .column(20)
            .plain("c");
        assert_eq!(end(&mut row), "→ too long  b       c\n");
    }

    #[test]
    fn right_aligned() {
        let mut row = row(false);
        row.plain("a").column(4).right(Style::new(), 8, "23.1 µs");
        assert_eq!(end(&mut row), "a    23.1 µs\n");

        let mut row = self::row(false);
        row.right(Style::new(), 12, "23.1 µs").column(14).plain("b");
        assert_eq!(end(&mut row), "     23.1 µs  b\n");
    }

    #[test]
    fn nothing_unprintable_gets_through() {
        let mut row = row(true);
        row.plain(Said("\x1b[31m\u{9b}\n\u{202e}é'\"\\"));
        assert_eq!(end(&mut row), "\\u{1b}[31m\\u{9b}\\n\\u{202e}é'\"\\\n");
    }
}
