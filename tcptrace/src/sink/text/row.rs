//! A line of the terminal log in columns and colours. Its parts are [`Piece`]s, which escape
//! control characters.

use std::io::{self, Write};

use anstyle::{Reset, Style};

use super::piece::Piece;
use crate::sink::lines::Lines;

/// Minimum number of blanks between columns.
const GAP: usize = 2;

/// The current line, and before it the lines that are not written yet.
pub struct Row {
    lines: Lines,
    /// Width of the line so far in characters, without colour codes.
    width: usize,
    /// Offset up to which the text is counted in `width`.
    counted: usize,
    /// Length of the colour codes after that offset, in bytes.
    codes: usize,
    /// The styles used so far with their codes; `None` without colours.
    styles: Option<Vec<(Style, String)>>,
    reset: String,
    /// Columns behind the first number are moved to the left by the second one.
    moved: (usize, usize),
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
            moved: (usize::MAX, 0),
        }
    }

    /// Appends a part in a style.
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

    /// Appends a part without a style.
    #[inline]
    pub fn plain(&mut self, what: impl Piece) -> &mut Row {
        what.put(&mut self.lines.text);
        self
    }

    /// Moves the columns behind `behind` to the left.
    pub fn move_columns(&mut self, behind: usize, by: usize) {
        self.moved = (behind, by);
    }

    /// Continues at column `at`, counted from 0. A text that is too long shifts only the next
    /// column, if the later ones have room.
    pub fn column(&mut self, at: usize) -> &mut Row {
        let width = self.width();
        let (behind, by) = self.moved;
        let at = if at > behind { at - by } else { at };
        let to = if width == 0 { at } else { at.max(width + GAP) };
        self.blank(to - width)
    }

    /// Appends a part right-aligned in a column of this width that starts here.
    pub fn right(&mut self, style: Style, width: usize, what: impl Piece) -> &mut Row {
        let (begin, before) = (self.lines.text.len(), self.width());
        self.put(style, what);
        let blanks = width.saturating_sub(self.width() - before);
        self.blank(blanks);
        // Count the width before the bytes are moved.
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

    /// Appends complete lines that another module has formatted.
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

    /// Counts the characters since the last call, and returns the width.
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
    fn a_long_text_shifts_only_the_next_column() {
        let mut row = row(false);
        row.plain("→ too long")
            .column(5)
            .plain("b")
            .column(20)
            .plain("c");
        assert_eq!(end(&mut row), "→ too long  b       c\n");
    }

    #[test]
    fn a_part_is_right_aligned_in_its_column() {
        let mut row = row(false);
        row.plain("a").column(4).right(Style::new(), 8, "23.1 µs");
        assert_eq!(end(&mut row), "a    23.1 µs\n");

        let mut row = self::row(false);
        row.right(Style::new(), 12, "23.1 µs").column(14).plain("b");
        assert_eq!(end(&mut row), "     23.1 µs  b\n");
    }

    #[test]
    fn unprintable_characters_are_escaped() {
        let mut row = row(true);
        row.plain(Said("\x1b[31m\u{9b}\n\u{202e}é'\"\\"));
        assert_eq!(end(&mut row), "\\u{1b}[31m\\u{9b}\\n\\u{202e}é'\"\\\n");
    }
}
