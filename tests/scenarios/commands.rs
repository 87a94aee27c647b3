//! Tests of `tcptrace … -- COMMAND…`.

use nix::sys::signal::Signal;
use tests::run::{Running, helper_path, tcptrace_trace};
use tests::tracer::await_session;
use tests::{Lab, Tracer};

/// Builds `tcptrace -o json ARGS… -- tests-helper ROLE…`.
fn with_helper(args: &[&str], role: &[&str]) -> std::process::Command {
    let helper = helper_path();
    let helper = helper.to_str().expect("a printable path");
    tcptrace_trace(&[&["-o", "json"], args, &["--", helper], role].concat())
}

#[test]
fn a_command_is_traced_from_its_first_packet_to_its_exit() {
    let lab = Lab::new();
    let port = lab.port();
    let command = with_helper(&[], &["talk", &port.to_string(), "7"]);
    let trace = Tracer::spawn(&lab, command).ended(7);

    let server = trace.server();
    server.shows(&[
        ("lport", &port),
        ("verdict", &"queued"),
        ("comm", &"tests-helper"),
        ("complete", &true),
    ]);
    trace.listen().shows(&[("pid", &server["pid"])]);
    trace.client().shows(&[("pid", &server["pid"])]);
}

#[test]
fn output_of_the_command_goes_to_stderr() {
    let lab = Lab::new();
    let port = lab.port().to_string();
    let ended = Running::run_to_end(with_helper(&[], &["talk", &port, "0"]));
    assert_eq!(ended.code, Some(0));
    assert!(ended.stderr.contains("the helper talks"));
    assert!(!ended.stdout.contains("the helper talks"));
}

#[test]
fn ending_the_trace_ends_the_command() {
    let _lab = Lab::new();
    let running = Running::start(with_helper(&[], &["sleep", "600"]));
    await_session(&running);
    running.signal(Signal::SIGTERM);
    let ended = running.wait();
    // Like a shell: 128 + the signal that ended the command.
    assert_eq!(ended.code, Some(128 + Signal::SIGTERM as i32));
    let last = ended.stdout.lines().last().unwrap_or_default();
    assert!(last.contains(r#""event":"summary""#), "{last}");
}

#[test]
fn a_command_that_does_not_exist_is_named() {
    let ended = Running::run_to_end(tcptrace_trace(&["-o", "json", "--", "no-such-command"]));
    assert_ne!(ended.code, Some(0));
    assert_eq!(ended.stdout, "", "nothing was attached");
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("no-such-command"), "{}", ended.stderr);
}
