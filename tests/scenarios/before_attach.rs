//! Sockets and calls from before the trace. Known facts are reported, unknown ones are null.

use tests::Lab;
use tests::task::{join, spawn, tid, wait_until_in_accept};
use tests::trace::NULL;
use tests::traffic::*;

#[test]
fn an_accept_blocked_before_the_trace_is_reported_without_its_call_time() {
    let lab = Lab::new();
    let port = lab.port();
    let listener = listen(port);
    let (acceptor, accepting) = spawn(move || accept(&listener));
    wait_until_in_accept(acceptor);

    let tracer = lab.trace();
    close(connect(port), join(accepting).stream);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    trace.accept().shows(&[
        ("called_mono_ns", &NULL),
        ("blocked_ns", &NULL),
        ("tid", &acceptor),
    ]);
    trace
        .server()
        .shows(&[("verdict", &"awaited"), ("complete", &true)]);
}

#[test]
fn a_connection_that_was_already_queued_is_incomplete() {
    let lab = Lab::new();
    let port = lab.port();
    let listener = listen(port);
    let client = connect(port);

    let tracer = lab.trace();
    let accepted = accept(&listener);
    tracer.wait_for(1, "the accept", |line| line.is("accept"));
    let trace = tracer.stop();

    trace.accept().shows(&[
        ("rport", &port_of(&client)),
        ("tid", &tid()),
        ("accept_queue_ns", &NULL),
    ]);
    trace.server().shows(&[
        ("complete", &false),
        ("established_mono_ns", &NULL),
        ("accept_queue_ns", &NULL),
        ("state", &"ESTABLISHED"),
    ]);
    drop(accepted);
}

#[test]
fn a_connection_that_was_already_open_is_incomplete() {
    let lab = Lab::new();
    let port = lab.port();
    let listener = listen(port);
    let client = connect(port);
    let server = accept(&listener).stream;
    let client_port = port_of(&client);

    let tracer = lab.trace();
    close(client, server);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    let mut ends: Vec<_> = trace.own("connection").collect();
    ends.sort_by_key(|line| line["lport"] == port);
    for line in &ends {
        line.shows(&[
            ("complete", &false),
            ("established_mono_ns", &NULL),
            ("accepted_mono_ns", &NULL),
            ("state", &"CLOSE"),
        ]);
    }
    ends[0].shows(&[("lport", &client_port), ("rport", &port)]);
    ends[1].shows(&[("lport", &port), ("rport", &client_port)]);
}
