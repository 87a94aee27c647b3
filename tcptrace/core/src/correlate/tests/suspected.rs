//! Tests of suspected drops at full accept queues, and of failed accept() calls.

use super::requests::request;
use super::*;
use crate::event::{
    Hook, NetnsCounters, QueueCounters, Request, RequestStep, Retransmit, Retransmitted,
};

const LIMIT: u32 = 4;
const EMFILE: u32 = 24;
const SECOND: u64 = 1_000 * MS;

/// Returns `listener()` with a short accept queue.
fn short() -> Sock {
    Sock {
        backlog_max: LIMIT,
        ..listener()
    }
}

/// Returns a child socket of the listener with the short queue.
fn queued(sk: u64) -> Sock {
    Sock {
        backlog_max: LIMIT,
        ..child(sk)
    }
}

/// Returns the birth of `queued(sk)`, which is queued behind `ahead` others.
fn enqueue(t: &mut Trace, sk: u64, ahead: u32) {
    t.set(SetState {
        backlog_len: ahead,
        ..queued(sk).enters(Listen, SynRecv)
    });
    t.set(SetState {
        backlog_len: ahead,
        ..queued(sk).enters(SynRecv, Established)
    });
}

/// Returns a trace with a listener, connection 1, whose accept queue is full with connections 2 to
/// 6.
fn full_queue() -> Trace {
    let mut t = trace();
    t.set(short().enters_by(server(), Close, Listen));
    for ahead in 0..=LIMIT {
        enqueue(&mut t, 10 + u64::from(ahead), ahead);
    }
    t
}

fn syn_again(t: &mut Trace, client: &Sock, times: u32) {
    t.wait(US);
    t.event(Kind::Retransmit(Retransmit {
        sk: client.sk,
        cookie: None,
        netns: NETNS,
        tuple: client.tuple,
        state: SynSent,
        what: Retransmitted::Syn,
        retransmits: times,
    }));
}

fn explanation(t: &Trace, conn: u64) -> Option<&str> {
    t.connection(conn).explanation.as_deref()
}

#[test]
fn syn_retransmitted_at_a_full_queue_names_it_as_likely_cause() {
    let mut t = full_queue();
    t.set(client(50).enters_by(visitor(), Close, SynSent));
    t.wait(SECOND);
    syn_again(&mut t, &client(50), 1);
    t.wait(SECOND);
    t.accept(short().accepts(&queued(10), Called::At(t.now)));
    t.wait(SECOND);
    syn_again(&mut t, &client(50), 2);
    t.set(client(50).enters(SynSent, Established));
    t.finish();
    assert_eq!(
        explanation(&t, 7),
        Some(
            "its SYN likely met a full accept queue of #1 (5 queued, limit 4) 2 times: the queue \
             was full when the SYN was sent, and it was sent again 2 times, so SYN_SENT lasted \
             3.000 s"
        )
    );
    // Suspected drops are not counted in `overflows`.
    assert_eq!(t.connection(7).overflows, None);
    assert_eq!(t.connection(7).first_overflow_mono_ns, None);
}

#[test]
fn syn_answered_at_once_has_no_suspected_drop() {
    let mut t = full_queue();
    t.set(client(50).enters_by(visitor(), Close, SynSent));
    t.set(client(50).enters(SynSent, Established));
    t.finish();
    assert_eq!(explanation(&t, 7), None);
}

#[test]
fn unanswered_syn_at_a_full_queue_has_a_suspected_drop() {
    let mut t = full_queue();
    t.set(client(50).enters_by(visitor(), Close, SynSent));
    t.wait(200 * MS);
    t.set(client(50).enters_by(visitor(), SynSent, Close));
    t.finish();
    assert_eq!(
        explanation(&t, 7),
        Some(
            "its SYN likely met a full accept queue of #1 (5 queued, limit 4) once: the queue was \
             full when the SYN was sent, and no answer came, so SYN_SENT lasted 200.0 ms"
        )
    );
}

#[test]
fn refused_syn_has_no_suspected_drop() {
    let mut t = full_queue();
    t.set(client(50).enters_by(visitor(), Close, SynSent));
    t.set(SetState {
        err: Some(111),
        ..client(50).enters(SynSent, Close)
    });
    t.finish();
    assert_eq!(explanation(&t, 7), None);
}

#[test]
fn queue_with_room_is_not_suspected() {
    let mut t = trace();
    t.set(short().enters_by(server(), Close, Listen));
    enqueue(&mut t, 10, LIMIT - 1);
    t.set(client(50).enters_by(visitor(), Close, SynSent));
    t.wait(SECOND);
    syn_again(&mut t, &client(50), 1);
    t.finish();
    assert_eq!(explanation(&t, 3), None);
}

#[test]
fn full_queue_of_another_port_or_namespace_is_not_suspected() {
    let mut t = full_queue();
    let elsewhere = Tuple {
        rport: Some(PORT + 1),
        ..client(50).tuple
    };
    let other_port = Sock {
        tuple: elsewhere,
        ..client(50)
    };
    t.set(other_port.enters_by(visitor(), Close, SynSent));
    t.set(SetState {
        netns: NETNS + 1,
        ..client(51).enters_by(visitor(), Close, SynSent)
    });
    t.wait(SECOND);
    t.finish();
    assert_eq!(explanation(&t, 7), None);
    assert_eq!(explanation(&t, 8), None);
}

/// A connection to another host cannot reach a listener at a wildcard address of this host.
#[test]
fn full_queue_at_a_wildcard_address_is_not_suspected_for_other_hosts() {
    let mut t = trace();
    let any = Sock {
        backlog_max: LIMIT,
        ..listener_at(1, "0.0.0.0")
    };
    t.set(any.enters_by(server(), Close, Listen));
    enqueue(&mut t, 10, LIMIT);
    for (sk, own, called) in [
        (50, "10.0.0.9", "192.0.2.1"),
        (51, "127.0.0.1", "127.0.0.2"),
        (52, "10.0.0.9", "10.0.0.9"),
    ] {
        let caller = Sock {
            tuple: tuple(own, 40_000 + sk as u16, Some((called, PORT))),
            ..client(sk)
        };
        t.set(caller.enters_by(visitor(), Close, SynSent));
    }
    t.wait(SECOND);
    t.finish();
    assert_eq!(explanation(&t, 3), None);
    assert!(explanation(&t, 4).is_some());
    assert!(explanation(&t, 5).is_some());
}

#[test]
fn no_drop_is_suspected_if_a_hook_sees_drops() {
    let mut t = full_queue();
    let correlator = std::mem::replace(&mut t.correlator, Correlator::new(START));
    t.correlator = correlator.with_hooks([Hook::ListenOverflow]);
    t.set(client(50).enters_by(visitor(), Close, SynSent));
    t.wait(SECOND);
    syn_again(&mut t, &client(50), 1);
    t.finish();
    assert_eq!(explanation(&t, 7), None);
    assert_eq!(t.connection(7).overflows, None);
}

fn synack_again(t: &mut Trace, child: &Sock, times: u32) {
    t.wait(US);
    t.event(Kind::Request(Request {
        synack_retransmits: times,
        ..request(child, RequestStep::SynackRetransmitted)
    }));
}

#[test]
fn synack_retransmitted_at_a_full_queue_names_it_at_both_ends() {
    let mut t = trace();
    t.set(short().enters_by(server(), Close, Listen));
    t.set(client(2).enters_by(visitor(), Close, SynSent));
    enqueue(&mut t, 14, LIMIT);
    let its_client = Sock {
        sk: Sk(50),
        ..client(2)
    };
    t.set(its_client.enters_by(visitor(), Close, SynSent));
    t.set(its_client.enters(SynSent, Established));
    let connected = t.now;
    t.wait(SECOND);
    synack_again(&mut t, &queued(2), 1);
    t.wait(SECOND);
    t.accept(short().accepts(&queued(14), Called::At(t.now)));
    enqueue(&mut t, 2, 0);
    let late = t.now - connected;
    t.finish();
    let server = t.connections();
    let server = server
        .iter()
        .find(|it| it.subject.rport == Some(40_002) && it.subject.side == Some(Side::Server));
    let server = server.unwrap();
    let reason = server.reason.as_deref().unwrap();
    assert!(
        reason.ends_with(
            "; its final ACK likely met a full accept queue (5 queued, limit 4) once: the SYN-ACK \
             was sent again once"
        ),
        "{reason}"
    );
    assert_eq!(server.overflows, None);
    let client = t.connection(server.peer_conn.unwrap());
    let text = client.explanation.as_deref().unwrap();
    assert!(
        text.starts_with("its final ACK likely met a full accept queue of #1 (5 queued, limit 4)"),
        "{text}"
    );
    assert_eq!(
        client.peer_established_mono_ns.unwrap() - connected,
        late,
        "{text}"
    );
}

/// If the client is not known, it is not known whether the final ACK was sent.
#[test]
fn synack_retransmitted_to_an_unknown_client_leaves_its_ack_open() {
    let mut t = full_queue();
    synack_again(&mut t, &queued(2), 1);
    t.wait(SECOND);
    t.event(Kind::Request(Request {
        synack_retransmits: 2,
        ..request(&queued(2), super::requests::TIMEOUT)
    }));
    assert_eq!(
        t.reason(7),
        "the handshake did not finish: the final ACK did not come, or met a full accept queue (5 \
         queued, limit 4) once; the SYN-ACK was sent 3 times"
    );
}

fn reading(t: &mut Trace, mono_ns: u64, listen_overflows: u64) {
    let event = Event {
        mono_ns,
        cpu: 0,
        lost: 0,
        kind: Kind::Note(Note::Counters(NetnsCounters {
            netns: NETNS,
            queues: QueueCounters {
                listen_overflows,
                listen_drops: listen_overflows,
                ..QueueCounters::default()
            },
        })),
    };
    t.correlator.event(&event, &mut t.lines);
}

fn counters(totals: &Totals) -> (Option<u64>, Option<u64>, Option<u64>) {
    let [it] = &totals.netns_counters[..] else {
        panic!("{:?}", totals.netns_counters);
    };
    let overflows = |it: Option<fields::QueueCounters>| it.map(|it| it.listen_overflows);
    (
        overflows(it.at_least),
        overflows(it.at_most),
        it.likely_listener,
    )
}

#[test]
fn counters_bound_the_drops_of_the_trace() {
    let mut t = trace();
    reading(&mut t, START - MS, 100);
    reading(&mut t, START, 103);
    t.set(short().enters_by(server(), Close, Listen));
    enqueue(&mut t, 10, LIMIT);
    t.wait(MS);
    let now = t.now;
    reading(&mut t, now, 228);
    t.wait(MS);
    let end = t.now + US;
    reading(&mut t, end + US, 230);
    let totals = t.finish();
    assert_eq!(counters(&totals), (Some(125), Some(130), Some(1)));
}

#[test]
fn namespace_without_readings_is_unknown() {
    let mut t = trace();
    reading(&mut t, START, 1);
    t.set(SetState {
        netns: NETNS + 1,
        ..short().enters_by(server(), Close, Listen)
    });
    assert_eq!(counters(&t.finish()), (None, None, None));
    // A trace without readings, such as an old recording, has no counters in its summary.
    assert!(full_queue().finish().netns_counters.is_empty());
}

#[test]
fn namespace_that_began_in_the_trace_has_no_upper_bound() {
    let mut t = full_queue();
    let now = t.now;
    reading(&mut t, now, 7);
    reading(&mut t, now + US, 8);
    let totals = t.finish();
    assert_eq!(counters(&totals), (Some(1), None, Some(1)));
}

#[test]
fn two_full_listeners_leave_the_likely_listener_null() {
    let mut t = full_queue();
    let other = Sock {
        tuple: tuple("127.0.0.1", PORT + 1, None),
        backlog_max: 0,
        ..listener_at(2, "127.0.0.1")
    };
    t.set(other.enters_by(server(), Close, Listen));
    let now = t.now;
    reading(&mut t, now, 0);
    reading(&mut t, now + US, 1);
    t.wait(MS);
    let its_child = Sock {
        tuple: tuple("127.0.0.1", PORT + 1, Some(("127.0.0.1", 40_000))),
        backlog_max: 0,
        ..child(60)
    };
    t.set(its_child.enters(Listen, SynRecv));
    let now = t.now;
    reading(&mut t, now, 2);
    let totals = t.finish();
    assert_eq!(counters(&totals).2, None);
}

#[test]
fn namespaces_with_listeners_are_read_if_no_hook_sees_drops() {
    let t = full_queue();
    assert_eq!(t.correlator.wants_counters(), [NETNS].into());
    assert!(trace().correlator.wants_counters().is_empty());
    let hooked = full_queue().correlator.with_hooks([Hook::ListenOverflow]);
    assert!(hooked.wants_counters().is_empty());
}

#[test]
fn failed_accepts_are_in_the_reason_of_the_connection_that_waited() {
    let mut t = listening();
    t.accept(listener().fails_to_accept(EMFILE));
    t.establish(&child(2));
    for _ in 0..137 {
        t.accept(listener().fails_to_accept(EMFILE));
    }
    t.accept(listener().fails_to_accept(11));
    t.wait(MS);
    t.accept(listener().accepts(&child(2), Called::At(t.now)));
    let at_accept = t.last_accept().reason.clone().unwrap();
    let expected = "; meanwhile accept() failed 137 times with EMFILE";
    assert!(at_accept.ends_with(expected), "{at_accept}");
    // Failures after the accept() are not about this connection.
    t.accept(listener().fails_to_accept(EMFILE));
    t.finish();
    assert!(t.reason(2).ends_with(expected), "{}", t.reason(2));
    assert!(!t.connection(2).reason_follows);
}

#[test]
fn failed_accepts_are_in_the_reason_of_a_never_accepted_connection() {
    let mut t = established();
    t.accept(listener().fails_to_accept(EMFILE));
    t.finish_with_queued(&[child(2)]);
    assert_eq!(t.verdict(2), Verdict::NeverAccepted);
    let expected = "; meanwhile accept() failed once with EMFILE";
    assert!(t.reason(2).ends_with(expected), "{}", t.reason(2));
}

#[test]
fn reason_without_failed_accepts_does_not_mention_them() {
    let mut t = listening();
    t.accept(listener().fails_to_accept(EMFILE));
    t.establish(&child(2));
    t.accept(listener().accepts(&child(2), Called::At(t.now)));
    t.finish();
    assert!(!t.reason(2).contains("failed"), "{}", t.reason(2));
}

/// Returns a transition of a socket whose link-local addresses belong to this device.
fn on_link(scope: u32, change: SetState) -> SetState {
    SetState {
        scope: Some(scope),
        ..change
    }
}

/// Returns the listener, its child socket and the client of a connection between link-local
/// addresses.
fn link_local(sk: u64) -> [Sock; 3] {
    let (own, peer) = (("fe80::1", PORT), ("fe80::2", 40_000));
    let sock = |n, tuple| Sock {
        sk: Sk(sk + n),
        tuple,
        backlog_max: 128,
    };
    [
        sock(0, tuple(own.0, own.1, None)),
        sock(1, tuple(own.0, own.1, Some(peer))),
        sock(2, tuple(peer.0, peer.1, Some(own))),
    ]
}

#[test]
fn same_link_local_address_on_two_links_has_two_listeners() {
    let mut t = trace();
    let links = [2, 3].map(|scope| (scope, link_local(100 * u64::from(scope))));
    for (scope, [listener, ..]) in links {
        let owner = task(scope, "owner");
        t.set(on_link(scope, listener.enters_by(owner, Close, Listen)));
    }
    for (scope, [_, child, _]) in links {
        t.set(on_link(scope, child.enters(Listen, SynRecv)));
        let line = t.last_transition();
        assert_eq!(line.subject.pid, Some(scope));
        assert_eq!(line.subject.scope_id, Some(scope));
    }
}

#[test]
fn peers_with_link_local_addresses_are_paired_by_link() {
    let mut t = trace();
    let links = [2, 3].map(|scope| (scope, link_local(100 * u64::from(scope))));
    for (scope, [.., client]) in links {
        t.set(on_link(scope, client.enters_by(visitor(), Close, SynSent)));
        t.set(on_link(scope, client.enters(SynSent, Established)));
    }
    // The server's sockets, in the other order of links.
    for (scope, [_, child, _]) in links.into_iter().rev() {
        t.set(on_link(scope, child.enters(Listen, SynRecv)));
        t.set(on_link(scope, child.enters(SynRecv, Established)));
    }
    t.finish();
    for (client, server) in [(1, 4), (2, 3)] {
        assert_eq!(t.connection(client).peer_conn, Some(server));
        assert_eq!(t.connection(server).peer_conn, Some(client));
    }
}
