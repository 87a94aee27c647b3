//! Text that is safe to show on a terminal and in other programs.
//!
//! Thread names, and every string of a recording, may come from an attacker. Control characters
//! could move the cursor, reverse the order of the text, or hide something. Every sink shows such
//! text through this module.

use std::borrow::Cow;
use std::fmt::{self, Display, Write as _};
use std::io::{self, Write};
use std::iter;

use serde_json::ser::{CharEscape, Formatter};

/// Returns whether a character can be shown as it is.
///
/// `char::escape_debug` escapes control and format characters, line and paragraph separators, blanks
/// other than the space, combining marks, and private and unassigned characters. This function adds
/// letters and symbols that are drawn as empty space.
pub fn is_printable(c: char) -> bool {
    matches!(c, ' '..='~') || (!looks_blank(c) && c.escape_debug().len() == 1)
}

/// Returns whether a letter or symbol is drawn as empty space.
fn looks_blank(c: char) -> bool {
    matches!(
        c,
        // Hangul fillers.
        '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}'
        // Braille pattern blank, musical null notehead, Egyptian blanks.
        | '\u{2800}' | '\u{1d159}' | '\u{13441}' | '\u{13442}'
    )
}

/// Returns the text with every unprintable character replaced by its escape, such as `\n` or
/// `\u{202e}`.
pub fn printable(text: &str) -> Cow<'_, str> {
    match text.chars().all(is_printable) {
        true => Cow::Borrowed(text),
        false => Cow::Owned(Printable(text).to_string()),
    }
}

/// Displays as [`printable`] does.
pub struct Printable<'a>(pub &'a str);

impl Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .chars()
            .flat_map(escaped)
            .try_for_each(|c| f.write_char(c))
    }
}

/// Returns the character itself, or its escape if it is not printable.
pub fn escaped(c: char) -> impl Iterator<Item = char> {
    let itself = is_printable(c).then_some(c);
    let blank = (itself.is_none() && looks_blank(c)).then(|| c.escape_unicode());
    let other = (itself.is_none() && blank.is_none()).then(|| c.escape_debug());
    let escape = blank
        .into_iter()
        .flatten()
        .chain(other.into_iter().flatten());
    iter::chain(itself, escape)
}

/// Compact JSON that is safe to show in a terminal. A parser reads back exactly the strings that
/// were written.
///
/// JSON requires escapes only for characters below U+0020. A thread name may contain U+009B, which
/// some terminals take for ESC [. Therefore every unprintable character is escaped.
pub struct Exact;

impl Formatter for Exact {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + Write,
    {
        fragments(writer, fragment, |writer, c| {
            let mut units = [0; 2];
            c.encode_utf16(&mut units)
                .iter()
                .try_for_each(|unit| write!(writer, "\\u{unit:04x}"))
        })
    }
}

/// Compact JSON for a program that shows the strings to people. An unprintable character is written
/// as the text of its escape, such as `\n`. The reading program then shows the escape and not the
/// character.
pub struct Shown;

impl Formatter for Shown {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + Write,
    {
        fragments(writer, fragment, as_text)
    }

    fn write_char_escape<W>(&mut self, writer: &mut W, escape: CharEscape) -> io::Result<()>
    where
        W: ?Sized + Write,
    {
        let c = match escape {
            CharEscape::Quote => return writer.write_all(b"\\\""),
            CharEscape::ReverseSolidus => return writer.write_all(b"\\\\"),
            CharEscape::Solidus => return writer.write_all(b"/"),
            CharEscape::Backspace => '\u{8}',
            CharEscape::FormFeed => '\u{c}',
            CharEscape::LineFeed => '\n',
            CharEscape::CarriageReturn => '\r',
            CharEscape::Tab => '\t',
            CharEscape::AsciiControl(byte) => char::from(byte),
        };
        as_text(writer, c)
    }
}

/// Writes the escape of a character as text within a JSON string.
fn as_text<W: ?Sized + Write>(writer: &mut W, c: char) -> io::Result<()> {
    let text: String = escaped(c).collect();
    writer.write_all(text.replace('\\', "\\\\").as_bytes())
}

/// Writes a string, and calls `escape` for each unprintable character in it.
fn fragments<W: ?Sized + Write>(
    writer: &mut W,
    fragment: &str,
    escape: impl Fn(&mut W, char) -> io::Result<()>,
) -> io::Result<()> {
    // Nearly every string takes this path.
    if fragment.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return writer.write_all(fragment.as_bytes());
    }
    let mut rest = fragment;
    while let Some(at) = rest.find(|c| !is_printable(c)) {
        writer.write_all(&rest.as_bytes()[..at])?;
        let mut chars = rest[at..].chars();
        if let Some(c) = chars.next() {
            escape(writer, c)?;
        }
        rest = chars.as_str();
    }
    writer.write_all(rest.as_bytes())
}

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::*;

    /// One character of every kind that must not be shown as it is.
    const HOSTILE: &str = "\x1b[31m\n\r\t\u{0}\u{7f}\u{9b}\u{ad}\u{200b}\u{200e}\u{202e}\u{2028}\
        \u{2029}\u{2060}\u{2066}\u{feff}\u{a0}\u{3000}\u{115f}\u{1160}\u{3164}\u{ffa0}\u{2800}\u{338}\
        \u{fe0f}\u{e000}\u{e0041}\u{10ffff}";

    #[test]
    fn printable_escapes_every_hostile_character() {
        let shown = printable(HOSTILE);
        assert!(shown.chars().all(|c| matches!(c, ' '..='~')), "{shown}");
        for part in [
            "\\u{1b}[31m\\n",
            "\\u{202e}",
            "\\u{3164}",
            "\\u{2800}",
            "\\u{feff}",
        ] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
    }

    #[test]
    fn printable_keeps_visible_text_of_any_script() {
        for text in [
            "a 'plain' \"name\" \\ ~",
            "été",
            "→ µs ≈ …",
            "日本語",
            "שרת",
            "сервер",
            "🦀",
        ] {
            assert_eq!(printable(text), text);
        }
    }

    fn json(formatter: impl Formatter, text: &str) -> String {
        let mut out = vec![];
        let mut to = serde_json::Serializer::with_formatter(&mut out, formatter);
        text.serialize(&mut to).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn exact_json_reads_back_and_shown_json_reads_as_it_is_shown() {
        for text in [HOSTILE, "été\"\\/"] {
            let (exact, shown) = (json(Exact, text), json(Shown, text));
            assert!(exact.chars().chain(shown.chars()).all(is_printable));
            assert_eq!(serde_json::from_str::<String>(&exact).unwrap(), text);
            assert_eq!(
                serde_json::from_str::<String>(&shown).unwrap(),
                printable(text)
            );
        }
    }
}
