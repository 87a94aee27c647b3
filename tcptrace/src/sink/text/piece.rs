//! The parts of a row. [`Piece`] is like `Display`, but without `std::fmt`, which takes several
//! times as long for most parts.

use std::fmt::{self, Write};
use std::net::IpAddr;

use crate::duration::Human;
use crate::event::{Comm, State};
use crate::printable::escaped;

pub trait Piece {
    fn put(&self, to: &mut Vec<u8>);

    /// Returns this piece as a string of its own.
    fn text(&self) -> String {
        let mut text = vec![];
        self.put(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// A constant of this program needs no escaping. All other text must be [`Said`].
impl Piece for &'static str {
    #[inline(always)]
    fn put(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(self.as_bytes());
    }
}

/// Text that this program has made from numbers and constants. It is not escaped.
pub struct Known<'a>(pub &'a str);

impl Piece for Known<'_> {
    fn put(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(self.0.as_bytes());
    }
}

/// Text from elsewhere. Unprintable characters are escaped.
pub struct Said<'a>(pub &'a str);

impl Piece for Said<'_> {
    fn put(&self, to: &mut Vec<u8>) {
        let _ = Printable(to).write_str(self.0);
    }
}

impl Piece for String {
    fn put(&self, to: &mut Vec<u8>) {
        Said(self).put(to);
    }
}

/// For rare parts: it uses `std::fmt`.
impl Piece for fmt::Arguments<'_> {
    fn put(&self, to: &mut Vec<u8>) {
        let _ = Printable(to).write_fmt(*self);
    }
}

/// A process chooses its threads' names, so they may need escaping.
impl Piece for Comm {
    fn put(&self, to: &mut Vec<u8>) {
        match self.plain() {
            Some(name) => Known(name).put(to),
            None => format_args!("{self}").put(to),
        }
    }
}

impl Piece for Human {
    fn put(&self, to: &mut Vec<u8>) {
        let _ = self.write(&mut Unchecked(to));
    }
}

impl Piece for State {
    fn put(&self, to: &mut Vec<u8>) {
        self.name().put(to);
    }
}

impl Piece for IpAddr {
    fn put(&self, to: &mut Vec<u8>) {
        match self {
            IpAddr::V4(addr) => {
                let [a, b, c, d] = addr.octets();
                (a, ".", b, (".", c, ".", d)).put(to);
            }
            IpAddr::V6(addr) => format_args!("{addr}").put(to),
        }
    }
}

macro_rules! numbers {
    ($($number:ty),*) => {
        $(impl Piece for $number {
            fn put(&self, to: &mut Vec<u8>) {
                to.extend_from_slice(itoa::Buffer::new().format(*self).as_bytes());
            }
        })*
    };
}

numbers!(u8, u16, u32, u64, i32);

impl<P: Piece> Piece for Option<P> {
    fn put(&self, to: &mut Vec<u8>) {
        if let Some(piece) = self {
            piece.put(to);
        }
    }
}

impl<A: Piece, B: Piece> Piece for (A, B) {
    #[inline]
    fn put(&self, to: &mut Vec<u8>) {
        self.0.put(to);
        self.1.put(to);
    }
}

impl<A: Piece, B: Piece, C: Piece> Piece for (A, B, C) {
    #[inline]
    fn put(&self, to: &mut Vec<u8>) {
        self.0.put(to);
        self.1.put(to);
        self.2.put(to);
    }
}

impl<A: Piece, B: Piece, C: Piece, D: Piece> Piece for (A, B, C, D) {
    #[inline]
    fn put(&self, to: &mut Vec<u8>) {
        self.0.put(to);
        self.1.put(to);
        self.2.put(to);
        self.3.put(to);
    }
}

struct Unchecked<'a>(&'a mut Vec<u8>);

impl fmt::Write for Unchecked<'_> {
    #[inline]
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.0.extend_from_slice(s.as_bytes());
        Ok(())
    }
}

/// Escapes unprintable characters.
struct Printable<'a>(&'a mut Vec<u8>);

impl fmt::Write for Printable<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let Printable(to) = self;
        let mut rest = s;
        while let Some(at) = rest.bytes().position(|b| !matches!(b, b' '..=b'~')) {
            to.extend_from_slice(&rest.as_bytes()[..at]);
            let mut chars = rest[at..].chars();
            match chars.next() {
                // Characters that this program's own texts contain.
                Some(own @ ('→' | '←' | '⇄' | 'µ' | '≈' | '…' | '−')) => {
                    to.extend_from_slice(own.encode_utf8(&mut [0; 4]).as_bytes());
                }
                Some(c) => escaped(c).for_each(|c| {
                    to.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }),
                None => {}
            }
            rest = chars.as_str();
        }
        to.extend_from_slice(rest.as_bytes());
        Ok(())
    }
}
