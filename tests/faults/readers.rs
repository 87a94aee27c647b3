//! Readers that are gone or asleep.

use std::io::{BufRead, BufReader, Read, pipe};
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;
use tests::programs::Programs;
use tests::run::{Running, tcptrace, tcptrace_trace};
use tests::traffic::*;
use tests::{Lab, Trace, eventually, invariants};

use crate::{DONE, ended, says};

/// Acts like `| head -1`.
#[test]
fn a_closed_pipe_ends_each_form_with_success() {
    for form in ["json", "text", "wide", "csv", "chrome", "pcapng", "record"] {
        let lab = Lab::new();
        let port = lab.port();
        let ports = port.to_string();
        let (mut reader, writer) = pipe().expect("a pipe");
        let mut command = match form {
            "record" => tcptrace(&["record", "-o", "-", "-p", &ports]),
            _ => tcptrace_trace(&["-o", form, "-p", &ports, "-q"]),
        };
        command.stdout(writer).stderr(Stdio::piped());
        let mut running = Running::spawn(command);
        eventually("the programs", || {
            (Programs::so_far(running.pid()).len() > 4).then_some(())
        });
        let programs = Programs::of(running.pid());
        // Some forms write nothing before the first connection.
        let (_, first) = tests::task::spawn(move || {
            reader.read_exact(&mut [0]).expect("the first byte");
        });
        while !first.is_finished() {
            talk(port);
        }
        tests::task::join(first);
        while running.is_running() {
            talk(port);
        }
        says(&ended(running, &programs), DONE, "");
    }
}

#[test]
fn demo_succeeds_for_a_closed_pipe() {
    let _lab = Lab::new();
    let (reader, writer) = pipe().expect("a pipe");
    drop(reader);
    let mut command = tcptrace(&["demo"]);
    command.stdout(writer).stderr(Stdio::piped());
    says(&Running::spawn(command).wait(), DONE, "");
}

/// A tracer whose reader sleeps keeps a bounded amount of memory, counts what it loses, and goes on
/// when the reader wakes up.
#[test]
fn a_sleeping_reader_costs_no_more_than_counted_events() {
    const CLIENTS: usize = 6000;
    let lab = Lab::alone();
    let port = lab.port();
    let (reader, writer) = pipe().expect("a pipe");
    let ports = port.to_string();
    let mut command = tcptrace_trace(&["-o", "json", "-p", &ports, "--ring-size", "64K"]);
    command.stdout(writer).stderr(Stdio::piped());
    let running = Running::spawn(command);
    let mut reader = BufReader::new(reader);
    let mut output = String::new();
    reader.read_line(&mut output).expect("the session line");
    let programs = Programs::of(running.pid());
    storm(port, CLIENTS);
    let resident = memory_kib(running.pid());
    let (_, reading) = tests::task::spawn(move || {
        reader.read_to_string(&mut output).expect("UTF-8");
        output
    });
    // The next reports of losses and snapshots.
    sleep(Duration::from_millis(1500));
    talk(port);
    sleep(Duration::from_millis(500));
    running.signal(Signal::SIGINT);
    let ended = ended(running, &programs);
    let output = tests::task::join(reading);
    let trace = Trace::read(&output, lab.netns);
    invariants::check(&trace);
    let hooks = trace.summary()["hook_counts"].as_object().expect("hooks");
    let total = |field: &str| -> u64 { hooks.values().filter_map(|it| it[field].as_u64()).sum() };
    assert_eq!(total("unaccounted"), 0, "{}", trace.summary());
    assert!(total("lost") > 0, "the pipe was not full");
    assert_eq!(ended.code, Some(DONE), "{ended:?}");
    assert!(resident < 200 << 10, "{resident} KiB");
    let last = trace.connections("server").len();
    assert!(last > 0, "connections before and after are reported");
}

fn memory_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:"));
    let number = line.and_then(|it| it.split_whitespace().next());
    number.and_then(|it| it.parse().ok()).expect("a number")
}

#[test]
fn only_a_second_ctrl_c_ends_without_writing_the_remaining_lines() {
    const ENOUGH_TO_FILL_A_PIPE: usize = 400;
    let lab = Lab::alone();
    let port = lab.port();
    let (reader, writer) = pipe().expect("a pipe");
    let mut command = tcptrace_trace(&["-o", "json"]);
    command.stdout(writer);
    let mut running = Running::spawn(command);
    let mut session = String::new();
    let mut reader = BufReader::new(reader);
    reader.read_line(&mut session).expect("the session line");
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
    let ended = ended(running, &programs);
    assert_eq!(ended.code, Some(128 + Signal::SIGINT as i32));
}

/// Nobody reads the messages any more.
#[test]
fn a_closed_stderr_changes_no_exit_code() {
    let lab = Lab::new();
    let port = lab.port();
    let ports = port.to_string();
    let (reader, writer) = pipe().expect("a pipe");
    drop(reader);
    let mut command = tcptrace_trace(&["-o", "json", "-p", &ports, "--write", "/dev/full"]);
    command.stdout(Stdio::piped()).stderr(writer);
    let ended = Running::spawn(command).wait();
    assert_eq!(ended.code, Some(crate::FAILURE), "{ended:?}");

    let (reader, writer) = pipe().expect("a pipe");
    drop(reader);
    let mut command = tcptrace(&["--bogus"]);
    command.stdout(Stdio::piped()).stderr(writer);
    let ended = Running::spawn(command).wait();
    assert_eq!(ended.code, Some(2), "{ended:?}");
}
