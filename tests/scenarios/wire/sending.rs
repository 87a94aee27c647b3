//! Data that is lost, or for which the window has no room. No state changes until the kernel gives
//! up.

use std::io::{ErrorKind, Read};
use std::thread::sleep;
use std::time::Duration;

use socket2::SockRef;
use tests::trace::NULL;
use tests::traffic::*;
use tests::{Lab, Peer};

use super::*;

#[test]
fn unacknowledged_data_is_sent_again() {
    const RETRANSMITS: usize = 3;
    let lab = Lab::new();
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let (mut talk, mut server) = accepted(&lab, &peer);
    send_text(&mut server);
    let first = talk.receive_data();
    let again: Vec<_> = (0..RETRANSMITS).map(|_| talk.receive_data()).collect();
    talk.ack();
    talk.receive_nothing_for(A_WHILE);
    let trace = tracer.stop();

    for it in &again {
        assert_eq!(it.segment, first.segment);
    }
    assert_eq!(path(&trace), "LISTEN SYN_RECV ESTABLISHED");
    trace
        .server()
        .shows(&[("error", &NULL), ("complete", &true)]);
}

#[test]
fn data_waits_while_the_window_is_zero() {
    let lab = Lab::new();
    let (own, port) = (lab.port(), lab.port());
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let listener = serve(port);
    let mut talk = peer.talk(own, port);
    talk.syn();
    talk.receive_syn_ack();
    // The window is zero from the handshake on, so that the kernel knows it before accept()
    // returns.
    talk.window = 0;
    talk.ack();
    let mut server = accept(&listener).stream;
    send_text(&mut server);
    talk.receive("a probe of the window", |it| it.is_empty());
    sleep(A_WHILE);
    let before = talk.received().iter().all(|it| it.segment.data.is_empty());
    assert!(before, "data into a window of zero");
    talk.window = u16::MAX;
    talk.ack();
    let data = talk.receive_data();
    talk.ack();
    let trace = tracer.stop();

    assert_eq!(data.segment.data, TEXT);
    assert_eq!(path(&trace), "LISTEN SYN_RECV ESTABLISHED");
    trace
        .server()
        .shows(&[("error", &NULL), ("complete", &true)]);
}

#[test]
fn unacknowledged_data_times_out() {
    let lab = Lab::new();
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let (mut talk, mut server) = accepted(&lab, &peer);
    let patience = Duration::from_millis(700);
    SockRef::from(&server)
        .set_tcp_user_timeout(Some(patience))
        .unwrap();
    send_text(&mut server);
    let first = talk.receive_data();
    let error = server.read(&mut [0]).unwrap_err();
    let gave_up_ns = tests::task::now_ns();
    tracer.wait_for_ends(1);
    let trace = tracer.stop();

    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(path(&trace), "LISTEN SYN_RECV ESTABLISHED CLOSE");
    let connection = trace.server();
    connection.shows(&[("error", &"ETIMEDOUT"), ("complete", &true)]);
    let closed_ns = connection.num("closed_mono_ns");
    let waited_ns = closed_ns - first.at_ns;
    let patience_ns = patience.as_nanos() as u64;
    let until = [first.at_ns + patience_ns, gave_up_ns];
    lasted(waited_ns, [first.at_ns; 2], until);
}
