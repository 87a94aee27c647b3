//! Decoding of socket counters, [`abi::kind::RETRANSMIT`] and [`abi::kind::RESET`].

use tcptrace_ebpf::abi;

use super::{Rest, Undecodable, addrs, nonzero, state, tuple};
use crate::event::{Call, Direction, Reset, Retransmit, Retransmitted, Sk, State, Stats};

#[inline(always)]
pub(super) fn stats(stats: abi::Stats) -> Stats {
    Stats {
        bytes_acked: stats.bytes_acked,
        bytes_received: stats.bytes_received,
        segs_in: stats.segs_in,
        segs_out: stats.segs_out,
        data_segs_in: stats.data_segs_in,
        retransmits: stats.retransmits,
        snd_cwnd: stats.snd_cwnd,
        unacked: stats.unacked,
        unread: stats.unread,
        rcv_shutdown: stats.flags & abi::stats_flag::RCV_SHUTDOWN != 0,
        no_fin_wait2: stats.flags & abi::stats_flag::NO_FIN_WAIT2 != 0,
        snd_shutdown: stats.flags & abi::stats_flag::SEND_SHUTDOWN != 0,
        unsent: stats.flags & abi::stats_flag::UNSENT != 0,
        call: match stats.flags >> abi::stats_flag::CALL_SHIFT {
            abi::call::CLOSE => Some(Call::Close),
            abi::call::CONNECT => Some(Call::Connect),
            abi::call::SHUTDOWN => Some(Call::Shutdown),
            abi::call::SEND => Some(Call::Send),
            _ => None,
        },
    }
}

pub(super) fn retransmit(rest: &mut Rest) -> Result<Retransmit, Undecodable> {
    let payload: abi::Retransmit = rest.take()?;
    let (laddr, raddr) = addrs(payload.sections, rest)?;
    Ok(Retransmit {
        sk: Sk(payload.sk),
        cookie: nonzero(payload.cookie),
        netns: payload.netns,
        tuple: tuple(laddr, payload.lport, raddr, payload.rport),
        state: state("state", payload.state)?,
        what: Retransmitted::from_tcp_flags(payload.tcp_flags),
        retransmits: payload.retransmits,
    })
}

#[inline(always)]
pub(super) fn reset(rest: &mut Rest) -> Result<Reset, Undecodable> {
    let payload: abi::Reset = rest.take()?;
    let (laddr, raddr) = addrs(payload.sections, rest)?;
    Ok(Reset {
        sk: nonzero(payload.sk).map(Sk),
        cookie: nonzero(payload.cookie),
        netns: payload.netns,
        tuple: tuple(laddr, payload.lport, raddr, payload.rport),
        state: State::from_kernel(payload.state),
        direction: match payload.sent {
            0 => Direction::Received,
            _ => Direction::Sent,
        },
        reason: (payload.reason != abi::NO_REASON).then_some(payload.reason),
    })
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::super::decode;
    use super::*;
    use crate::event::Kind;

    fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
        let header = abi::Header {
            mono_ns: 1,
            lost: 0,
            cpu: 0,
            kind,
            version: abi::VERSION,
        };
        let addrs = abi::Addrs4 {
            laddr: [127, 0, 0, 1],
            raddr: [127, 0, 0, 2],
        };
        [header.as_bytes(), payload, addrs.as_bytes()].concat()
    }

    #[test]
    fn retransmitted_segment_is_known_by_its_flags() {
        for (flags, what) in [
            (0x02, Retransmitted::Syn),
            (0x12, Retransmitted::SynAck),
            (0x11, Retransmitted::Fin),
            (0x18, Retransmitted::Data),
        ] {
            let payload = abi::Retransmit {
                sk: 7,
                cookie: 0,
                netns: 1,
                retransmits: 3,
                lport: 40_000,
                rport: 7878,
                state: 2,
                tcp_flags: flags,
                sections: abi::section::V4,
                reserved: 0,
            };
            let bytes = record(abi::kind::RETRANSMIT, payload.as_bytes());
            let Kind::Retransmit(event) = decode(&bytes).unwrap().kind else {
                panic!();
            };
            assert_eq!((event.what, event.retransmits), (what, 3));
            assert_eq!(event.tuple.family(), 4);
            for len in 0..bytes.len() {
                assert_eq!(decode(&bytes[..len]), Err(Undecodable::Short(len)));
            }
        }
    }

    #[test]
    fn reset_without_a_socket_has_neither_state_nor_pointer() {
        let payload = abi::Reset {
            sk: 0,
            cookie: 0,
            netns: 1,
            reason: abi::NO_REASON,
            lport: 7878,
            rport: 40_000,
            state: 0,
            sent: 1,
            sections: abi::section::V4,
            reserved: 0,
        };
        let bytes = record(abi::kind::RESET, payload.as_bytes());
        let Kind::Reset(event) = decode(&bytes).unwrap().kind else {
            panic!();
        };
        assert_eq!((event.sk, event.state, event.reason), (None, None, None));
        assert_eq!(event.direction, Direction::Sent);
        assert_eq!(event.tuple.lport, Some(7878));
    }
}
