//! Decoding of [`abi::kind::REQUEST`] and [`abi::kind::OVERFLOW`].

use tcptrace_ebpf::abi::{self, overflow_flag, request_flag, request_step};

use super::{Rest, Undecodable, addrs, nonzero, tuple};
use crate::event::{CloneOf, ListenQueue, Overflow, OverflowSegment, Request, RequestStep, Sk};

#[inline(always)]
pub(super) fn request(rest: &mut Rest) -> Result<Request, Undecodable> {
    let payload: abi::Request = rest.take()?;
    let (laddr, raddr) = addrs(payload.sections, rest)?;
    let has = |flag| payload.flags & flag != 0;
    let step = match payload.step {
        request_step::BEGUN => RequestStep::Begun,
        request_step::CLONING => RequestStep::Cloning(CloneOf::Request),
        request_step::CLONING_COOKIE => RequestStep::Cloning(CloneOf::Cookie),
        request_step::CLONING_FAST_OPEN => RequestStep::Cloning(CloneOf::FastOpen),
        request_step::SYNACK_RETRANSMITTED => RequestStep::SynackRetransmitted,
        request_step::DROPPED => RequestStep::Dropped {
            by_timer: has(request_flag::BY_TIMER),
            listening: has(request_flag::LISTENING),
        },
        value => {
            let field = "step";
            return Err(Undecodable::Value { field, value });
        }
    };
    // The kernel increments num_retrans after the tracepoint, so the count lacks this
    // retransmission.
    let this_one = u32::from(step == RequestStep::SynackRetransmitted);
    Ok(Request {
        req: Sk(payload.req),
        sk: Sk(payload.sk),
        netns: payload.netns,
        tuple: tuple(laddr, payload.lport, raddr, payload.rport),
        step,
        synack_ns: nonzero(payload.synack_us).map(|us| us.saturating_mul(1_000)),
        synack_retransmits: u32::from(payload.retransmits) + this_one,
        syn_queue_len: payload.syn_queue_len,
        isn: payload.isn,
        defer_accept: has(request_flag::DEFER_ACCEPT),
    })
}

pub(super) fn overflow(rest: &mut Rest) -> Result<Overflow, Undecodable> {
    let payload: abi::Overflow = rest.take()?;
    let (laddr, raddr) = addrs(payload.sections, rest)?;
    let has = |flag| payload.flags & flag != 0;
    Ok(Overflow {
        listener: Sk(payload.listener),
        req: nonzero(payload.req).map(Sk),
        isn: has(overflow_flag::SYN).then_some(payload.isn),
        netns: payload.netns,
        tuple: tuple(laddr, payload.lport, raddr, payload.rport),
        segment: match has(overflow_flag::SYN) {
            true => OverflowSegment::Syn,
            false => OverflowSegment::Ack,
        },
        queue: match has(overflow_flag::SYN_QUEUE) {
            true => ListenQueue::Syn,
            false => ListenQueue::Accept,
        },
        backlog_len: payload.backlog_len,
        backlog_max: payload.backlog_max,
        reserve: has(overflow_flag::RESERVE),
        aborted: has(overflow_flag::ABORTED),
    })
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;
    use crate::decode::decode;
    use crate::event::{Event, Kind};

    const REQUEST: abi::Request = abi::Request {
        req: 1,
        sk: 2,
        synack_us: 3,
        netns: 4,
        syn_queue_len: 5,
        isn: 7,
        reserved: 0,
        lport: 7878,
        rport: 39709,
        step: request_step::BEGUN,
        retransmits: 6,
        flags: 0,
        sections: abi::section::V4,
    };

    const OVERFLOW: abi::Overflow = abi::Overflow {
        listener: 2,
        req: 0,
        netns: 4,
        backlog_len: 2,
        backlog_max: 1,
        lport: 7878,
        rport: 39709,
        isn: 7,
        flags: overflow_flag::SYN,
        sections: abi::section::V4,
        reserved: 0,
    };

    fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
        let header = abi::Header {
            mono_ns: 1_000,
            lost: 0,
            cpu: 1,
            kind,
            version: abi::VERSION,
        };
        let addrs = abi::Addrs4 {
            laddr: [127, 0, 0, 1],
            raddr: [127, 0, 0, 2],
        };
        [header.as_bytes(), payload, addrs.as_bytes()].concat()
    }

    fn request(payload: abi::Request) -> Result<Request, Undecodable> {
        match decode(&record(abi::kind::REQUEST, payload.as_bytes()))?.kind {
            Kind::Request(request) => Ok(request),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn request_times_are_in_nanoseconds() {
        let begun = request(REQUEST).unwrap();
        assert_eq!(begun.step, RequestStep::Begun);
        assert_eq!((begun.req, begun.sk), (Sk(1), Sk(2)));
        assert_eq!(begun.synack_ns, Some(3_000));
        assert_eq!(
            (begun.tuple.lport, begun.tuple.rport),
            (Some(7878), Some(39709))
        );
        let cookie = abi::Request {
            synack_us: 0,
            ..REQUEST
        };
        assert_eq!(request(cookie).unwrap().synack_ns, None);
    }

    #[test]
    fn synack_retransmit_counts_itself() {
        let again = abi::Request {
            step: request_step::SYNACK_RETRANSMITTED,
            ..REQUEST
        };
        assert_eq!(request(REQUEST).unwrap().synack_retransmits, 6);
        assert_eq!(request(again).unwrap().synack_retransmits, 7);
    }

    #[test]
    fn dropped_request_has_timer_and_listener_flags() {
        let dropped = |flags| abi::Request {
            step: request_step::DROPPED,
            flags,
            ..REQUEST
        };
        let step = |flags| request(dropped(flags)).unwrap().step;
        assert_eq!(
            step(request_flag::BY_TIMER | request_flag::LISTENING),
            RequestStep::Dropped {
                by_timer: true,
                listening: true
            }
        );
        assert_eq!(
            step(0),
            RequestStep::Dropped {
                by_timer: false,
                listening: false
            }
        );
    }

    #[test]
    fn unknown_step_is_an_error_with_its_value() {
        let strange = abi::Request {
            step: 99,
            ..REQUEST
        };
        let (field, value) = ("step", 99);
        assert_eq!(request(strange), Err(Undecodable::Value { field, value }));
    }

    #[test]
    fn overflow_has_segment_and_queue() {
        let overflow = |flags| {
            let payload = abi::Overflow { flags, ..OVERFLOW };
            match decode(&record(abi::kind::OVERFLOW, payload.as_bytes())) {
                Ok(Event {
                    kind: Kind::Overflow(overflow),
                    ..
                }) => overflow,
                other => panic!("{other:?}"),
            }
        };
        let syn = overflow(overflow_flag::SYN | overflow_flag::SYN_QUEUE);
        assert_eq!(
            (syn.segment, syn.queue),
            (OverflowSegment::Syn, ListenQueue::Syn)
        );
        assert_eq!((syn.req, syn.isn, syn.aborted), (None, Some(7), false));
        let ack = overflow(overflow_flag::ABORTED);
        assert_eq!(ack.isn, None);
        assert_eq!(
            (ack.segment, ack.queue),
            (OverflowSegment::Ack, ListenQueue::Accept)
        );
        assert!(ack.aborted);
    }

    #[test]
    fn cut_request_or_overflow_is_short() {
        for whole in [
            record(abi::kind::REQUEST, REQUEST.as_bytes()),
            record(abi::kind::OVERFLOW, OVERFLOW.as_bytes()),
        ] {
            for len in 0..whole.len() {
                assert_eq!(decode(&whole[..len]), Err(Undecodable::Short(len)));
            }
        }
    }
}
