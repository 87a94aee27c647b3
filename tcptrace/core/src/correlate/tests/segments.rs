//! Tests of segments: their connections, relative sequence numbers, and repeats at other devices.

use super::*;
use crate::event::{Direction, Segment, TcpFlags};
use crate::fields::Source;

pub const SYN: u8 = 0x02;
const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;
const FIN: u8 = 0x01;
/// Initial sequence numbers. The client's wraps around within the handshake.
const CLIENT: u32 = u32::MAX;
const SERVER: u32 = 5_000;
const LO: u32 = 1;

/// Returns a segment that `sock` sends on the loopback device.
pub fn sent(sock: &Sock, flags: u8, seq: u32, ack: u32) -> Segment {
    Segment {
        direction: Direction::Sent,
        sk: Some(sock.sk),
        from_half_open: false,
        netns: NETNS,
        ifindex: LO,
        tuple: sock.tuple,
        flags: TcpFlags(flags),
        seq,
        ack: (flags & ACK != 0).then_some(ack),
        len: 0,
        window: 64,
    }
}

/// Returns the same segment as the peer receives it.
pub fn received(segment: Segment) -> Segment {
    let Tuple {
        laddr,
        lport,
        raddr,
        rport,
    } = segment.tuple;
    Segment {
        direction: Direction::Received,
        sk: None,
        from_half_open: false,
        tuple: Tuple {
            laddr: raddr.unwrap(),
            lport: rport,
            raddr: Some(laddr),
            rport: lport,
        },
        ..segment
    }
}

/// Returns the server's socket, the peer of `client(3)`.
fn server_end() -> Sock {
    child(3)
}

/// Returns a client that has no port yet.
fn portless(client: &Sock) -> Sock {
    let mut sock = *client;
    sock.tuple.lport = None;
    sock
}

impl Trace {
    fn segment(&mut self, segment: Segment) {
        self.wait(US);
        self.event(Kind::Segment(segment));
    }

    /// Plays a segment as the loopback device sends it, then as the device receives it.
    fn over_lo(&mut self, segment: Segment) {
        self.segment(segment);
        self.segment(received(segment));
    }

    fn segments(&self) -> Vec<&fields::Segment> {
        let only = self.lines.iter().filter_map(|line| match line {
            Line::Segment(x) => Some(x),
            _ => None,
        });
        only.collect()
    }

    /// Returns `conn direction flags rel_seq rel_ack` of each segment.
    fn segment_lines(&self) -> Vec<String> {
        let number = |n: Option<u64>| n.map_or("-".to_owned(), |n| n.to_string());
        let text = self.segments().into_iter().map(|x| {
            let conn = number(x.subject.conn);
            let seq = number(x.rel_seq.map(u64::from));
            let ack = number(x.rel_ack.map(u64::from));
            format!("{conn} {:?} {} {seq} {ack}", x.direction, x.flags)
        });
        text.collect()
    }
}

fn expecting_segments() -> Trace {
    let mut t = trace();
    t.correlator.expect_segments();
    t
}

/// Plays a handshake on the loopback device. The client is connection 1, the server connection 2.
fn handshake() -> Trace {
    let mut t = expecting_segments();
    let (client, server) = (client(3), server_end());
    let client = Sock {
        sk: Sk(30),
        ..client
    };
    t.set(portless(&client).enters_by(visitor(), Close, SynSent));
    t.over_lo(sent(&client, SYN, CLIENT, 0));
    t.over_lo(Segment {
        sk: None,
        from_half_open: true,
        ..sent(&server, SYN | ACK, SERVER, CLIENT.wrapping_add(1))
    });
    t.set(client.enters(SynSent, Established));
    t.over_lo(sent(&client, ACK, CLIENT.wrapping_add(1), SERVER + 1));
    t.establish(&server);
    t
}

#[test]
fn handshake_segments_are_reported_at_both_ends() {
    let t = handshake();
    assert_eq!(
        t.segment_lines(),
        [
            "1 Sent S 0 -",
            "- Received S 0 -",
            "- Sent S. 0 1",
            "1 Received S. 0 1",
            "1 Sent . 1 1",
            "- Received . 1 1",
        ]
    );
    let sides: Vec<_> = t.segments().iter().map(|x| x.subject.side).collect();
    let (client, server) = (Some(Side::Client), Some(Side::Server));
    // The SYN was received before any answer.
    assert_eq!(sides, [client, None, server, client, client, server]);
    assert_eq!(t.segments()[0].subject.lport, client_port());
    assert_eq!(t.segments()[0].subject.pid, Some(visitor().pid));
    assert_eq!(t.segments()[4].subject.pid, Some(visitor().pid));
}

fn client_port() -> Option<u16> {
    client(3).tuple.lport
}

#[test]
fn server_syn_time_is_that_of_the_received_segment() {
    let mut t = handshake();
    t.finish();
    let came = t.segments()[1].mono_ns;
    let server = t.connection(2);
    assert_eq!(server.syn_mono_ns, Some(came));
    assert_eq!(server.syn_source, Some(Source::Segment));
    let established = server.established_mono_ns.unwrap();
    assert_eq!(server.handshake_ns, Some(established - came));
    assert_eq!(t.connection(1).syn_source, Some(Source::Tracepoint));
}

#[test]
fn server_syn_time_is_not_taken_across_an_event_loss() {
    let mut t = handshake();
    t.lost = 1;
    t.finish();
    assert_eq!(t.connection(2).syn_mono_ns, None);
    assert_eq!(t.connection(2).handshake_ns, None);
}

#[test]
fn segments_in_time_wait_belong_to_the_connection() {
    let mut t = handshake();
    let client = Sock {
        sk: Sk(30),
        ..client(3)
    };
    let server = server_end();
    t.walk(&client, &[Established, FinWait1, FinWait2, Close]);
    t.over_lo(sent(&server, FIN | ACK, SERVER + 1, CLIENT.wrapping_add(2)));
    let answer = Segment {
        sk: None,
        ..sent(&client, ACK, CLIENT.wrapping_add(2), SERVER + 2)
    };
    t.over_lo(answer);
    assert_eq!(
        t.segment_lines()[6..],
        [
            "2 Sent F. 1 2",
            "1 Received F. 1 2",
            "1 Sent . 2 2",
            "2 Received . 2 2"
        ]
    );
}

#[test]
fn new_connection_with_the_same_tuple_has_new_relative_numbers() {
    let mut t = handshake();
    let first = Sock {
        sk: Sk(30),
        ..client(3)
    };
    t.walk(&first, &[Established, FinWait1, FinWait2, Close]);
    t.walk(&server_end(), &[Established, CloseWait, LastAck, Close]);
    t.wait(REUSE);
    let second = Sock {
        sk: Sk(31),
        ..client(3)
    };
    t.set(portless(&second).enters_by(visitor(), Close, SynSent));
    t.over_lo(sent(&second, SYN, 77, 0));
    assert_eq!(t.segment_lines()[6..], ["3 Sent S 0 -", "- Received S 0 -"]);
}

const REUSE: u64 = 1_000 * MS;

#[test]
fn stray_syn_does_not_change_a_connection() {
    let mut t = handshake();
    let client = Sock {
        sk: Sk(30),
        ..client(3)
    };
    let stray = Segment {
        sk: None,
        ..sent(&client, SYN, 9_999, 0)
    };
    t.segment(received(stray));
    t.over_lo(sent(&client, FIN | ACK, CLIENT.wrapping_add(1), SERVER + 1));
    let text = t.segment_lines();
    assert!(text[6].starts_with("2 Received S "), "{text:?}");
    assert_eq!(text[7..], ["1 Sent F. 1 1", "2 Received F. 1 1"]);
}

#[test]
fn segment_seen_at_a_second_device_is_a_repeat_and_at_the_first_a_retransmission() {
    let mut t = expecting_segments();
    let syn = sent(&client(2), SYN, 1, 0);
    t.set(portless(&client(2)).enters_by(visitor(), Close, SynSent));
    let at = |ifindex| Segment { ifindex, ..syn };
    for _ in 0..2 {
        t.segment(at(4));
        t.segment(at(2));
        t.segment(at(3));
    }
    assert_eq!(t.segment_lines(), ["1 Sent S 0 -", "1 Sent S 0 -"]);
    assert_eq!(t.finish().repeated_segments, 4);
}

#[test]
fn last_part_of_a_split_segment_is_a_repeat() {
    let mut t = handshake();
    let whole = Segment {
        len: 3000,
        ifindex: 4,
        ..sent(&server_end(), FIN | ACK, SERVER + 1, 0)
    };
    t.segment(whole);
    t.segment(Segment {
        seq: whole.seq + 1448,
        len: whole.len - 1448,
        flags: TcpFlags(FIN | ACK | 0x08),
        ifindex: 2,
        ..whole
    });
    assert_eq!(t.segment_lines().len(), 7);
    assert_eq!(t.finish().repeated_segments, 1);
}

#[test]
fn same_tuple_in_another_namespace_is_another_flow() {
    let mut t = expecting_segments();
    let syn = sent(&client(2), SYN, 1, 0);
    t.set(portless(&client(2)).enters_by(visitor(), Close, SynSent));
    t.segment(syn);
    t.segment(Segment {
        netns: NETNS + 1,
        ifindex: 2,
        ..received(syn)
    });
    assert_eq!(t.segment_lines(), ["1 Sent S 0 -", "- Received S 0 -"]);
}

#[test]
fn segment_without_a_seen_syn_has_no_relative_numbers() {
    let mut t = expecting_segments();
    t.segment(received(sent(&client(2), RST | ACK, 7, 8)));
    assert_eq!(t.segment_lines(), ["- Received R. - -"]);
    let segment = t.segments()[0];
    assert_eq!((segment.seq, segment.ack), (7, Some(8)));
}

#[test]
fn segment_of_a_reused_socket_address_is_not_assigned() {
    let mut t = expecting_segments();
    t.set(client(2).enters_by(visitor(), Close, SynSent));
    let other = Sock {
        sk: Sk(2),
        ..client(5)
    };
    t.segment(sent(&other, SYN, 1, 0));
    assert_eq!(t.segment_lines(), ["- Sent S 0 -"]);
}

#[test]
fn flow_endpoints_without_a_socket_are_forgotten() {
    let mut t = expecting_segments();
    t.set(client(2).enters_by(visitor(), Close, SynSent));
    t.segment(sent(&client(2), SYN, 1, 0));
    for sk in 0..20_000 {
        t.wait(100 * MS);
        let mut strange = client(2);
        strange.tuple.laddr = std::net::Ipv4Addr::from_bits(0x0a00_0000 + sk).into();
        t.segment(Segment {
            sk: None,
            ..sent(&strange, SYN, sk, 0)
        });
    }
    assert!(t.correlator.remembered_flows() < 10_000);
    t.segment(sent(&client(2), FIN | ACK, 2, 0));
    assert_eq!(t.segment_lines().last().unwrap(), "1 Sent F. 1 -");
}
