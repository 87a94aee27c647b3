//! Tests of segments that come before the first event of their connection's socket.

use super::requests::{ISN, request, seeing};
use super::segments::{ACK, SYN, received, sent};
use super::*;
use crate::event::{CloneOf, Hook, RequestStep, Segment};

const SERVER_ISN: u32 = 5_000;

/// Returns the client of `child(2)`, on another host.
fn remote() -> Sock {
    client(2)
}

fn syn(seq: u32) -> Kind {
    Kind::Segment(received(sent(&remote(), SYN, seq, 0)))
}

fn syn_ack() -> Kind {
    Kind::Segment(Segment {
        sk: None,
        from_half_open: true,
        ..sent(&child(2), SYN | ACK, SERVER_ISN, ISN + 1)
    })
}

fn ack() -> Kind {
    Kind::Segment(received(sent(&remote(), ACK, ISN + 1, SERVER_ISN + 1)))
}

fn born() -> Kind {
    Kind::SetState(child(2).enters(Listen, SynRecv))
}

fn step(step: RequestStep) -> Kind {
    let its = request(&child(2), step);
    Kind::Request(crate::event::Request { isn: ISN, ..its })
}

/// Plays events, each this long after the previous one, with lookahead as in a real trace. Returns
/// the `conn` of each segment and of each transition.
fn played(hooks: &[Hook], script: &[(u64, Kind)]) -> (Vec<Option<u64>>, Vec<Option<u64>>) {
    let mut t = seeing(hooks);
    t.correlator.expect_segments();
    let mut events = Vec::new();
    for (after, kind) in script {
        t.wait(*after);
        events.push(Event {
            mono_ns: t.now,
            cpu: 0,
            lost: 0,
            kind: kind.clone(),
        });
    }
    for (n, event) in events.iter().enumerate() {
        if t.correlator.look_ahead(event, &events[n + 1..]) {
            t.correlator.note_lookahead();
        }
        t.correlator.event(event, &mut t.lines);
    }
    t.finish();
    let segments = t.lines.iter().filter_map(|line| match line {
        Line::Segment(x) => Some(x.subject.conn),
        _ => None,
    });
    let transitions = t.transitions();
    let transitions = transitions[1..].iter().map(|x| x.subject.conn);
    (segments.collect(), transitions.collect())
}

/// The hooks on a kernel whose functions cannot be probed.
const UNPROBED: [Hook; 1] = [Hook::InetSockSetState];

#[test]
fn handshake_segments_have_the_number_of_the_seen_request_socket() {
    let established = Kind::SetState(child(2).enters(SynRecv, Established));
    let script = [
        (US, syn(ISN)),
        (US, step(RequestStep::Begun)),
        (US, syn_ack()),
        // The time between SYN and ACK does not matter.
        (500 * MS, ack()),
        (US, step(RequestStep::Cloning(CloneOf::Request))),
        (US, born()),
        (US, established),
    ];
    let (segments, transitions) = played(&Hook::ALL, &script);
    assert_eq!(segments, [Some(2); 3]);
    assert_eq!(transitions, [Some(2); 3]);
}

#[test]
fn handshake_segments_without_a_request_socket_have_the_number_of_a_child_that_follows_at_once() {
    let quick = [
        (US, syn(ISN)),
        (US, syn_ack()),
        (50 * US, ack()),
        (US, born()),
    ];
    let (segments, transitions) = played(&UNPROBED, &quick);
    assert_eq!(segments, [Some(2); 3]);
    assert_eq!(transitions, [Some(2)]);

    let slow = [
        (US, syn(ISN)),
        (US, syn_ack()),
        (20 * MS, ack()),
        (US, born()),
    ];
    let (segments, transitions) = played(&UNPROBED, &slow);
    assert_eq!(segments, [None, None, Some(2)]);
    assert_eq!(transitions, [Some(2)]);
}

#[test]
fn a_segment_gets_the_connection_number_only_if_the_connection_begins_next() {
    for (why, script) in [
        ("nothing comes", vec![(US, syn(ISN)), (US, syn_ack())]),
        (
            "it is dropped, and another connection's SYN follows",
            vec![
                (US, syn(ISN + 9)),
                (US, syn(ISN)),
                (US, step(RequestStep::Begun)),
            ],
        ),
        (
            "the request is of another SYN",
            vec![(US, syn(ISN + 9)), (US, step(RequestStep::Begun))],
        ),
    ] {
        let (segments, _) = played(&Hook::ALL, &script);
        assert_eq!(segments[0], None, "{why}");
    }
    // Another network namespace may use the same addresses.
    let elsewhere = Kind::SetState(SetState {
        netns: NETNS + 1,
        ..child(2).enters(Listen, SynRecv)
    });
    let (segments, _) = played(&UNPROBED, &[(US, syn(ISN)), (US, elsewhere)]);
    assert_eq!(segments, [None]);
}

#[test]
fn segment_after_the_end_of_a_half_open_connection_keeps_its_number() {
    let dropped = step(RequestStep::Dropped {
        by_timer: false,
        listening: true,
    });
    let script = [
        (US, syn(ISN)),
        (US, step(RequestStep::Begun)),
        (US, syn_ack()),
        (MS, dropped),
        (US, ack()),
    ];
    let (segments, _) = played(&Hook::ALL, &script);
    assert_eq!(segments, [Some(2); 3]);
}

/// The retransmission of the SYN-ACK shows a half-open connection before the final ACK. The ACK
/// then has that connection's number.
#[test]
fn final_ack_has_the_number_of_a_known_half_open_connection() {
    let script = [
        (US, syn(ISN)),
        (US, syn_ack()),
        (600 * MS, syn_ack()),
        (US, step(RequestStep::SynackRetransmitted)),
        (US, ack()),
        (US, born()),
        (US, Kind::SetState(child(2).enters(SynRecv, Established))),
    ];
    let hooks = [Hook::InetSockSetState, Hook::TcpRetransmitSynack];
    let (segments, transitions) = played(&hooks, &script);
    assert_eq!(segments.last(), Some(&Some(2)));
    assert_eq!(transitions, [Some(2); 2]);
}
