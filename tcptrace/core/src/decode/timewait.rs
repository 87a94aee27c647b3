//! Decoding of [`abi::kind::TIMEWAIT`].

use std::net::{IpAddr, Ipv4Addr};

use tcptrace_ebpf::abi;

use super::{Rest, Undecodable, ip, nonzero, state, tuple};
use crate::event::{Sk, Timewait, TimewaitStep, Tuple};

/// The SYN flag of a TCP header, RFC 9293 section 3.1.
const SYN: u8 = 0x02;

pub(super) fn timewait(rest: &mut Rest) -> Result<Timewait, Undecodable> {
    let payload: abi::Timewait = rest.take()?;
    let tuple = decode_tuple(rest, payload.sections, payload.lport, payload.rport)?;
    let step = match payload.step {
        abi::timewait_step::BEGUN => TimewaitStep::Begun,
        abi::timewait_step::RESTARTED => TimewaitStep::Restarted,
        abi::timewait_step::EXPIRED => TimewaitStep::Expired,
        abi::timewait_step::KILLED => TimewaitStep::Killed {
            syn: payload.segment & SYN != 0,
        },
        abi::timewait_step::TAKEN => TimewaitStep::Taken,
        abi::timewait_step::PURGED => TimewaitStep::Purged,
        value => {
            return Err(Undecodable::Value {
                field: "step",
                value,
            });
        }
    };
    Ok(Timewait {
        tw: Sk(payload.tw),
        sk: nonzero(payload.sk).map(Sk),
        cookie: nonzero(payload.cookie),
        netns: payload.netns,
        tuple,
        step,
        substate: state("substate", payload.substate)?,
    })
}

/// Decodes the addresses of a bucket and combines them with the ports.
pub(super) fn decode_tuple(
    rest: &mut Rest,
    sections: u8,
    lport: u16,
    rport: u16,
) -> Result<Tuple, Undecodable> {
    let (laddr, raddr) = if sections & abi::section::V4 != 0 {
        let addrs: abi::Addrs4 = rest.take()?;
        let v4 = |bytes| IpAddr::V4(Ipv4Addr::from(bytes));
        (v4(addrs.laddr), v4(addrs.raddr))
    } else {
        let addrs: abi::Addrs6 = rest.take()?;
        (ip(addrs.laddr), ip(addrs.raddr))
    };
    Ok(tuple(laddr, lport, raddr, rport))
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;
    use crate::decode::decode;
    use crate::event::{Kind, State};

    fn record(step: u8, substate: u8, segment: u8) -> Vec<u8> {
        let header = abi::Header {
            mono_ns: 1,
            lost: 0,
            cpu: 0,
            kind: abi::kind::TIMEWAIT,
            version: abi::VERSION,
        };
        let payload = abi::Timewait {
            tw: 0x1000,
            sk: 0,
            cookie: 0,
            netns: 5,
            lport: 40_000,
            rport: 7878,
            step,
            substate,
            segment,
            sections: abi::section::V4,
            reserved: 0,
        };
        let addrs = abi::Addrs4 {
            laddr: [127, 0, 0, 1],
            raddr: [127, 0, 0, 2],
        };
        [header.as_bytes(), payload.as_bytes(), addrs.as_bytes()].concat()
    }

    fn step_of(step: u8, segment: u8) -> TimewaitStep {
        let Kind::Timewait(it) = decode(&record(step, 6, segment)).unwrap().kind else {
            panic!();
        };
        assert_eq!((it.substate, it.sk), (State::TimeWait, None));
        assert_eq!((it.tuple.lport, it.tuple.rport), (Some(40_000), Some(7878)));
        it.step
    }

    #[test]
    fn killed_bucket_is_reused_by_a_syn_and_reset_otherwise() {
        use abi::timewait_step::*;
        assert_eq!(step_of(KILLED, 0x02), TimewaitStep::Killed { syn: true });
        assert_eq!(step_of(KILLED, 0x14), TimewaitStep::Killed { syn: false });
        assert_eq!(step_of(TAKEN, 0), TimewaitStep::Taken);
        assert_eq!(step_of(EXPIRED, 0), TimewaitStep::Expired);
    }

    #[test]
    fn cut_or_unknown_timewait_is_an_error() {
        let whole = record(abi::timewait_step::BEGUN, 5, 0);
        for len in 0..whole.len() {
            assert_eq!(decode(&whole[..len]), Err(Undecodable::Short(len)));
        }
        let error = |field, value| Err(Undecodable::Value { field, value });
        assert_eq!(decode(&record(99, 5, 0)), error("step", 99));
        assert_eq!(decode(&record(1, 0, 0)), error("substate", 0));
    }
}
