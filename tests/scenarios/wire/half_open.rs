//! The handshake at a listener. The tracepoint prints nothing about a connection before its final
//! ACK.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use tests::peer::{Segment, SendTimes};
use tests::trace::NULL;
use tests::traffic::{TEXT, accept, set_option};
use tests::{Lab, Peer, Trace, eventually};

use super::*;

/// Asserts that the tracepoint printed only the listener. A half-open connection that was otherwise
/// seen is reported as unfinished.
#[track_caller]
fn no_connection(trace: &Trace) {
    for connection in trace.own("connection") {
        connection.shows(&[("verdict", &"unfinished"), ("established_mono_ns", &NULL)]);
    }
    let mut printed = trace.own("transition").filter(|it| !it.is_synthetic());
    assert!(printed.all(|it| it["side"] == "listener"));
    trace.summary().shows(&[("undecodable", &0)]);
}

/// Asserts how the half-open connection ended, if the trace has a hook for request sockets.
#[track_caller]
fn half_open_ended(trace: &Trace, how: &str, synack_retransmits: u32) {
    no_connection(trace);
    if trace.session()["hooks"]["request_sock"].is_null() {
        return;
    }
    // Without a hook for overflows, a RST that the kernel sends because of a full queue looks the
    // same.
    let overflows = !trace.session()["hooks"]["listen_overflow"].is_null();
    let known = overflows || how != "reset";
    let how = if known { how.into() } else { NULL };
    let server = trace.server();
    server.shows(&[
        ("half_open_end", &how),
        ("synack_retransmits", &synack_retransmits),
        ("state", &"CLOSE"),
        ("complete", &true),
    ]);
    let steps = trace.own("transition");
    let last = steps
        .filter(|step| step["conn"] == server["conn"])
        .last()
        .expect("its end");
    last.shows(&[
        ("oldstate", &"NEW_SYN_RECV"),
        ("newstate", &"CLOSE"),
        ("in_state_ns", &server.num("half_open_ns")),
    ]);
}

/// Asserts that the connection begins when its final ACK is sent, and not at the earlier `since_ns`.
#[track_caller]
pub(crate) fn begins_with_the_ack(trace: &Trace, ack_ns: SendTimes, since_ns: u64) {
    let connection = trace.server();
    let steps = trace.transitions(&connection["conn"]);
    steps[0].shows(&[("oldstate", &"LISTEN"), ("newstate", &"SYN_RECV")]);
    steps[1].shows(&[("oldstate", &"SYN_RECV"), ("newstate", &"ESTABLISHED")]);
    for step in &steps[..2] {
        caused(step.num("mono_ns"), ack_ns, since_ns);
    }
    let established_ns = connection.num("established_mono_ns");
    caused(established_ns, ack_ns, since_ns);
    // The time of the SYN comes from a probe or an estimate. Some kernels give neither.
    if let Some(syn_ns) = connection.maybe("syn_mono_ns") {
        let tolerance = tolerance(ack_ns[1] - since_ns);
        assert!(
            syn_ns.abs_diff(since_ns) <= tolerance,
            "SYN at {since_ns}: {connection}"
        );
    }
    connection.shows(&[
        ("laddr", &"10.0.0.1"),
        ("raddr", &"10.0.0.2"),
        ("complete", &true),
    ]);
}

#[test]
fn a_missing_final_ack_leaves_no_connection() {
    let lab = Lab::new();
    let (own, port) = (lab.port(), lab.port());
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let _listener = serve(port);
    let mut talk = peer.talk(own, port);
    talk.syn();
    talk.receive_syn_ack();
    sleep(A_WHILE);
    no_connection(&tracer.stop());
}

#[test]
fn a_half_open_connection_expires_without_the_final_ack() {
    let lab = Lab::new();
    let (own, port) = (lab.port(), lab.port());
    fs::write("/proc/sys/net/ipv4/tcp_synack_retries", "1").unwrap();
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let _listener = serve(port);
    let mut talk = peer.talk(own, port);
    talk.syn();
    talk.receive_syn_ack();
    talk.receive_syn_ack();
    eventually("the half-open connection to expire", || {
        const NEW_SYN_RECV: &str = " 03 ";
        let sockets = fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
        (!sockets.contains(NEW_SYN_RECV)).then_some(())
    });
    talk.ack();
    talk.receive_rst();
    half_open_ended(&tracer.stop(), "timeout", 1);
}

#[test]
fn a_rst_ends_a_half_open_connection() {
    let lab = Lab::new();
    let (own, port) = (lab.port(), lab.port());
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let _listener = serve(port);
    let mut talk = peer.talk(own, port);
    talk.syn();
    talk.receive_syn_ack();
    talk.rst();
    // The request socket is gone, so an ACK completes no handshake.
    talk.ack();
    talk.receive_rst();
    half_open_ended(&tracer.stop(), "reset", 0);
}

#[test]
fn a_lost_syn_ack_is_sent_again() {
    let lab = Lab::new();
    let (own, port) = (lab.port(), lab.port());
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let _listener = serve(port);
    let mut talk = peer.talk(own, port);
    let syn_ns = talk.syn();
    let lost = talk.receive_syn_ack();
    let again = talk.receive_syn_ack();
    let ack_ns = talk.ack();
    until(&tracer, "ESTABLISHED");
    let trace = tracer.stop();

    assert_eq!(again.segment, lost.segment);
    assert!(again.at_ns - lost.at_ns > Duration::from_millis(500).as_nanos() as u64);
    begins_with_the_ack(&trace, ack_ns, syn_ns[0]);
}

#[test]
fn a_repeated_syn_makes_one_connection() {
    let lab = Lab::new();
    let (own, port) = (lab.port(), lab.port());
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let _listener = serve(port);
    let mut talk = peer.talk(own, port);
    let syn_ns = talk.syn();
    let answer = talk.receive_syn_ack();
    sleep(A_WHILE);
    talk.again();
    let same_answer = talk.receive_syn_ack();
    let ack_ns = talk.ack();
    until(&tracer, "ESTABLISHED");
    let trace = tracer.stop();

    // One connection, not two.
    assert_eq!(same_answer.segment, answer.segment);
    begins_with_the_ack(&trace, ack_ns, syn_ns[0]);
}

/// Sends a segment of an older connection between the same ports.
#[test]
fn an_old_ack_is_answered_with_a_rst_and_the_right_one_connects() {
    let lab = Lab::new();
    let (own, port) = (lab.port(), lab.port());
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let _listener = serve(port);
    let mut talk = peer.talk(own, port);
    let syn_ns = talk.syn();
    let syn_ack = talk.receive_syn_ack();
    let old = syn_ack.segment.seq.wrapping_sub(1_000);
    talk.send(Segment {
        ack: Some(old),
        ..talk.segment()
    });
    let refusal = talk.receive_rst();
    sleep(A_WHILE);
    let ack_ns = talk.ack();
    until(&tracer, "ESTABLISHED");
    let trace = tracer.stop();

    assert_eq!(refusal.segment.seq, old);
    begins_with_the_ack(&trace, ack_ns, syn_ns[0]);
}

/// The kernel stores nothing of the SYN. Only the SYN-ACK's sequence number encodes it.
#[test]
fn a_syn_cookie_makes_a_connection_at_the_final_ack() {
    let lab = Lab::new();
    let (own, port) = (lab.port(), lab.port());
    let always = "2";
    fs::write("/proc/sys/net/ipv4/tcp_syncookies", always).unwrap();
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let _listener = serve(port);
    let mut talk = peer.talk(own, port);
    let syn_ns = talk.syn();
    talk.receive_syn_ack();
    // The kernel does not repeat the SYN-ACK either.
    talk.receive_nothing_for(Duration::from_millis(1_500));
    let ack_ns = talk.ack();
    until(&tracer, "ESTABLISHED");
    let trace = tracer.stop();

    begins_with_the_ack(&trace, ack_ns, syn_ns[0]);
}

/// With TCP_DEFER_ACCEPT the final ACK alone changes nothing.
#[test]
fn a_deferred_accept_connects_with_the_first_data() {
    let lab = Lab::new();
    let (own, port) = (lab.port(), lab.port());
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let listener = serve(port);
    let seconds: libc::c_int = 30;
    set_option(
        &listener,
        libc::IPPROTO_TCP,
        libc::TCP_DEFER_ACCEPT,
        &seconds,
    );
    let mut talk = peer.connect(own, port);
    let syn_ack = talk.received().remove(0);
    sleep(A_WHILE);
    let data_ns = talk.data(TEXT);
    until(&tracer, "ESTABLISHED");
    accept(&listener);
    let trace = tracer.stop();

    begins_with_the_ack(&trace, data_ns, syn_ack.at_ns);
    trace.server().shows(&[("verdict", &"queued")]);
}
