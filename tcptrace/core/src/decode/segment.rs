//! Decoding of [`abi::kind::SEGMENT`].

use tcptrace_ebpf::abi;

use super::{Rest, Undecodable, addrs, nonzero, tuple};
use crate::event::{Direction, Segment, Sk, State, TcpFlags};

pub(super) fn segment(rest: &mut Rest) -> Result<Segment, Undecodable> {
    let payload: abi::Segment = rest.take()?;
    let (laddr, raddr) = addrs(payload.sections, rest)?;
    let direction = match payload.direction {
        abi::direction::OUT => Direction::Sent,
        abi::direction::IN => Direction::Received,
        value => {
            return Err(Undecodable::Value {
                field: "direction",
                value,
            });
        }
    };
    let flags = TcpFlags(payload.flags);
    let state = State::from_kernel(payload.sk_state);
    let is_connection = !matches!(
        state,
        None | Some(State::NewSynRecv | State::TimeWait | State::Listen)
    );
    Ok(Segment {
        direction,
        sk: nonzero(payload.sk).filter(|_| is_connection).map(Sk),
        from_half_open: state == Some(State::NewSynRecv),
        netns: payload.netns,
        ifindex: payload.ifindex,
        tuple: tuple(laddr, payload.lport, raddr, payload.rport),
        flags,
        seq: payload.seq,
        ack: flags.has(TcpFlags::ACK).then_some(payload.ack),
        len: payload.len,
        window: payload.window,
    })
}

#[cfg(test)]
mod tests {
    use super::super::decode;
    use super::*;
    use crate::event::Kind;
    use zerocopy::IntoBytes;

    const SEGMENT: abi::Segment = abi::Segment {
        sk: 0xffff_8880_0000_1000,
        netns: 4_026_531_833,
        ifindex: 1,
        seq: u32::MAX,
        ack: 77,
        len: 0,
        lport: 39709,
        rport: 7878,
        window: 65535,
        flags: 0x02,
        direction: abi::direction::OUT,
        sk_state: 2,
        sections: abi::section::V4,
        reserved: 0,
    };

    fn record(payload: abi::Segment) -> Vec<u8> {
        let header = abi::Header {
            mono_ns: 1_000,
            lost: 0,
            cpu: 1,
            kind: abi::kind::SEGMENT,
            version: abi::VERSION,
        };
        let addrs = abi::Addrs4 {
            laddr: [127, 0, 0, 1],
            raddr: [127, 0, 0, 2],
        };
        [header.as_bytes(), payload.as_bytes(), addrs.as_bytes()].concat()
    }

    fn decoded(payload: abi::Segment) -> Segment {
        match decode(&record(payload)).unwrap().kind {
            Kind::Segment(segment) => segment,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn syn_without_ack_flag_has_no_ack_number() {
        let syn = decoded(SEGMENT);
        assert_eq!(
            (syn.seq, syn.ack, syn.flags),
            (u32::MAX, None, TcpFlags::SYN)
        );
        assert_eq!(syn.sk, Some(Sk(0xffff_8880_0000_1000)));
        assert_eq!(syn.tuple.raddr, Some("127.0.0.2".parse().unwrap()));
    }

    #[test]
    fn segment_of_a_request_socket_has_no_sk() {
        let syn_ack = decoded(abi::Segment {
            flags: 0x12,
            sk_state: State::NewSynRecv as u8,
            ..SEGMENT
        });
        assert_eq!((syn_ack.sk, syn_ack.from_half_open), (None, true));
        assert_eq!(syn_ack.ack, Some(77));
    }

    #[test]
    fn unknown_direction_is_an_error() {
        let bytes = record(abi::Segment {
            direction: 3,
            ..SEGMENT
        });
        let error = Undecodable::Value {
            field: "direction",
            value: 3,
        };
        assert_eq!(decode(&bytes), Err(error));
    }

    #[test]
    fn cut_segment_is_short() {
        let whole = record(SEGMENT);
        for len in 0..whole.len() {
            assert_eq!(decode(&whole[..len]), Err(Undecodable::Short(len)));
        }
    }
}
