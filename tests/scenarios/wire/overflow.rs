//! A listener whose accept queue is full when the final ACK arrives.

use std::fs;
use std::time::Duration;

use tests::trace::NULL;
use tests::traffic::{accept, listen_at};
use tests::{Lab, Peer};

use super::*;

/// The backlog of listen(). The queue holds one connection more.
const BACKLOG: i32 = 2;

/// Fills the queue with finished handshakes. Begins one more handshake before the queue is full,
/// because the kernel would not answer a later SYN. That handshake lacks only its final ACK.
fn all_but_one_ack<'a>(lab: &Lab, peer: &'a Peer, port: u16) -> (Vec<Talk<'a>>, Talk<'a>) {
    let mut queued: Vec<_> = (0..BACKLOG)
        .map(|_| peer.connect(lab.port(), port))
        .collect();
    let [mut last, late] = [lab.port(), lab.port()].map(|own| {
        let mut talk = peer.talk(own, port);
        talk.syn();
        talk.receive_syn_ack();
        talk
    });
    last.ack();
    queued.push(last);
    (queued, late)
}

#[test]
fn an_ack_at_a_full_queue_is_dropped_and_requested_again() {
    let lab = Lab::new();
    let port = lab.port();
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let listener = listen_at((KERNEL, port).into(), BACKLOG);
    let (queued, mut late) = all_but_one_ack(&lab, &peer, port);
    let dropped_ns = late.ack();
    // The peer is connected from its own view. The kernel waits for the ACK.
    let asked = late.receive_syn_ack();
    let room = accept(&listener);
    let ack_ns = late.ack();
    tracer.wait_for(4, "all to be established", |line| {
        line.is("transition") && line["newstate"] == "ESTABLISHED"
    });
    let trace = tracer.stop();

    let waited = Duration::from_nanos(asked.at_ns - dropped_ns[0]);
    assert!(waited > Duration::from_millis(500), "{waited:?}");
    let taken = trace.server_of(room.peer.port());
    taken.shows(&[("verdict", &"queued"), ("backlog_ahead", &0)]);
    let last = trace.server_of(late.own());
    last.shows(&[
        ("verdict", &"never_accepted"),
        ("backlog_ahead", &BACKLOG),
        ("backlog_max", &BACKLOG),
    ]);
    caused(last.num("established_mono_ns"), ack_ns, dropped_ns[0]);
    if trace.session()["hooks"]["listen_overflow"].is_null() {
        last.shows(&[("overflows", &NULL), ("first_overflow_mono_ns", &NULL)]);
    } else {
        last.shows(&[("overflows", &1)]);
        let dropped = last.num("first_overflow_mono_ns");
        assert!(dropped_ns[0] <= dropped && dropped < ack_ns[0], "{last}");
        let reason = last.text("reason");
        let full = format!(
            "a full accept queue ({} queued, limit {BACKLOG}) once",
            BACKLOG + 1
        );
        assert!(reason.contains("the final ACK had come"), "{reason}");
        assert!(reason.contains(&full), "{reason}");
        assert!(reason.contains("the SYN-ACK was sent again"), "{reason}");
    }
    assert_eq!(trace.connections("server").len(), queued.len() + 1);
}

#[test]
fn an_ack_at_a_full_queue_is_answered_with_a_rst_on_abort_on_overflow() {
    let lab = Lab::new();
    let port = lab.port();
    fs::write("/proc/sys/net/ipv4/tcp_abort_on_overflow", "1").unwrap();
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let _listener = listen_at((KERNEL, port).into(), BACKLOG);
    let (queued, mut late) = all_but_one_ack(&lab, &peer, port);
    late.ack();
    late.receive_rst();
    let trace = tracer.stop();

    let (late, servers): (Vec<_>, Vec<_>) = trace
        .connections("server")
        .into_iter()
        .partition(|it| it["rport"] == late.own());
    assert_eq!(servers.len(), queued.len());
    for connection in servers {
        connection.shows(&[("verdict", &"never_accepted"), ("state", &"ESTABLISHED")]);
    }
    // The connection never had more than a request socket.
    if trace.session()["hooks"]["request_sock"].is_null() {
        assert!(late.is_empty());
    } else {
        let [late] = late[..] else {
            panic!("{late:#?}");
        };
        let seen = !trace.session()["hooks"]["listen_overflow"].is_null();
        let end = if seen { "overflow".into() } else { NULL };
        late.shows(&[("verdict", &"unfinished"), ("half_open_end", &end)]);
    }
}
