//! Tests of full queues and their effects on the server's and on the client's connection.

use super::requests::*;
use super::*;
use crate::event::{CloneOf, Hook, OverflowSegment, Request, RequestStep};
use crate::fields::HalfOpenEnd;

/// Returns the client of `child(2)`, at another address.
fn its_client() -> Sock {
    Sock {
        sk: Sk(50),
        ..client(2)
    }
}

/// Returns a trace with a listener, connection 1, and `its_client()` in SYN_SENT, connection 2.
fn calling() -> Trace {
    let mut t = probed();
    t.set(its_client().enters_by(visitor(), Close, SynSent));
    t
}

fn dropped_syn() -> crate::event::Overflow {
    overflow(&child(2), OverflowSegment::Syn, false)
}

/// Plays the handshake of `child(2)`, from its request socket to ESTABLISHED, as connection 3.
fn finish_handshake(t: &mut Trace) {
    t.step(&child(2), RequestStep::Cloning(CloneOf::Request));
    t.establish(&child(2));
}

#[test]
fn dropped_syn_is_reported_at_both_ends() {
    let mut t = calling();
    let syn = t.now;
    t.overflow(dropped_syn());
    let first = t.now;
    t.wait(1_000 * MS);
    t.overflow(dropped_syn());
    t.wait(2_000 * MS);
    t.step(&child(2), RequestStep::Begun);
    t.set(its_client().enters(SynSent, Established));
    let connected = t.now;
    finish_handshake(&mut t);
    t.finish();

    let client = t.connection(2);
    assert_eq!(client.overflows, Some(2));
    assert_eq!(client.first_overflow_mono_ns, Some(first));
    assert_eq!(client.handshake_ns, Some(connected - syn));
    assert_eq!(
        client.explanation.as_deref(),
        Some(
            "its SYN met a full accept queue of #1 (129 queued, limit 128) 2 times, so SYN_SENT \
             lasted 3.000 s"
        )
    );
    let server = t.connection(3);
    assert_eq!(server.overflows, Some(2));
    assert_eq!(server.first_overflow_mono_ns, Some(first));
    assert_eq!(server.explanation, None);
    assert!(
        t.reason(3).ends_with(
            "; the SYN had come 3.000 s earlier, but met a full accept queue (129 queued, limit \
             128) 2 times"
        ),
        "{}",
        t.reason(3)
    );
    let evidence = server.evidence.as_deref().unwrap();
    assert!(evidence.ends_with(", listen_overflow"), "{evidence}");
}

#[test]
fn dropped_ack_is_reported_at_both_ends() {
    let mut t = calling();
    t.step(&child(2), RequestStep::Begun);
    t.set(its_client().enters(SynSent, Established));
    let connected = t.now;
    for again in 0..3 {
        t.overflow(overflow(&child(2), OverflowSegment::Ack, false));
        t.wait(1_000 * MS);
        t.request(Request {
            synack_retransmits: again + 1,
            ..request(&child(2), RequestStep::SynackRetransmitted)
        });
    }
    t.request(Request {
        synack_retransmits: 3,
        ..request(&child(2), RequestStep::Cloning(CloneOf::Request))
    });
    t.establish(&child(2));
    t.accept(listener().accepts(&child(2), Called::At(t.now)));
    let at_accept = t.last_accept().reason.clone().unwrap();
    assert!(
        at_accept.contains(
            "; the final ACK had come 3.000 s earlier, but met a full accept queue (129 queued, \
             limit 128) 3 times, and the SYN-ACK was sent again 3 times"
        ),
        "{at_accept}"
    );
    t.finish();
    let client = t.connection(2);
    assert_eq!(client.established_mono_ns, Some(connected));
    assert_eq!(client.peer_conn, Some(3));
    assert_eq!(client.overflows, Some(3));
    let text = client.explanation.as_deref().unwrap();
    assert!(
        text.starts_with("its final ACK met a full accept queue of #1 (129 queued, limit 128)")
            && text.ends_with(": the server's end was ESTABLISHED 3.000 s later"),
        "{text}"
    );
    assert_eq!(t.connection(3).verdict, Some(Verdict::Queued));
}

#[test]
fn half_open_connection_names_its_established_client() {
    let mut t = calling();
    t.step(&child(2), RequestStep::Begun);
    t.set(its_client().enters(SynSent, Established));
    let connected = t.now;
    t.overflow(overflow(&child(2), OverflowSegment::Ack, false));
    t.request(Request {
        synack_retransmits: 5,
        ..request(&child(2), TIMEOUT)
    });
    t.finish();
    let server = t.connection(3);
    assert_eq!(server.half_open_end, Some(HalfOpenEnd::Timeout));
    assert_eq!(server.overflows, Some(1));
    assert_eq!(server.peer_conn, Some(2));
    assert_eq!(server.peer_established_mono_ns, Some(connected));
    assert_eq!(
        t.reason(3),
        "the handshake did not finish: the final ACK met a full accept queue (129 queued, limit \
         128) once, the SYN-ACK was sent again 5 times, until it timed out; its client, #2, was \
         ESTABLISHED all the while"
    );
    let text = t.connection(2).explanation.as_deref().unwrap();
    assert!(
        text.ends_with("the server's end was not seen to become ESTABLISHED"),
        "{text}"
    );
}

#[test]
fn client_that_gave_up_explains_its_dropped_syn() {
    let mut t = calling();
    t.overflow(dropped_syn());
    t.wait(500 * MS);
    t.set(its_client().enters_by(visitor(), SynSent, Close));
    let text = t.connection(2).explanation.as_deref().unwrap();
    assert!(text.ends_with("so SYN_SENT lasted 500.0 ms"), "{text}");
    // The same holds for a client that still waits at the end of the trace.
    let mut t = calling();
    t.overflow(dropped_syn());
    t.finish();
    assert_eq!(t.connection(2).overflows, Some(1));
}

#[test]
fn dropped_syn_with_another_sequence_number_belongs_to_another_connection() {
    let mut t = probed();
    t.overflow(crate::event::Overflow {
        isn: Some(ISN + 1),
        ..dropped_syn()
    });
    t.step(&child(2), RequestStep::Begun);
    finish_handshake(&mut t);
    t.finish();
    assert_eq!(t.connection(2).overflows, Some(0));
    // A SYN that was dropped before this client connected is not this client's SYN.
    let mut t = probed();
    t.overflow(dropped_syn());
    t.set(its_client().enters_by(visitor(), Close, SynSent));
    t.set(its_client().enters(SynSent, Established));
    t.finish();
    assert_eq!(t.connection(2).explanation, None);
}

#[test]
fn overflows_are_null_without_the_hook() {
    let seen = Hook::ALL
        .into_iter()
        .filter(|&hook| hook != Hook::ListenOverflow);
    let mut t = seeing(&seen.collect::<Vec<_>>());
    t.set(its_client().enters_by(visitor(), Close, SynSent));
    t.step(&child(2), RequestStep::Begun);
    t.set(its_client().enters(SynSent, Established));
    finish_handshake(&mut t);
    t.finish();
    for conn in [2, 3] {
        assert_eq!(t.connection(conn).overflows, None);
    }
    // With the hook, a client whose peer is on another host has no count of overflows either.
    let mut t = calling();
    t.set(its_client().enters(SynSent, Established));
    t.finish();
    assert_eq!(t.connection(2).overflows, None);
}

#[test]
fn remembered_dropped_syns_are_bounded_in_a_flood() {
    let mut t = probed();
    for n in 0..200_000u32 {
        let mut stranger = dropped_syn();
        stranger.tuple.raddr = Some(std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into());
        t.overflow(stranger);
    }
    assert!(t.correlator.dropped_syns.len() <= 1 << 16);
    // The dropped SYNs of this connection may be among those that were forgotten.
    t.step(&child(2), RequestStep::Begun);
    let begun = t.now;
    finish_handshake(&mut t);
    t.finish();
    let server = t.connection(2);
    assert!(server.overflows.is_none(), "{server:?} at {begun}");
}

#[test]
fn reserved_part_of_the_syn_queue_does_not_change_the_listeners_limit() {
    let mut t = calling();
    t.overflow(crate::event::Overflow {
        queue: crate::event::ListenQueue::Syn,
        backlog_len: 13,
        backlog_max: 12,
        reserve: true,
        ..dropped_syn()
    });
    t.set(SetState {
        err: Some(110),
        ..its_client().enters(SynSent, Close)
    });
    let totals = t.finish();
    let client = t.connection(2);
    assert_eq!(client.overflows, Some(1));
    let text = client.explanation.as_deref().unwrap();
    let expected =
        "a SYN queue whose rest is kept for known peers of #1 (13 half-open, limit 12) once";
    assert!(text.contains(expected), "{text}");
    assert_eq!(totals.listeners[0].overflows, Some(1));
    assert_ne!(totals.listeners[0].backlog.backlog_max, Some(12));
}
