//! One TCP segment.

use std::fmt;
use std::net::Ipv4Addr;

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TcpHeader, TransportSlice};

/// TTL of the peer's packets.
pub(super) const TTL: u8 = 64;

/// The fields of a segment that scripts read or set. It has no options: no timestamps, no SACK.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    pub from: u16,
    pub to: u16,
    pub syn: bool,
    pub fin: bool,
    pub rst: bool,
    pub seq: u32,
    /// `None` without the ACK flag.
    pub ack: Option<u32>,
    pub window: u16,
    pub data: Vec<u8>,
}

impl Segment {
    /// Number of sequence numbers that the segment occupies. SYN and FIN occupy one each.
    pub fn len(&self) -> u32 {
        self.data.len() as u32 + u32::from(self.syn) + u32::from(self.fin)
    }

    /// Whether the segment occupies no sequence number, like a pure ACK.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sequence number after the segment. An ACK of the whole segment has this number.
    pub fn end(&self) -> u32 {
        self.seq.wrapping_add(self.len())
    }

    /// Builds the IPv4 packet of the segment, with checksums.
    pub(super) fn packet(&self, from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
        let mut header = TcpHeader::new(self.from, self.to, self.seq, self.window);
        header.syn = self.syn;
        header.fin = self.fin;
        header.rst = self.rst;
        header.psh = !self.data.is_empty();
        header.ack = self.ack.is_some();
        header.acknowledgment_number = self.ack.unwrap_or(0);
        let mut packet = Vec::new();
        PacketBuilder::ipv4(from.octets(), to.octets(), TTL)
            .tcp_header(header)
            .write(&mut packet, &self.data)
            .expect("a Vec takes everything");
        packet
    }

    /// Parses the TCP segment in a packet for this address. Checksums are ignored: the kernel
    /// leaves them unset on the loopback interface.
    pub(super) fn parse(packet: &[u8], to: Ipv4Addr) -> Option<Segment> {
        let sliced = SlicedPacket::from_ip(packet).ok()?;
        let NetSlice::Ipv4(ip) = sliced.net? else {
            return None;
        };
        let TransportSlice::Tcp(tcp) = sliced.transport? else {
            return None;
        };
        (ip.header().destination_addr() == to).then(|| Segment {
            from: tcp.source_port(),
            to: tcp.destination_port(),
            syn: tcp.syn(),
            fin: tcp.fin(),
            rst: tcp.rst(),
            seq: tcp.sequence_number(),
            ack: tcp.ack().then(|| tcp.acknowledgment_number()),
            window: tcp.window_size(),
            data: tcp.payload().to_vec(),
        })
    }
}

impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} → {}", self.from, self.to)?;
        let flags = [
            (self.syn, "SYN"),
            (self.fin, "FIN"),
            (self.rst, "RST"),
            (self.ack.is_some(), "ACK"),
        ];
        for (_, name) in flags.iter().filter(|(set, _)| *set) {
            write!(f, " {name}")?;
        }
        write!(f, " seq {}", self.seq)?;
        if let Some(ack) = self.ack {
            write!(f, " ack {ack}")?;
        }
        write!(f, " data {} window {}", self.data.len(), self.window)
    }
}
