//! JSON that a terminal can show.

use std::io::{self, Write};

use serde_json::ser::Formatter;

/// Compact JSON that is safe to look at in a terminal.
///
/// JSON itself only demands that characters below U+0020 are escaped. A thread may have named
/// itself with U+009B, which some terminals take for ESC [, so whatever is not printable is
/// escaped too. A parser reads the same string either way.
pub struct Printable;

impl Formatter for Printable {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + Write,
    {
        // Nearly always.
        if fragment.bytes().all(|byte| byte <= b'~') {
            return writer.write_all(fragment.as_bytes());
        }
        let mut rest = fragment;
        while let Some(at) = rest.find(unprintable) {
            writer.write_all(&rest.as_bytes()[..at])?;
            let mut chars = rest[at..].chars();
            for unit in chars.next().into_iter().flat_map(utf16) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

/// Whether the standard library would escape this character in a Debug string. Quotes and
/// backslashes never come here: serde_json has escaped them.
pub fn unprintable(c: char) -> bool {
    c > '~' && c.escape_debug().len() > 1
}

/// JSON escapes UTF-16 code units.
fn utf16(c: char) -> impl Iterator<Item = u16> {
    let mut units = [0; 2];
    let n = c.encode_utf16(&mut units).len();
    units.into_iter().take(n)
}
