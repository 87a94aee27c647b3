//! The end of a trace: by a signal, by itself, or by force.

use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;
use tests::Lab;
use tests::traffic::*;

#[test]
fn sigterm_ends_the_trace_with_its_summary() {
    let lab = Lab::new();
    let port = lab.port();
    let mut tracer = lab.trace();
    let listener = listen(port);
    let client = connect(port);
    tracer.process().signal(Signal::SIGTERM);
    let trace = tracer.ended(0);

    // Events before the signal are not missing.
    trace
        .server_of(port_of(&client))
        .shows(&[("verdict", &"never_accepted"), ("state", &"ESTABLISHED")]);
    drop(listener);
}

#[test]
fn duration_ends_the_trace() {
    const SECOND: u64 = 1_000_000_000;
    let lab = Lab::new();
    let tracer = lab.trace_with(&["--duration", "1s"]);
    talk(lab.port());
    let trace = tracer.ended(0);

    let duration = trace.summary().num("duration_ns");
    assert!((SECOND..10 * SECOND).contains(&duration), "{duration} ns");
    trace.server().shows(&[("verdict", &"queued")]);
}

#[test]
fn count_ends_the_trace_after_that_many_connections() {
    let lab = Lab::new();
    let port = lab.port();
    let args = ["-L", &port.to_string(), "--count", "3"];
    let mut tracer = lab.trace_with(&args);
    talk(port);
    talk(port);
    tracer.wait_for_ends(2);
    sleep(Duration::from_millis(200));
    assert!(
        tracer.process().is_running(),
        "the trace ended after two of three connections"
    );
    talk(port);
    let trace = tracer.ended_filtered(0, |tuple| tuple.lport == port);

    let servers = trace.connections("server");
    assert_eq!(servers.len(), 3);
    assert!(servers.iter().all(|line| line["state"] == "CLOSE"));
}

#[test]
fn events_after_the_last_counted_connection_are_left_out() {
    let lab = Lab::new();
    let (slow, quick) = (lab.port(), lab.port());
    let args = ["-L", &format!("{slow},{quick}"), "--count", "1"];
    let tracer = lab.trace_with(&args);
    let listener = listen(slow);
    let client = connect(slow);
    // The trace ends with this connection, so it does not have the events after it.
    talk(quick);
    let accepted = accept(&listener);
    let trace = tracer.ended_filtered(0, |tuple| [slow, quick].contains(&tuple.lport));

    let line = trace.server_of(port_of(&client));
    // With the syscall method an accept() of io_uring is not seen. No socket snapshot follows
    // --count, so the connection in the queue is not found either.
    let verdict = match trace.accept_attach_method() {
        "syscall" => "unknown",
        _ => "never_accepted",
    };
    line.shows(&[("verdict", &verdict)]);
    let told_at = line.num("mono_ns");
    assert!(
        told_at < accepted.returned_ns,
        "it was accepted by then: {line}"
    );
}
