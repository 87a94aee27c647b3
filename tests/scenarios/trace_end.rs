//! The end of a trace: by a signal, by itself, or by force.

use std::io::{BufRead, BufReader, pipe};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;
use tests::Lab;
use tests::programs::Programs;
use tests::run::{Running, tcptrace_trace};
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
fn only_a_second_ctrl_c_ends_without_writing_the_remaining_lines() {
    const ENOUGH_TO_FILL_A_PIPE: usize = 400;
    let lab = Lab::alone();
    let port = lab.port();
    let (reader, writer) = pipe().unwrap();
    let mut command = tcptrace_trace(&["-o", "json"]);
    command.stdout(writer);
    let mut running = Running::spawn(command);
    let mut session = String::new();
    let mut reader = BufReader::new(reader);
    reader.read_line(&mut session).unwrap();
    let programs = Programs::of(running.pid());

    for _ in 0..ENOUGH_TO_FILL_A_PIPE {
        talk(port);
    }
    running.signal(Signal::SIGINT);
    for signal in [Signal::SIGTERM, Signal::SIGHUP] {
        sleep(Duration::from_millis(700));
        running.signal(signal);
    }
    sleep(Duration::from_millis(100));
    assert!(
        running.is_running(),
        "tcptrace must still be blocked in writing"
    );
    running.signal(Signal::SIGINT);
    assert_eq!(running.wait().code, Some(128 + Signal::SIGINT as i32));
    programs.wait_until_gone();
}

#[test]
fn kill_9_leaves_no_program_behind() {
    let lab = Lab::new();
    let mut tracer = lab.trace();
    talk(lab.port());
    let programs = tracer.programs().clone();
    tracer.process().signal(Signal::SIGKILL);
    programs.wait_until_gone();
}

#[test]
fn a_closed_output_pipe_ends_with_success() {
    let lab = Lab::new();
    let port = lab.port();
    let (reader, writer) = pipe().unwrap();
    let mut command = tcptrace_trace(&["-o", "json"]);
    command.stdout(writer).stderr(std::process::Stdio::piped());
    let running = Running::spawn(command);
    // Acts like `| head -1`.
    let mut session = String::new();
    BufReader::new(reader).read_line(&mut session).unwrap();
    talk(port);
    let ended = running.wait();
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
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
