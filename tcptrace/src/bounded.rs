//! Lines of a file that may be anything: no line of it takes all memory.

use std::io::{self, BufRead, Read};

/// No line of a trace is longer, in bytes. A summary has some hundred for each listener.
pub const LONGEST: usize = 64 << 20;

/// The outcome of reading one line within the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// A line, with its newline unless the file ends without.
    Whole,
    /// The beginning of a line that is longer than [`LONGEST`]; the rest comes next.
    TooLong,
    End,
}

/// Reads the next line into `text`, and no more of it than [`LONGEST`] bytes.
///
/// # Errors
/// The reader's own.
pub fn read_line(from: &mut impl BufRead, text: &mut Vec<u8>) -> io::Result<Line> {
    read_at_most(LONGEST, from, text)
}

fn read_at_most(most: usize, from: &mut impl BufRead, text: &mut Vec<u8>) -> io::Result<Line> {
    text.clear();
    let read = from.take(most as u64).read_until(b'\n', text)?;
    Ok(match read {
        0 => Line::End,
        _ if read == most && !text.ends_with(b"\n") => Line::TooLong,
        _ => Line::Whole,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_whole_or_too_long() {
        let mut from = &b"12345678\n1234567\n\nend"[..];
        let mut text = vec![];
        let mut read = || (read_at_most(8, &mut from, &mut text).unwrap(), text.clone());
        assert_eq!(read(), (Line::TooLong, b"12345678".to_vec()));
        assert_eq!(read(), (Line::Whole, b"\n".to_vec()));
        assert_eq!(read(), (Line::Whole, b"1234567\n".to_vec()));
        assert_eq!(read(), (Line::Whole, b"\n".to_vec()));
        assert_eq!(read(), (Line::Whole, b"end".to_vec()));
        assert_eq!(read(), (Line::End, vec![]));
    }
}
