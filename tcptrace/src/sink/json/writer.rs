//! A fast JSON serializer for lines. Its output equals serde_json's.
//!
//! A line has about forty short fields. serde_json searches every name for characters to escape,
//! which takes longer than everything else. Names of fields and variants are constants of this
//! program and need no search. A name is written in one piece with its quotes, its colon and the
//! comma before it. A string is searched once; serde_json handles strings that need escapes.

use serde::ser::{
    Error as _, Impossible, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeTuple,
    Serializer,
};
use serde_json::Error;

use crate::printable::Exact;

/// Writes one value.
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
    /// The value is the name of a field.
    is_name: bool,
}

/// The content of an object or an array. Each element is written with a comma before it. At the end
/// the first comma is replaced by the opening bracket.
pub struct Inside<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    brackets: [u8; 2],
}

impl<'a> Writer<'a> {
    pub fn new(out: &'a mut Vec<u8>) -> Writer<'a> {
        Writer {
            out,
            is_name: false,
        }
    }

    /// Starts the name of a field, with the comma before it.
    fn of_name(out: &'a mut Vec<u8>) -> Writer<'a> {
        Writer { out, is_name: true }
    }

    fn inside(self, brackets: &[u8; 2]) -> Inside<'a> {
        Inside {
            start: self.out.len(),
            out: self.out,
            brackets: *brackets,
        }
    }

    /// Writes a string that is known to need no escapes.
    #[inline(always)]
    fn quoted(self, plain: &str) {
        match self.is_name {
            true => append(self.out, b",\"", plain, b"\":"),
            false => append(self.out, b"\"", plain, b"\""),
        }
    }

    #[inline(always)]
    fn integer(self, digits: impl itoa::Integer) -> Result<(), Error> {
        let mut buffer = itoa::Buffer::new();
        self.out.extend_from_slice(buffer.format(digits).as_bytes());
        Ok(())
    }

    /// Returns an error for a type that lines do not contain.
    fn unexpected<T>(self, what: &str) -> Result<T, Error> {
        Err(Error::custom(format_args!("no line has {what}")))
    }
}

impl Inside<'_> {
    fn close(self) -> Result<(), Error> {
        let [open, close] = self.brackets;
        match self.out.get_mut(self.start) {
            Some(comma) => *comma = open,
            None => self.out.push(open),
        }
        self.out.push(close);
        Ok(())
    }
}

impl<'a> Serializer for Writer<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Inside<'a>;
    type SerializeTuple = Inside<'a>;
    type SerializeTupleStruct = Impossible<(), Error>;
    type SerializeTupleVariant = Impossible<(), Error>;
    type SerializeMap = Inside<'a>;
    type SerializeStruct = Inside<'a>;
    type SerializeStructVariant = Impossible<(), Error>;

    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        let word: &[u8] = if value { b"true" } else { b"false" };
        self.out.extend_from_slice(word);
        Ok(())
    }

    fn serialize_i8(self, value: i8) -> Result<(), Error> {
        self.integer(value)
    }

    fn serialize_i16(self, value: i16) -> Result<(), Error> {
        self.integer(value)
    }

    fn serialize_i32(self, value: i32) -> Result<(), Error> {
        self.integer(value)
    }

    fn serialize_i64(self, value: i64) -> Result<(), Error> {
        self.integer(value)
    }

    fn serialize_u8(self, value: u8) -> Result<(), Error> {
        self.integer(value)
    }

    fn serialize_u16(self, value: u16) -> Result<(), Error> {
        self.integer(value)
    }

    fn serialize_u32(self, value: u32) -> Result<(), Error> {
        self.integer(value)
    }

    fn serialize_u64(self, value: u64) -> Result<(), Error> {
        self.integer(value)
    }

    fn serialize_f32(self, _: f32) -> Result<(), Error> {
        self.unexpected("fractions")
    }

    fn serialize_f64(self, _: f64) -> Result<(), Error> {
        self.unexpected("fractions")
    }

    fn serialize_char(self, value: char) -> Result<(), Error> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    #[inline(always)]
    fn serialize_str(self, value: &str) -> Result<(), Error> {
        if is_plain(value) {
            self.quoted(value);
            return Ok(());
        }
        if self.is_name {
            self.out.push(b',');
        }
        serde_json::Serializer::with_formatter(&mut *self.out, Exact).serialize_str(value)?;
        if self.is_name {
            self.out.push(b':');
        }
        Ok(())
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<(), Error> {
        self.unexpected("bytes")
    }

    #[inline(always)]
    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }

    #[inline(always)]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    #[inline(always)]
    fn serialize_unit(self) -> Result<(), Error> {
        self.out.extend_from_slice(b"null");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        self.serialize_unit()
    }

    #[inline(always)]
    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), Error> {
        self.quoted(variant);
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Error> {
        self.unexpected("variants with values")
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Inside<'a>, Error> {
        Ok(self.inside(b"[]"))
    }

    fn serialize_tuple(self, _: usize) -> Result<Inside<'a>, Error> {
        Ok(self.inside(b"[]"))
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, Error> {
        self.unexpected("tuple structs")
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Error> {
        self.unexpected("variants with values")
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Inside<'a>, Error> {
        Ok(self.inside(b"{}"))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Inside<'a>, Error> {
        Ok(self.inside(b"{}"))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Error> {
        self.unexpected("variants with values")
    }
}

/// Appends three pieces with a single capacity check.
#[inline(always)]
fn append<const B: usize, const A: usize>(
    out: &mut Vec<u8>,
    before: &[u8; B],
    text: &str,
    after: &[u8; A],
) {
    let len = B + text.len() + A;
    out.reserve(len);
    let spare = out.spare_capacity_mut();
    let (a, rest) = spare.split_at_mut(B);
    let (b, rest) = rest.split_at_mut(text.len());
    a.write_copy_of_slice(before);
    b.write_copy_of_slice(text.as_bytes());
    rest[..A].write_copy_of_slice(after);
    // SAFETY: the lines above have initialized `len` bytes.
    unsafe { out.set_len(out.len() + len) };
}

/// Returns true if a string needs no escapes in JSON and on a terminal.
fn is_plain(text: &str) -> bool {
    // The program's own sentences contain `µ` in durations, and arrows.
    let mut others = text.split('µ').flat_map(|it| it.split('→'));
    is_plain_ascii(text) || others.all(is_plain_ascii)
}

fn is_plain_ascii(text: &str) -> bool {
    // No early exit, so that the compiler can vectorize the loop.
    let plain = |byte| matches!(byte, b' '..=b'~') & (byte != b'"') & (byte != b'\\');
    text.bytes().fold(true, |all, byte| all & plain(byte))
}

impl SerializeSeq for Inside<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.out.push(b',');
        value.serialize(Writer::new(self.out))
    }

    fn end(self) -> Result<(), Error> {
        self.close()
    }
}

impl SerializeTuple for Inside<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<(), Error> {
        self.close()
    }
}

impl SerializeStruct for Inside<'_> {
    type Ok = ();
    type Error = Error;

    #[inline(always)]
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        Writer::of_name(self.out).quoted(name);
        value.serialize(Writer::new(self.out))
    }

    fn end(self) -> Result<(), Error> {
        self.close()
    }
}

/// A struct with `#[serde(flatten)]` is serialized as a map with field names as keys. The keys of a
/// real map may be arbitrary text, such as the names of filters in a recording.
impl SerializeMap for Inside<'_> {
    type Ok = ();
    type Error = Error;

    #[inline(always)]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        key.serialize(Writer::of_name(self.out))
    }

    #[inline(always)]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        value.serialize(Writer::new(self.out))
    }

    fn end(self) -> Result<(), Error> {
        self.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::{Line, Stamped};
    use crate::sink::samples;

    /// Returns the output of both serializers for a line's fields.
    fn both(line: &impl Serialize) -> [String; 2] {
        let stamped = Stamped {
            event: "x",
            ts: "2026-03-01T14:03:07.123456789Z",
            line,
        };
        let mut own = vec![];
        stamped.serialize(Writer::new(&mut own)).unwrap();
        let theirs = serde_json::to_string(&stamped).unwrap();
        [String::from_utf8(own).unwrap(), theirs]
    }

    #[test]
    fn output_equals_that_of_serde_json() {
        for line in samples::all() {
            let [own, theirs] = match &line {
                Line::Session(x) => both(x),
                Line::Preexisting(x) => both(x),
                Line::Transition(x) => both(x),
                Line::Accept(x) => both(x),
                Line::Overflow(x) => both(x),
                Line::Segment(x) => both(x),
                Line::Connection(x) => both(x),
                Line::Retransmit(x) => both(x),
                Line::Reset(x) => both(x),
                Line::TimeWait(x) => both(x),
                Line::Histogram(x) => both(x),
                Line::Stack(x) => both(x),
                Line::Lost(x) => both(x),
                Line::Summary(x) => both(x),
            };
            assert_eq!(own, theirs);
        }
    }

    #[test]
    fn empty_objects_and_arrays_have_no_comma() {
        use std::collections::BTreeMap;
        let value: BTreeMap<&str, Vec<Vec<u32>>> = [
            ("none", vec![]),
            ("empty", vec![vec![], vec![1, 2], vec![]]),
        ]
        .into();
        let mut own = vec![];
        value.serialize(Writer::new(&mut own)).unwrap();
        assert_eq!(own, serde_json::to_vec(&value).unwrap());
        let nothing = BTreeMap::<&str, u32>::new();
        nothing.serialize(Writer::new(&mut own)).unwrap();
        assert!(own.ends_with(b"{}"));
    }

    #[test]
    fn special_characters_are_escaped_and_read_back() {
        for text in [
            "a \"quote\"",
            "back\\slash",
            "\u{1b}[31m",
            "\u{9b}31m",
            "naïve ✓",
            "12 µs",
            "SYN_RECV→ESTABLISHED",
            "12 µs \u{9b}31m",
            "a→\"b\"",
            "",
        ] {
            let mut own = vec![];
            text.serialize(Writer::new(&mut own)).unwrap();
            let read: String = serde_json::from_slice(&own).unwrap();
            assert_eq!(read, text);
            let printed = String::from_utf8(own).unwrap();
            assert!(!printed.contains(char::is_control), "{printed}");
        }
    }
}
