//! Names of threads and processes (`comm`).

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use crate::printable::escaped;

/// A thread's name: at most 15 bytes, chosen by its owner, so possibly hostile
/// (`task_struct.comm`).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, JsonSchema)]
#[schemars(transparent, inline)]
pub struct Comm(#[schemars(with = "String")] [u8; 16]);

impl Comm {
    /// Makes a name of the bytes before the first NUL.
    #[inline]
    pub fn new(bytes: [u8; 16]) -> Comm {
        let end = end_of(bytes);
        // Half of all records have a name. Masking it as one number needs no loop.
        let kept = u128::MAX.checked_shr(128 - 8 * end).unwrap_or(0);
        Comm((u128::from_le_bytes(bytes) & kept).to_le_bytes())
    }

    /// Returns the bytes before the first NUL.
    pub fn bytes(&self) -> &[u8] {
        &self.0[..end_of(self.0) as usize]
    }

    /// Returns the name if it can be shown as it is. Nearly all names can.
    pub fn plain(&self) -> Option<&str> {
        let bytes = self.bytes();
        let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && *byte != b'\\';
        str::from_utf8(bytes)
            .ok()
            .filter(|_| bytes.iter().all(is_plain))
    }
}

/// Returns the index of the first NUL, or 16.
#[inline]
fn end_of(bytes: [u8; 16]) -> u32 {
    const LOW: u128 = u128::from_le_bytes([0x01; 16]);
    const HIGH: u128 = u128::from_le_bytes([0x80; 16]);
    let number = u128::from_le_bytes(bytes);
    // The lowest bit that is set is the high bit of the first byte that is 0.
    let nul = number.wrapping_sub(LOW) & !number & HIGH;
    nul.trailing_zeros() / 8
}

impl From<&str> for Comm {
    /// Cuts the name after 15 bytes, as the kernel does.
    fn from(name: &str) -> Comm {
        let mut bytes = [0; 16];
        let n = name.len().min(15);
        bytes[..n].copy_from_slice(&name.as_bytes()[..n]);
        Comm(bytes)
    }
}

/// Escapes every character that is not printable, so that a terminal cannot be controlled.
impl fmt::Display for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        if let Some(plain) = self.plain() {
            return f.write_str(plain);
        }
        String::from_utf8_lossy(self.bytes())
            .chars()
            .try_for_each(|c| match c {
                '\\' => f.write_str("\\\\"),
                _ => escaped(c).try_for_each(|c| f.write_char(c)),
            })
    }
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Comm({self})")
    }
}

/// The name with invalid UTF-8 replaced. JSON does its own escaping.
impl Serialize for Comm {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.plain() {
            Some(plain) => serializer.serialize_str(plain),
            None => serializer.serialize_str(&String::from_utf8_lossy(self.bytes())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comm_ends_at_the_first_nul() {
        for end in 0..=16 {
            let mut bytes = [b'\x01'; 16];
            bytes[end..].fill(b'x');
            if let Some(nul) = bytes.get_mut(end) {
                *nul = 0;
            }
            let comm = Comm::new(bytes);
            assert_eq!(comm.bytes(), &bytes[..end]);
            assert!(comm.0[end..].iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn display_escapes_only_unprintable_characters() {
        for (name, shown) in [
            ("a plain 'name'~", "a plain 'name'~"),
            ("\u{e9}t\u{e9}", "\u{e9}t\u{e9}"),
            ("a\\b", "a\\\\b"),
            ("\x1b[31m\"", "\\u{1b}[31m\""),
            ("\u{3164}", "\\u{3164}"),
        ] {
            assert_eq!(Comm::from(name).to_string(), shown);
        }
    }
}
