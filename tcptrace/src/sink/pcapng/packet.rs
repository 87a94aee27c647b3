//! Rebuilds the IP and TCP headers of a segment.

use std::net::IpAddr;

use etherparse::{IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, TcpHeader};

use crate::event::{Direction, TcpFlags};
use crate::fields::Segment;

/// Linux's default TTL.
const TTL: u8 = 64;

/// Returns an IP and a TCP header, or `None` if an address or a port is unknown.
pub fn headers(x: &Segment) -> Option<Vec<u8>> {
    let own = (x.subject.laddr, x.subject.lport?);
    let peer = (x.subject.raddr?, x.subject.rport?);
    let (from, to) = match x.direction {
        Direction::Sent => (own, peer),
        Direction::Received => (peer, own),
    };
    let mut tcp = TcpHeader::new(from.1, to.1, x.seq, x.win);
    let [fin, syn, rst, psh, ack, urg, ece, cwr] =
        std::array::from_fn(|bit| x.flags.has(TcpFlags(1 << bit)));
    (tcp.fin, tcp.syn, tcp.rst, tcp.psh) = (fin, syn, rst, psh);
    (tcp.ack, tcp.urg, tcp.ece, tcp.cwr) = (ack, urg, ece, cwr);
    tcp.acknowledgment_number = x.ack.unwrap_or(0);
    let length = tcp.header_len_u16().checked_add(u16::try_from(x.len).ok()?);
    let mut bytes = vec![];
    match (from.0, to.0) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            // Offloaded segments may exceed the maximum IPv4 length. Wireshark accepts 0 for them.
            let ip = length.and_then(|length| {
                Ipv4Header::new(length, TTL, IpNumber::TCP, from.octets(), to.octets()).ok()
            });
            let mut ip = match ip {
                Some(ip) => ip,
                None => Ipv4Header {
                    total_len: 0,
                    ..Ipv4Header::new(0, TTL, IpNumber::TCP, from.octets(), to.octets()).ok()?
                },
            };
            ip.header_checksum = ip.calc_header_checksum();
            if x.len == 0 {
                tcp.checksum = tcp.calc_checksum_ipv4(&ip, &[]).ok()?;
            }
            ip.write(&mut bytes).ok()?;
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let ip = Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: length.unwrap_or(0),
                next_header: IpNumber::TCP,
                hop_limit: TTL,
                source: from.octets(),
                destination: to.octets(),
            };
            if x.len == 0 {
                tcp.checksum = tcp.calc_checksum_ipv6(&ip, &[]).ok()?;
            }
            ip.write(&mut bytes).ok()?;
        }
        _ => return None,
    }
    tcp.write(&mut bytes).ok()?;
    Some(bytes)
}
