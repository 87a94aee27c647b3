//! A canvas: the current row of characters, and the text of the finished rows.

use std::fmt::{Display, Write};

use anstyle::Style;

use super::{Look, PLAIN, WIDTH};
use crate::printable::{is_printable, printable};

pub struct Canvas {
    look: Look,
    row: Vec<(char, Style)>,
    text: String,
}

impl Canvas {
    pub fn new(look: Look) -> Canvas {
        Canvas {
            look,
            row: vec![],
            text: String::new(),
        }
    }

    /// Puts one character. A character beyond the width is dropped.
    pub fn put(&mut self, at: usize, style: Style, c: char) {
        if at >= WIDTH {
            return;
        }
        if self.row.len() <= at {
            self.row.resize(at + 1, (' ', PLAIN));
        }
        let c = if is_printable(c) { c } else { '?' };
        self.row[at] = (c, style);
    }

    pub fn text_at(&mut self, at: usize, style: Style, text: impl Display) {
        for (n, c) in printable(&text.to_string()).chars().enumerate() {
            self.put(at + n, style, c);
        }
    }

    /// Writes text that ends before the column `before`.
    pub fn right(&mut self, before: usize, style: Style, text: impl Display) {
        let text = text.to_string();
        let text = printable(&text);
        let at = before.saturating_sub(text.chars().count());
        self.text_at(at, style, text);
    }

    pub fn centred(&mut self, at: usize, style: Style, text: impl Display) {
        let text = text.to_string();
        let text = printable(&text);
        let at = at.saturating_sub(text.chars().count() / 2);
        self.text_at(at, style, text);
    }

    pub fn end(&mut self) {
        while self.row.last().is_some_and(|&(c, _)| c == ' ') {
            self.row.pop();
        }
        let mut now = PLAIN;
        for (c, style) in self.row.drain(..) {
            if self.look.color && style != now && c != ' ' {
                // Writing to a String cannot fail.
                let _ = write!(self.text, "{}{}", now.render_reset(), style.render());
                now = style;
            }
            match self.look.ascii {
                true => self.text.push(ascii(c)),
                false => self.text.push(c),
            }
        }
        if self.look.color {
            let _ = write!(self.text, "{}", now.render_reset());
        }
        self.text.push('\n');
    }

    pub fn text(self) -> String {
        self.text
    }
}

/// Returns the nearest ASCII character. It is one column wide.
pub fn ascii(c: char) -> char {
    match c {
        _ if c.is_ascii() => c,
        '│' | '┃' => '|',
        '┊' => ':',
        '├' | '┤' | '┬' | '┴' | '┼' => '+',
        '─' | '−' => '-',
        '╌' => '.',
        '▶' | '▷' | '→' | '≥' => '>',
        '◀' | '◁' => '<',
        '▒' => '#',
        '╳' | '×' => 'x',
        'µ' => 'u',
        '≈' | '…' => '~',
        _ => '?',
    }
}
