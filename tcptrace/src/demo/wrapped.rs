//! Text in lines that fit a terminal.

use std::io::{self, Write};

use textwrap::{Options, WordSplitter};

/// Upper bound on the width of the demo's lines, in characters.
pub const WIDTH: usize = 100;

/// Indent of the continuation of a line of the log. It is the column of the state.
const CONTINUED: &str = "                                         ";

/// Indent of the demo's own sentences.
const SENTENCE: &str = "   ";

/// Wraps the lines of a log. Each write must consist of complete lines.
pub struct Wrapped<W>(pub W);

impl<W: Write> Write for Wrapped<W> {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(lines);
        let options = options().subsequent_indent(CONTINUED);
        let wrapped = text
            .lines()
            .map(|line| textwrap::fill(line, &options) + "\n");
        self.0.write_all(wrapped.collect::<String>().as_bytes())?;
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Wraps and indents the demo's own sentences.
pub fn sentences(text: &str) -> String {
    let indented = options().initial_indent(SENTENCE);
    textwrap::fill(text, indented.subsequent_indent(SENTENCE))
}

fn options<'a>() -> Options<'a> {
    Options::new(WIDTH).word_splitter(WordSplitter::NoHyphenation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_continues_in_the_column_of_the_state() {
        let mut out = vec![];
        let long = format!(
            "short  line\n{:41}queued: {}end\n",
            "#3",
            "words ".repeat(12)
        );
        Wrapped(&mut out).write_all(long.as_bytes()).unwrap();
        let expected = format!(
            "short  line\n{:41}queued: {}words\n{:41}words words words words end\n",
            "#3",
            "words ".repeat(7),
            ""
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn colours_do_not_count() {
        let mut out = vec![];
        let line = format!("\x1b[33m{}\x1b[0m\n", "x".repeat(WIDTH));
        Wrapped(&mut out).write_all(line.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), line);
    }
}
