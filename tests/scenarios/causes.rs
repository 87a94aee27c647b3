//! The cause of each state change: a segment, a system call or a timer.

use std::io::Write;

use serde_json::Value;
use tests::trace::NULL;
use tests::traffic::*;
use tests::{Lab, Line, Trace};

/// Returns the causes of a connection's transitions in order.
fn causes(trace: &Trace, connection: &Line) -> Vec<Value> {
    let transitions = trace.transitions(&connection["conn"]);
    transitions.iter().map(|it| it["cause"].clone()).collect()
}

#[test]
fn each_transition_of_an_ordinary_connection_has_a_cause() {
    let lab = Lab::new();
    let tracer = lab.trace();
    talk(lab.port());
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    let client = ["connect", "syn_ack_received", "close", "ack_of_fin"];
    let seen = causes(&trace, trace.client());
    assert_eq!(seen[..4], client.map(Value::from));
    // The server closes when it reads the end of the stream, before or after the kernel has put the
    // client into a bucket.
    assert!(
        seen[4] == "ack_of_fin" || seen[4] == "fin_received",
        "{seen:?}"
    );

    let seen = causes(&trace, trace.server());
    let server = [
        "ack_received",
        "ack_received",
        "fin_received",
        "close",
        "ack_of_fin",
    ];
    assert_eq!(seen, server.map(Value::from));

    let listen = trace.listen();
    listen.is_caused_by("listen", "inet_csk_listen_start");
    listen.is_caused_by("listen", "3.10.1");
}

#[test]
fn a_rst_has_the_cause_abort_at_its_sender_and_rst_received_at_its_receiver() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen(port);
    let mut client = connect(port);
    client.write_all(TEXT).unwrap();
    let server = accept(&listener).stream;
    // The server has unread data, so its kernel answers the close with a RST.
    drop(server);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    let last = |line| trace.transitions(&line)[..].last().unwrap()["cause"].clone();
    assert_eq!(last(trace.server()["conn"].clone()), "abort");
    assert_eq!(last(trace.client()["conn"].clone()), "rst_received");
}

#[test]
fn a_connect_to_a_closed_port_ends_by_rst() {
    let lab = Lab::new();
    let tracer = lab.trace();
    std::net::TcpStream::connect((LOOPBACK, lab.port())).unwrap_err();
    tracer.wait_for_ends(1);
    let trace = tracer.stop();

    let client = trace.client();
    assert_eq!(causes(&trace, client), ["connect", "rst_received"]);
    client.shows(&[("error", &"ECONNREFUSED"), ("established_mono_ns", &NULL)]);
}
