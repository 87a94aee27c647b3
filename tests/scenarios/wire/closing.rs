//! FINs in every order. TIME_WAIT is not shown, because the socket itself is gone then.

use std::thread::sleep;

use tests::task::now_ns;
use tests::trace::NULL;
use tests::traffic::*;
use tests::{Lab, Peer};

use super::*;

/// Asserts the server's states after the handshake, and that it ended without an error.
#[track_caller]
pub(crate) fn ended(trace: &Trace, states: &str) {
    let opened = "LISTEN SYN_RECV ESTABLISHED";
    assert_eq!(path(trace), format!("{opened} {states}"));
    trace
        .server()
        .shows(&[("state", &"CLOSE"), ("error", &NULL), ("complete", &true)]);
}

#[test]
fn a_fin_of_the_peer_leads_through_close_wait_and_last_ack() {
    let lab = Lab::new();
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let (mut talk, mut server) = accepted(&lab, &peer);
    let fin_ns = talk.fin();
    talk.receive_ack();
    receive_end(&mut server);
    sleep(A_WHILE);
    let closed_ns = now_ns();
    drop(server);
    let answer = talk.receive_fin();
    sleep(A_WHILE);
    let ack_ns = talk.ack();
    tracer.wait_for_ends(1);
    let trace = tracer.stop();

    ended(&trace, "CLOSE_WAIT LAST_ACK CLOSE");
    lasted(
        time_in(&trace, "CLOSE_WAIT"),
        fin_ns,
        [closed_ns, answer.at_ns],
    );
    lasted(
        time_in(&trace, "LAST_ACK"),
        [closed_ns, answer.at_ns],
        ack_ns,
    );
}

#[test]
fn a_fin_with_data_leads_to_close_wait() {
    let lab = Lab::new();
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let (mut talk, mut server) = accepted(&lab, &peer);
    sleep(A_WHILE);
    let fin_ns = talk.fin_with(TEXT);
    talk.receive_ack();
    receive_text(&mut server);
    receive_end(&mut server);
    drop(server);
    talk.receive_fin();
    talk.ack();
    tracer.wait_for_ends(1);
    let trace = tracer.stop();

    ended(&trace, "CLOSE_WAIT LAST_ACK CLOSE");
    let opened_ns = trace.server().num("established_mono_ns");
    caused(entered(&trace, "CLOSE_WAIT"), fin_ns, opened_ns);
}

/// Two FINs cross (RFC 9293, section 3.6).
#[test]
fn crossing_fins_lead_through_closing() {
    let lab = Lab::new();
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let (mut talk, server) = accepted(&lab, &peer);
    let open = talk.ack;
    let closed_ns = now_ns();
    drop(server);
    let fin = talk.receive_fin();
    sleep(A_WHILE);
    // Acts as if the kernel's FIN had not arrived yet.
    let all = std::mem::replace(&mut talk.ack, open);
    let crossed_ns = talk.fin();
    talk.receive_ack();
    sleep(A_WHILE);
    talk.ack = all;
    let ack_ns = talk.ack();
    tracer.wait_for_ends(1);
    let trace = tracer.stop();

    ended(&trace, "FIN_WAIT1 CLOSING CLOSE");
    lasted(
        time_in(&trace, "FIN_WAIT1"),
        [closed_ns, fin.at_ns],
        crossed_ns,
    );
    lasted(time_in(&trace, "CLOSING"), crossed_ns, ack_ns);
}

#[test]
fn close_wait_lasts_while_the_kernel_still_sends() {
    let lab = Lab::new();
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let (mut talk, mut server) = accepted(&lab, &peer);
    let fin_ns = talk.fin();
    talk.receive_ack();
    receive_end(&mut server);
    sleep(A_WHILE);
    send_text(&mut server);
    let data = talk.receive_data();
    talk.ack();
    let closed_ns = now_ns();
    drop(server);
    let answer = talk.receive_fin();
    talk.ack();
    tracer.wait_for_ends(1);
    let trace = tracer.stop();

    assert_eq!(data.segment.data, TEXT);
    ended(&trace, "CLOSE_WAIT LAST_ACK CLOSE");
    lasted(
        time_in(&trace, "CLOSE_WAIT"),
        fin_ns,
        [closed_ns, answer.at_ns],
    );
}

#[test]
fn fin_wait2_lasts_while_the_peer_still_sends() {
    let lab = Lab::new();
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let (mut talk, mut server) = accepted(&lab, &peer);
    close_half(&server);
    talk.receive_fin();
    let ack_ns = talk.ack();
    sleep(A_WHILE);
    talk.data(TEXT);
    talk.receive_ack();
    receive_text(&mut server);
    sleep(A_WHILE);
    let fin_ns = talk.fin();
    talk.receive_ack();
    tracer.wait_for_ends(1);
    let trace = tracer.stop();

    // The process still has the socket open, so the socket itself waits for the FIN.
    ended(&trace, "FIN_WAIT1 FIN_WAIT2 CLOSE");
    lasted(time_in(&trace, "FIN_WAIT2"), ack_ns, fin_ns);
}

/// The kernel's last ACK may be lost, and the peer then repeats its FIN. TIME_WAIT exists to answer
/// that FIN.
#[test]
fn a_repeated_fin_in_time_wait_is_acknowledged() {
    let lab = Lab::new();
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let (mut talk, server) = accepted(&lab, &peer);
    drop(server);
    talk.receive_fin();
    let fin_ns = talk.fin();
    let lost = talk.receive_ack();
    sleep(A_WHILE);
    talk.again();
    let again = talk.receive_ack();
    tracer.wait_for_ends(1);
    let trace = tracer.stop();

    assert_eq!(again.segment, lost.segment);
    ended(&trace, "FIN_WAIT1 FIN_WAIT2 CLOSE");
    assert!((fin_ns[0]..again.at_ns).contains(&entered(&trace, "CLOSE")));
}

/// A SYN with a higher sequence number than the old connection's ends TIME_WAIT.
#[test]
fn a_syn_with_the_same_ports_ends_time_wait() {
    let lab = Lab::new();
    let (own, port) = (lab.port(), lab.port());
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let listener = serve(port);
    let mut talk = peer.connect(own, port);
    drop(accept(&listener));
    talk.receive_fin();
    talk.fin();
    talk.receive_ack();

    sleep(A_WHILE);
    talk.seq += 100_000;
    let syn_ns = talk.syn();
    talk.receive_syn_ack();
    let ack_ns = talk.ack();
    let second = accept(&listener);
    assert_eq!(second.peer, (PEER, own).into());
    let trace = tracer.stop();

    let [old, new] = trace.connections("server")[..] else {
        panic!("two connections");
    };
    for connection in [old, new] {
        connection.shows(&[("lport", &port), ("rport", &own), ("complete", &true)]);
    }
    assert!(old.num("closed_mono_ns") < syn_ns[0]);
    old.shows(&[("state", &"CLOSE"), ("error", &NULL)]);
    assert!(ack_ns[0] <= new.num("established_mono_ns"));
    new.shows(&[("state", &"ESTABLISHED"), ("closed_mono_ns", &NULL)]);
}
