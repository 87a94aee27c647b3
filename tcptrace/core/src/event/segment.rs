//! A TCP segment on the wire.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Direction, Sk, Tuple};

/// A segment passed a network device: SYN, FIN, RST, or the first ACK of a SYN-ACK or FIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub direction: Direction,
    /// The socket that sent the segment (`skb->sk`). `None` for a received segment, and for one without
    /// a socket, such as the RST of a closed port.
    pub sk: Option<Sk>,
    /// True if a half-open connection (a request socket) of this host sent the segment.
    pub from_half_open: bool,
    /// Inode of the device's network namespace.
    pub netns: u32,
    /// The device's index in that namespace.
    pub ifindex: u32,
    /// Local address first: the sender's for a sent segment, the receiver's for a received one.
    pub tuple: Tuple,
    pub flags: TcpFlags,
    /// The sequence number.
    pub seq: u32,
    /// `None` without the ACK flag, because the header's field has no meaning then.
    pub ack: Option<u32>,
    /// Bytes of payload.
    pub len: u32,
    /// The window field of the header, not scaled.
    pub window: u16,
}

/// The control bits of a TCP header (RFC 9293 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, JsonSchema)]
#[schemars(transparent, inline)]
pub struct TcpFlags(#[schemars(with = "String")] pub u8);

impl TcpFlags {
    pub const SYN: TcpFlags = TcpFlags(1 << 1);
    pub const ACK: TcpFlags = TcpFlags(1 << 4);

    /// tcpdump's letters from the lowest bit: FIN, SYN, RST, PSH, ACK, URG, ECE, CWR.
    const LETTERS: [char; 8] = ['F', 'S', 'R', 'P', '.', 'U', 'E', 'W'];

    /// Returns whether one of the bits of `flag` is set.
    pub fn has(self, flag: TcpFlags) -> bool {
        self.0 & flag.0 != 0
    }
}

/// Written as tcpdump prints flags: `S`, `S.`, `.`, `F.`, `R`.
impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.pad("none");
        }
        let letters = TcpFlags::LETTERS.into_iter().enumerate();
        let set = letters.filter(|(bit, _)| self.0 >> bit & 1 != 0);
        f.pad(&set.map(|(_, letter)| letter).collect::<String>())
    }
}

impl Serialize for TcpFlags {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads tcpdump's letters; the inverse of `Display`.
impl FromStr for TcpFlags {
    type Err = String;

    fn from_str(text: &str) -> Result<TcpFlags, String> {
        if text == "none" {
            return Ok(TcpFlags(0));
        }
        let bits = text.chars().map(|letter| {
            let bit = TcpFlags::LETTERS.iter().position(|&it| it == letter);
            bit.ok_or_else(|| format!("no TCP flag has the letter {letter:?}"))
        });
        bits.into_iter()
            .try_fold(0, |set, bit| Ok(set | 1 << bit?))
            .map(TcpFlags)
    }
}

impl<'de> Deserialize<'de> for TcpFlags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TcpFlags, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_printed_as_tcpdump_prints_them() {
        for (bits, text) in [
            (0x02, "S"),
            (0x12, "S."),
            (0xc2, "SEW"),
            (0x10, "."),
            (0x11, "F."),
            (0x19, "FP."),
            (0x18, "P."),
            (0x04, "R"),
            (0x14, "R."),
            (0x30, ".U"),
            (0x00, "none"),
        ] {
            assert_eq!(TcpFlags(bits).to_string(), text);
            assert_eq!(text.parse(), Ok(TcpFlags(bits)));
        }
        assert_eq!(format!("{:<3}|", TcpFlags::SYN), "S  |");
        assert!("SX".parse::<TcpFlags>().unwrap_err().contains('X'));
    }
}
