//! The handshake of a connect(). The peer answers late, unexpectedly, or not at all.

use std::fs;
use std::io::ErrorKind;
use std::thread::sleep;

use tests::peer::{Segment, SendTimes};
use tests::task::{join, now_ns};
use tests::trace::NULL;
use tests::{Lab, Peer};

use super::*;

/// Asserts that SYN_SENT and the handshake lasted as long as in the script.
#[track_caller]
pub(crate) fn opened(trace: &Trace, since: SendTimes, answered_ns: SendTimes) {
    let client = trace.client();
    client.shows(&[
        ("laddr", &"10.0.0.1"),
        ("raddr", &"10.0.0.2"),
        ("error", &NULL),
        ("verdict", &NULL),
        ("complete", &true),
    ]);
    lasted(time_in(trace, "SYN_SENT"), since, answered_ns);
    lasted(client.num("handshake_ns"), since, answered_ns);
}

/// Asserts that SYN_SENT led to CLOSE with this error, and lasted as long as in the script.
#[track_caller]
fn failed(trace: &Trace, error: &str, since: SendTimes, until: SendTimes) {
    assert_eq!(path(trace), "CLOSE SYN_SENT CLOSE");
    trace.client().shows(&[
        ("error", &error),
        ("established_mono_ns", &NULL),
        ("handshake_ns", &NULL),
        ("complete", &true),
    ]);
    lasted(time_in(trace, "SYN_SENT"), since, until);
}

#[test]
fn syn_sent_lasts_until_a_late_syn_ack() {
    let lab = Lab::new();
    let port = lab.port();
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let (called_ns, calling) = call(port);
    let (mut talk, syn) = peer.called(port);
    sleep(A_WHILE);
    let answered_ns = talk.syn_ack();
    talk.receive_ack();
    let _client = join(calling).unwrap();
    let trace = tracer.stop();

    assert_eq!(path(&trace), "CLOSE SYN_SENT ESTABLISHED");
    opened(&trace, [called_ns, syn.at_ns], answered_ns);
}

#[test]
fn a_rst_to_the_syn_refuses_the_connection() {
    let lab = Lab::new();
    let port = lab.port();
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let (called_ns, calling) = call(port);
    let (mut talk, syn) = peer.called(port);
    sleep(A_WHILE);
    let refused_ns = talk.rst();
    let error = join(calling).unwrap_err();
    tracer.wait_for_ends(1);
    let trace = tracer.stop();

    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    failed(&trace, "ECONNREFUSED", [called_ns, syn.at_ns], refused_ns);
}

#[test]
fn an_icmp_host_unreachable_fails_the_connection() {
    let lab = Lab::new();
    let port = lab.port();
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let (called_ns, calling) = call(port);
    let (_talk, syn) = peer.called(port);
    sleep(A_WHILE);
    let said_ns = peer.unreachable(&syn);
    let error = join(calling).unwrap_err();
    tracer.wait_for_ends(1);
    let trace = tracer.stop();

    assert_eq!(error.kind(), ErrorKind::HostUnreachable);
    failed(&trace, "EHOSTUNREACH", [called_ns, syn.at_ns], said_ns);
}

#[test]
fn an_unanswered_syn_times_out() {
    let lab = Lab::new();
    let port = lab.port();
    fs::write("/proc/sys/net/ipv4/tcp_syn_retries", "1").unwrap();
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let (called_ns, calling) = call(port);
    let (talk, syn) = peer.called(port);
    let error = join(calling).unwrap_err();
    let gave_up_ns = now_ns();
    tracer.wait_for_ends(1);
    let trace = tracer.stop();

    assert_eq!(error.kind(), ErrorKind::TimedOut);
    // Two SYNs on Linux before 6.5, whose timeout doubles from the first SYN on.
    let syns = talk.received();
    assert!(syns.len() >= 2, "a SYN, and once more at least");
    let last = syns[syns.len() - 1].at_ns;
    failed(
        &trace,
        "ETIMEDOUT",
        [called_ns, syn.at_ns],
        [last, gave_up_ns],
    );
}

/// The peer has a connection between these ports that the kernel has forgotten (RFC 9293, section
/// 3.5.1).
#[test]
fn an_ack_for_an_old_connection_is_answered_with_a_rst() {
    let lab = Lab::new();
    let port = lab.port();
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let (called_ns, calling) = call(port);
    let (mut talk, syn) = peer.called(port);
    let old = syn.segment.seq.wrapping_sub(1_000);
    talk.send(Segment {
        ack: Some(old),
        ..talk.segment()
    });
    let refusal = talk.receive_rst();
    sleep(A_WHILE);
    let answered_ns = talk.syn_ack();
    talk.receive_ack();
    let _client = join(calling).unwrap();
    let trace = tracer.stop();

    assert_eq!(refusal.segment.seq, old);
    assert_eq!(path(&trace), "CLOSE SYN_SENT ESTABLISHED");
    opened(&trace, [called_ns, syn.at_ns], answered_ns);
}
