//! `tcptrace record` decodes nothing while it runs. A replay shows everything afterwards.

use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::run::{Ended, Running, helper_path};
use tests::traffic::*;
use tests::{Lab, Trace, eventually, invariants};

use crate::replay::Recording;

const DONE: i32 = 0;
const FAILURE: i32 = 1;

/// Starts `tcptrace record -o FILE ARGS…` and waits until the hooks are attached.
fn record(recording: &Recording, args: &[&str]) -> Running {
    // The size of a new file shows when recording has begun.
    let _ = std::fs::remove_file(&recording.0);
    let mode = std::env::var("TCPTRACE_TEST_ARGS").unwrap_or_default();
    let mode: Vec<&str> = mode.split_whitespace().collect();
    let fixed = ["record", "-o", recording.path()];
    let running = Running::start(tests::run::tcptrace(&[&fixed, &mode[..], args].concat()));
    recording.wait_until_begun();
    running
}

fn stop(running: Running) -> Ended {
    running.signal(Signal::SIGINT);
    let ended = running.wait();
    assert_eq!(ended.code, Some(DONE), "{ended:?}");
    assert_eq!((&*ended.stdout, &*ended.stderr), ("", ""));
    ended
}

/// Replays a recording.
fn replay(lab: &Lab, recording: &Recording) -> Trace {
    let replayed = recording.replay(&["-o", "json"]);
    assert_eq!((replayed.code, &*replayed.stderr), (Some(DONE), ""));
    let trace = Trace::read(&replayed.stdout, lab.netns);
    invariants::check(&trace);
    trace
}

#[test]
fn a_recorded_connection_has_its_verdict() {
    for options in [&[][..], &["--zstd"]] {
        let lab = Lab::new();
        let port = lab.port();
        let recording = Recording::new(&lab);
        let running = record(&recording, &[&["-p", &port.to_string()], options].concat());
        let client_port = talk(port);
        stop(running);
        let trace = replay(&lab, &recording);
        let server = trace.server_of(client_port);
        server.shows(&[("verdict", &"queued"), ("complete", &true)]);
        trace.shows_each_once(1);
    }
}

/// The socket snapshots at start and end are taken although no correlator asks for them.
#[test]
fn preexisting_and_queued_connections_are_recorded() {
    let lab = Lab::new();
    let port = lab.port();
    let listener = listen(port);
    let recording = Recording::new(&lab);
    let running = record(&recording, &["-p", &port.to_string()]);
    let accepted = connect_queued(port);
    let first = accept(&listener);
    let waits = connect_queued(port);
    stop(running);
    let trace = replay(&lab, &recording);
    let old = trace.own("preexisting").next().expect("the listener");
    old.shows(&[("state", &"LISTEN"), ("lport", &u64::from(port))]);
    old.shows(&[("pid", &u64::from(std::process::id()))]);
    trace
        .server_of(port_of(&accepted))
        .shows(&[("verdict", &"queued")]);
    trace
        .server_of(port_of(&waits))
        .shows(&[("verdict", &"never_accepted")]);
    drop((first, waits, listener));
}

#[test]
fn record_ends_with_its_command_or_count() {
    let lab = Lab::new();
    let port = lab.port();
    let text = port.to_string();
    let helper = helper_path();
    let helper = helper.to_str().expect("a printable path");
    let recording = Recording::new(&lab);
    let args = ["-p", &text, "--", helper, "talk", &text, "7"];
    let ended = record(&recording, &args).wait();
    assert_eq!(ended.code, Some(7), "{ended:?}");
    assert_eq!(replay(&lab, &recording).connections("server").len(), 1);

    let recording = Recording::new(&lab);
    let running = record(&recording, &["-p", &text, "--count", "4"]);
    for _ in 0..2 {
        talk(port);
    }
    let ended = running.wait();
    assert_eq!(ended.code, Some(DONE), "{ended:?}");
    let trace = replay(&lab, &recording);
    assert_eq!(trace.connections("server").len(), 2);
    assert_eq!(trace.connections("client").len(), 2);
}

#[test]
fn a_killed_recorder_leaves_a_readable_recording() {
    let lab = Lab::new();
    let port = lab.port();
    let recording = Recording::new(&lab);
    let running = record(&recording, &["-p", &port.to_string()]);
    talk(port);
    let ended = eventually("both ends in the recording", || {
        let replayed = recording.replay(&["-o", "json", "--only", "connection"]);
        let lines = replayed.stdout.lines();
        let lines = lines.map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let ended = lines.filter(|line| line["state"] == "CLOSE").count();
        (ended == 2).then_some(ended)
    });
    assert_eq!(ended, 2);
    running.signal(Signal::SIGKILL);
    running.wait();
    let replayed = recording.replay(&[]);
    assert_eq!(replayed.code, Some(FAILURE));
    assert_eq!(replayed.stderr.lines().count(), 1, "{replayed:?}");
    assert!(
        replayed.stderr.contains("it breaks off at byte "),
        "{replayed:?}"
    );
    assert!(replayed.stdout.contains("queued: "), "{replayed:?}");
}

/// Runs the reader for other programs from docs/src/recording-format.md.
#[test]
fn the_documented_reader_counts_the_same() {
    let lab = Lab::new();
    let port = lab.port();
    let recording = Recording::new(&lab);
    let running = record(&recording, &["-p", &port.to_string(), "--zstd"]);
    for _ in 0..5 {
        talk(port);
    }
    stop(running);
    let trace = replay(&lab, &recording);
    let summary = &trace.summary().0["hook_counts"];
    let hooks = summary.as_object().expect("an object").values();
    let records: u64 = hooks
        .map(|hook| hook["emitted"].as_u64().expect("a number"))
        .sum();

    let text = include_str!("../../docs/src/recording-format.md");
    let (_, code) = text.split_once("```python\n").expect("a reader");
    let (code, _) = code.split_once("```").expect("its end");
    let python = Command::new("python3")
        .args(["-c", code, recording.path()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .expect("python3 runs");
    let stdout = String::from_utf8_lossy(&python.stdout);
    assert!(python.status.success(), "{python:?}");
    assert!(
        stdout.contains(&format!("{records} records")),
        "{records}: {stdout}"
    );
    assert!(stdout.contains("0 damaged blocks"), "{stdout}");
}

/// A recording is refused on a terminal, but can be written to a pipe.
#[test]
fn a_recording_can_be_written_to_a_pipe() {
    let lab = Lab::new();
    let port = lab.port();
    let text = port.to_string();
    let helper = helper_path();
    let helper = helper.to_str().expect("a printable path");
    let args = [
        "record", "-o", "-", "-p", &text, "--", helper, "talk", &text, "0",
    ];
    let mut command = tests::run::tcptrace(&args);
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let recording = Recording::new(&lab);
    std::fs::write(&recording.0, output.stdout).expect("a file");
    assert_eq!(replay(&lab, &recording).connections("server").len(), 1);
}
