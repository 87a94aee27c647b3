//! The ends of connections, seen from both sides: the diagram of RFC 9293, figure 5.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;

use tests::task::{pid, tid};
use tests::trace::NULL;
use tests::traffic::*;
use tests::{Lab, Trace, Tracer};

/// Makes an accepted connection.
fn a_pair(lab: &Lab) -> (Tracer, TcpStream, TcpStream) {
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen(port);
    let client = connect(port);
    let server = accept(&listener).stream;
    (tracer, client, server)
}

/// Asserts the states after ESTABLISHED of client and server.
#[track_caller]
fn paths(trace: &Trace, client: &str, server: &str) {
    let of = |side: &str| trace.path(&trace.connections(side)[0]["conn"]);
    assert_eq!(of("client"), format!("CLOSE SYN_SENT ESTABLISHED {client}"));
    assert_eq!(
        of("server"),
        format!("LISTEN SYN_RECV ESTABLISHED {server}")
    );
}

#[test]
fn the_client_closes_first_and_enters_time_wait() {
    let lab = Lab::new();
    let (tracer, client, server) = a_pair(&lab);
    close(client, server);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    paths(
        &trace,
        "FIN_WAIT1 FIN_WAIT2 CLOSE",
        "CLOSE_WAIT LAST_ACK CLOSE",
    );
    let client = trace.client();
    client.shows(&[
        ("state", &"CLOSE"),
        ("error", &NULL),
        ("pid_source", &"connect"),
        ("complete", &true),
    ]);
    // The process caused the first state change, the network the others.
    let steps = trace.transitions(&client["conn"]);
    steps[2].shows(&[
        ("newstate", &"FIN_WAIT1"),
        ("context", &"process"),
        ("pid", &pid()),
    ]);
    let served = trace.transitions(&trace.server()["conn"]);
    served[2].shows(&[("newstate", &"CLOSE_WAIT"), ("context", &"softirq")]);
}

#[test]
fn the_server_closes_first_and_enters_time_wait() {
    let lab = Lab::new();
    let (tracer, client, server) = a_pair(&lab);
    close(server, client);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    paths(
        &trace,
        "CLOSE_WAIT LAST_ACK CLOSE",
        "FIN_WAIT1 FIN_WAIT2 CLOSE",
    );
}

#[test]
fn simultaneous_close_goes_through_closing() {
    let lab = Lab::new();
    let (tracer, client, server) = a_pair(&lab);
    close_at_once(&client, &server);
    tracer.wait_for_ends(2);
    drop((client, server));
    let trace = tracer.stop();

    let paths = ["client", "server"].map(|side| trace.path(&trace.connections(side)[0]["conn"]));
    let closing = |path: &&String| path.ends_with("ESTABLISHED FIN_WAIT1 CLOSING CLOSE");
    assert!(paths.iter().any(|path| closing(&path)), "{paths:?}");
}

#[test]
fn a_reset_ends_both_sides_at_once() {
    let lab = Lab::new();
    let (tracer, client, mut server) = a_pair(&lab);
    reset(client);
    let error = server.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    paths(&trace, "CLOSE", "CLOSE");
    trace.server().shows(&[("error", &"ECONNRESET")]);
}

#[test]
fn a_refused_connection_names_its_caller() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let error = TcpStream::connect((LOOPBACK, port)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    tracer.wait_for_ends(1);
    let trace = tracer.stop();

    let client = trace.client();
    assert_eq!(trace.path(&client["conn"]), "CLOSE SYN_SENT CLOSE");
    client.shows(&[
        ("error", &"ECONNREFUSED"),
        ("raddr", &"127.0.0.1"),
        ("rport", &port),
        ("pid", &pid()),
        ("tid", &tid()),
        ("pid_source", &"connect"),
        ("established_mono_ns", &NULL),
        ("handshake_ns", &NULL),
        ("verdict", &NULL),
        ("reason", &NULL),
        ("complete", &true),
    ]);
    assert!(client.num("syn_mono_ns") <= client.num("closed_mono_ns"));
    assert!(trace.connections("server").is_empty());
}

#[test]
fn a_connection_reset_in_the_queue_can_still_be_accepted() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen(port);
    let client = connect(port);
    let client_port = port_of(&client);
    reset(client);
    tracer.wait_for(1, "the reset to arrive", |line| {
        line.is("transition") && line["side"] == "server" && line["newstate"] == "CLOSE"
    });
    let accepted = accept(&listener);
    assert_eq!(accepted.peer.port(), client_port);
    drop(accepted);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    let connection = trace.server();
    connection.shows(&[
        ("verdict", &"queued"),
        ("error", &"ECONNRESET"),
        ("state", &"CLOSE"),
        ("complete", &true),
    ]);
    assert!(connection.num("closed_mono_ns") < connection.num("accepted_mono_ns"));
    trace
        .accept_of(client_port)
        .shows(&[("conn", &connection["conn"])]);
}

#[test]
fn a_connection_reset_in_the_queue_may_never_be_accepted() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen(port);
    reset(connect(port));
    tracer.wait_for(1, "the reset to arrive", |line| {
        line.is("transition") && line["side"] == "server" && line["newstate"] == "CLOSE"
    });
    drop(listener);
    let trace = tracer.stop();

    trace.server().shows(&[
        ("verdict", &"never_accepted"),
        ("error", &"ECONNRESET"),
        ("state", &"CLOSE"),
        ("accepted_mono_ns", &NULL),
    ]);
}

#[test]
fn a_listener_that_closes_resets_its_queued_connections() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen(port);
    let mut client = connect(port);
    drop(listener);
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    trace.server().shows(&[
        ("verdict", &"never_accepted"),
        ("accepted_mono_ns", &NULL),
        ("state", &"CLOSE"),
        ("complete", &true),
    ]);
    trace.client().shows(&[("error", &"ECONNRESET")]);
}
