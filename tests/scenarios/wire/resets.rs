//! A RST in every state after the handshake.

use std::io::{ErrorKind, Read};

use tests::task::{join, now_ns};
use tests::trace::NULL;
use tests::traffic::close_half;
use tests::{Lab, Peer};

use super::*;

/// Asserts the states of a server, and the error with which it ended.
#[track_caller]
fn ended(trace: &Trace, states: &str, error: &str) {
    let opened = "LISTEN SYN_RECV ESTABLISHED";
    assert_eq!(path(trace), format!("{opened} {states}"));
    trace
        .server()
        .shows(&[("state", &"CLOSE"), ("error", &error), ("complete", &true)]);
}

#[test]
fn a_rst_ends_a_server_in_established() {
    let lab = Lab::new();
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let (mut talk, mut server) = accepted(&lab, &peer);
    std::thread::sleep(A_WHILE);
    let reset_ns = talk.rst();
    let error = server.read(&mut [0]).unwrap_err();
    tracer.wait_for_ends(1);
    let trace = tracer.stop();

    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    ended(&trace, "CLOSE", "ECONNRESET");
    let opened_ns = trace.server().num("established_mono_ns");
    caused(entered(&trace, "CLOSE"), reset_ns, opened_ns);
}

#[test]
fn a_rst_ends_a_client_in_established() {
    let lab = Lab::new();
    let port = lab.port();
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let (_, calling) = call(port);
    let mut talk = peer.answer(port);
    let _client = join(calling).unwrap();
    std::thread::sleep(A_WHILE);
    let reset_ns = talk.rst();
    tracer.wait_for_ends(1);
    let trace = tracer.stop();

    assert_eq!(path(&trace), "CLOSE SYN_SENT ESTABLISHED CLOSE");
    let client = trace.client();
    client.shows(&[("error", &"ECONNRESET"), ("complete", &true)]);
    let opened_ns = client.num("established_mono_ns");
    caused(client.num("closed_mono_ns"), reset_ns, opened_ns);
}

#[test]
fn a_rst_ends_fin_wait_1() {
    let lab = Lab::new();
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let (mut talk, server) = accepted(&lab, &peer);
    let closed_ns = now_ns();
    drop(server);
    let fin = talk.receive_fin();
    std::thread::sleep(A_WHILE);
    let reset_ns = talk.rst();
    tracer.wait_for_ends(1);
    let trace = tracer.stop();

    ended(&trace, "FIN_WAIT1 CLOSE", "ECONNRESET");
    lasted(
        time_in(&trace, "FIN_WAIT1"),
        [closed_ns, fin.at_ns],
        reset_ns,
    );
}

#[test]
fn a_rst_ends_fin_wait_2() {
    let lab = Lab::new();
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let (mut talk, server) = accepted(&lab, &peer);
    close_half(&server);
    talk.receive_fin();
    let ack_ns = talk.ack();
    std::thread::sleep(A_WHILE);
    let reset_ns = talk.rst();
    tracer.wait_for_ends(1);
    let trace = tracer.stop();

    ended(&trace, "FIN_WAIT1 FIN_WAIT2 CLOSE", "ECONNRESET");
    lasted(time_in(&trace, "FIN_WAIT2"), ack_ns, reset_ns);
}

/// A socket that no process has open does not wait for the peer's FIN itself. The kernel replaces
/// it by a bucket, and no event shows the bucket's end.
#[test]
fn a_rst_ends_the_bucket_of_fin_wait_2() {
    let lab = Lab::new();
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let (mut talk, server) = accepted(&lab, &peer);
    drop(server);
    let fin = talk.receive_fin();
    std::thread::sleep(A_WHILE);
    let ack_ns = talk.ack();
    std::thread::sleep(A_WHILE);
    talk.rst();
    // The RST has removed the bucket: an ACK finds nothing.
    talk.ack();
    talk.receive_rst();
    tracer.wait_for_ends(1);
    let trace = tracer.stop();

    assert_eq!(
        path(&trace),
        "LISTEN SYN_RECV ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE"
    );
    trace
        .server()
        .shows(&[("state", &"CLOSE"), ("error", &NULL), ("complete", &true)]);
    caused(entered(&trace, "CLOSE"), ack_ns, fin.at_ns);
}

/// The process learns of the RST by the error EPIPE, because it has read the end of the stream and
/// may still write.
#[test]
fn a_rst_ends_close_wait() {
    let lab = Lab::new();
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let (mut talk, server) = accepted(&lab, &peer);
    let fin_ns = talk.fin();
    talk.receive_ack();
    std::thread::sleep(A_WHILE);
    let reset_ns = talk.rst();
    tracer.wait_for_ends(1);
    let error = server.take_error().unwrap().unwrap();
    let trace = tracer.stop();

    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    ended(&trace, "CLOSE_WAIT CLOSE", "EPIPE");
    lasted(time_in(&trace, "CLOSE_WAIT"), fin_ns, reset_ns);
}

#[test]
fn a_rst_ends_last_ack() {
    let lab = Lab::new();
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let (mut talk, server) = accepted(&lab, &peer);
    talk.fin();
    talk.receive_ack();
    let closed_ns = now_ns();
    drop(server);
    let fin = talk.receive_fin();
    std::thread::sleep(A_WHILE);
    let reset_ns = talk.rst();
    tracer.wait_for_ends(1);
    let trace = tracer.stop();

    ended(&trace, "CLOSE_WAIT LAST_ACK CLOSE", "ECONNRESET");
    lasted(
        time_in(&trace, "LAST_ACK"),
        [closed_ns, fin.at_ns],
        reset_ns,
    );
}
