//! Writer of pcapng blocks, in little-endian order.
//!
//! It is hand-written, because the format consists of a few integers, and the crate pcap-file has
//! had no release since 2022.

use std::io::{self, Write};

use crate::event::Direction;
use crate::printable::printable;

/// LINKTYPE_RAW: packets begin with their IP header.
const RAW_IP: u16 = 101;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const ENHANCED_PACKET: u32 = 6;

const OPT_COMMENT: u16 = 1;
const SHB_OS: u16 = 3;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;

const ABOUT: &str = "tcptrace rebuilt the IP and TCP headers from recorded fields. Addresses, ports, \
 sequence numbers, flags and window are real; options and payload were not recorded, and TTL and \
 identification are invented. The TCP checksum is 0 if there was payload.";

pub struct Blocks<W> {
    out: W,
    /// Content of the current block.
    body: Vec<u8>,
}

impl<W: Write> Blocks<W> {
    pub fn new(out: W) -> Blocks<W> {
        Blocks { out, body: vec![] }
    }

    pub fn section(&mut self, application: &str, os: &str) -> io::Result<()> {
        self.body.extend(0x1a2b_3c4d_u32.to_le_bytes());
        self.body.extend(1_u16.to_le_bytes());
        self.body.extend(0_u16.to_le_bytes());
        // The length of the section is unknown.
        self.body.extend(u64::MAX.to_le_bytes());
        self.text(OPT_COMMENT, ABOUT);
        self.text(SHB_OS, os);
        self.text(SHB_USERAPPL, application);
        self.end(SECTION_HEADER)
    }

    /// Writes an interface block. The first interface has number 0.
    pub fn interface(&mut self, name: &str) -> io::Result<()> {
        self.body.extend(RAW_IP.to_le_bytes());
        self.body.extend(0_u16.to_le_bytes());
        // No limit on the length of packets.
        self.body.extend(0_u32.to_le_bytes());
        self.text(IF_NAME, name);
        // The resolution is nanoseconds.
        self.option(IF_TSRESOL, &[9]);
        self.end(INTERFACE)
    }

    /// Writes a packet. `length` includes the payload, which was not recorded.
    pub fn packet(
        &mut self,
        interface: u32,
        wall_ns: u64,
        bytes: &[u8],
        length: u32,
        direction: Direction,
        comment: Option<&str>,
    ) -> io::Result<()> {
        self.body.extend(interface.to_le_bytes());
        self.body.extend(((wall_ns >> 32) as u32).to_le_bytes());
        self.body.extend((wall_ns as u32).to_le_bytes());
        self.body.extend((bytes.len() as u32).to_le_bytes());
        self.body.extend(length.to_le_bytes());
        self.padded(bytes);
        if let Some(comment) = comment {
            self.text(OPT_COMMENT, comment);
        }
        let direction: u32 = match direction {
            Direction::Received => 1,
            Direction::Sent => 2,
        };
        self.option(EPB_FLAGS, &direction.to_le_bytes());
        self.end(ENHANCED_PACKET)
    }

    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Writes a text option, with control characters escaped. A text beyond the maximum length is
    /// truncated.
    fn text(&mut self, code: u16, text: &str) {
        let text = printable(text);
        let most = text.floor_char_boundary(u16::MAX.into());
        self.option(code, &text.as_bytes()[..most]);
    }

    /// Writes an option. The value has at most [`u16::MAX`] bytes.
    fn option(&mut self, code: u16, value: &[u8]) {
        self.body.extend(code.to_le_bytes());
        self.body.extend((value.len() as u16).to_le_bytes());
        self.padded(value);
    }

    fn padded(&mut self, bytes: &[u8]) {
        self.body.extend(bytes);
        let padding = bytes.len().next_multiple_of(4) - bytes.len();
        self.body.extend(&[0; 3][..padding]);
    }

    /// Ends the options and writes the block.
    fn end(&mut self, kind: u32) -> io::Result<()> {
        self.body.extend([0; 4]);
        let length = (self.body.len() as u32 + 12).to_le_bytes();
        self.out.write_all(&kind.to_le_bytes())?;
        self.out.write_all(&length)?;
        self.out.write_all(&self.body)?;
        self.body.clear();
        self.out.write_all(&length)
    }
}
