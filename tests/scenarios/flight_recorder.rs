//! `tcptrace record` as a flight recorder: it keeps the last files, or writes the last stretch at a
//! trigger.

use std::path::PathBuf;

use nix::sys::signal::Signal;
use tests::run::{Ended, Running, tcptrace};
use tests::traffic::*;
use tests::{Lab, Line, Trace, eventually, invariants};

/// A folder for the files of one recording.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Files {
        Files(tempfile::tempdir().expect("a folder"))
    }

    /// Starts `tcptrace record -o FOLDER/x.trace ARGS…`.
    fn record(&self, args: &[&str]) -> Running {
        let base = self.0.path().join("x.trace");
        let mode = std::env::var("TCPTRACE_TEST_ARGS").unwrap_or_default();
        let mode: Vec<&str> = mode.split_whitespace().collect();
        let fixed = ["record", "-o", base.to_str().expect("a printable path")];
        Running::start(tcptrace(&[&fixed, &mode[..], args].concat()))
    }

    fn all(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.0.path()).expect("the folder");
        let mut all: Vec<PathBuf> = entries.map(|it| it.expect("an entry").path()).collect();
        all.sort();
        all
    }

    /// Replays each file separately.
    fn traces(&self, lab: &Lab) -> Vec<Trace> {
        let replayed = |path: &PathBuf| {
            let path = path.to_str().expect("a printable path");
            let replayed = Running::run_to_end(tcptrace(&["replay", path, "-o", "json"]));
            assert_eq!((replayed.code, &*replayed.stderr), (Some(0), ""), "{path}");
            let trace = Trace::read(&replayed.stdout, lab.netns);
            invariants::check(&trace);
            trace
        };
        self.all().iter().map(replayed).collect()
    }
}

fn stop(running: Running) -> Ended {
    running.signal(Signal::SIGINT);
    let ended = running.wait();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended
}

/// Returns the clients whose server-side connections are complete in a trace.
fn complete(trace: &Trace, clients: &[u16]) -> Vec<u16> {
    let is_its = |line: &&Line| {
        line.is("connection") && line["side"] == "server" && line["complete"] == true
    };
    let ports = trace.lines.iter().filter(is_its);
    let ports = ports.filter_map(|line| line["rport"].as_u64().map(|port| port as u16));
    ports.filter(|port| clients.contains(port)).collect()
}

#[test]
fn rotated_files_replay_alone_and_cover_every_connection() {
    let lab = Lab::alone();
    let port = lab.port();
    let files = Files::new();
    let running = files.record(&["-p", &port.to_string(), "--rotate", "64K"]);
    eventually("the first file", || (!files.all().is_empty()).then_some(()));
    let mut clients = vec![];
    while files.all().len() < 3 {
        clients.extend((0..50).map(|_| talk(port)));
    }
    stop(running);
    let traces = files.traces(&lab);
    assert!(traces.len() >= 3);
    let mut seen: Vec<u16> = traces
        .iter()
        .flat_map(|it| complete(it, &clients))
        .collect();
    seen.sort_unstable();
    seen.dedup();
    // A connection that was open at the end of a file is complete in no file.
    assert!(
        seen.len() >= clients.len() - traces.len(),
        "{} of {}",
        seen.len(),
        clients.len()
    );
    for trace in &traces {
        let unaccounted = trace.lines.iter().filter(|it| it.is("lost"));
        assert_eq!(unaccounted.count(), 0);
    }
}

#[test]
fn only_the_last_files_are_kept() {
    let lab = Lab::alone();
    let port = lab.port();
    let files = Files::new();
    let args = ["-p", &port.to_string(), "--rotate", "64K", "--files", "2"];
    let running = files.record(&args);
    eventually("the first file", || (!files.all().is_empty()).then_some(()));
    let third = files.0.path().join("x.trace.0003");
    while !third.exists() {
        storm(port, 50);
    }
    stop(running);
    let all = files.all();
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(!files.0.path().join("x.trace.0001").exists());
    assert_eq!(files.traces(&lab).len(), 2);
}

#[test]
fn sigusr1_writes_the_buffered_records() {
    let lab = Lab::new();
    let port = lab.port();
    let files = Files::new();
    let args = ["-p", &port.to_string(), "--keep", "60s", "--after", "100ms"];
    let running = files.record(&args);
    // No file is written before the trigger, so nothing shows when recording has begun.
    std::thread::sleep(std::time::Duration::from_secs(2));
    let before = talk(port);
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(files.all().is_empty());
    running.signal(Signal::SIGUSR1);
    eventually("the file", || (!files.all().is_empty()).then_some(()));
    let meanwhile = talk(port);
    std::thread::sleep(std::time::Duration::from_millis(500));
    let ended = stop(running);
    assert!(
        ended.stderr.contains("x.trace.0001: SIGUSR1"),
        "{}",
        ended.stderr
    );
    let traces = files.traces(&lab);
    assert_eq!(traces.len(), 1);
    for client in [before, meanwhile] {
        let server = traces[0].server_of(client);
        server.shows(&[("verdict", &"queued"), ("complete", &true)]);
    }
}

#[test]
fn a_met_expectation_writes_the_buffered_records() {
    let lab = Lab::new();
    let port = lab.port();
    let files = Files::new();
    let trigger = format!("accept_queue_max@{port}>200ms");
    let args = [
        "-p",
        &port.to_string(),
        "--keep",
        "64M",
        "--trigger",
        &trigger,
        "--after",
        "0s",
    ];
    let running = files.record(&args);
    std::thread::sleep(std::time::Duration::from_secs(2));
    let quick = talk(port);
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(files.all().is_empty());
    let listener = listen(port);
    let slow = connect_queued(port);
    std::thread::sleep(std::time::Duration::from_millis(400));
    let accepted = accept(&listener);
    let slow_port = port_of(&slow);
    close(slow, accepted.stream);
    eventually("the file", || (!files.all().is_empty()).then_some(()));
    let ended = stop(running);
    assert!(ended.stderr.contains(&trigger), "{}", ended.stderr);
    let traces = files.traces(&lab);
    traces[0].server_of(quick).shows(&[("complete", &true)]);
    let wait = traces[0].server_of(slow_port).num("accept_queue_ns");
    assert!(wait > 200_000_000, "{wait}");
}

#[test]
fn a_trigger_that_no_hook_can_fire_is_reported_at_the_start() {
    // With this attach method no hook sees overflows, on any kernel.
    let base = tempfile::tempdir().expect("a folder");
    let file = base.path().join("x.trace");
    let file = file.to_str().expect("a printable path");
    let record = |trigger: &str| {
        let args = [
            "record",
            "--attach",
            "syscall",
            "--duration",
            "10ms",
            "-o",
            file,
        ];
        let kept = ["--keep", "60s", "--trigger", trigger];
        let ended = Running::run_to_end(tcptrace(&[&args[..], &kept].concat()));
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended.stderr
    };
    assert_eq!(
        record("overflows@3000>0").lines().next(),
        Some(
            "tcptrace: --trigger overflows@3000>0 cannot fire, because segments that meet a full queue \
             cannot be seen on this kernel; SIGUSR1 still writes the records"
        )
    );
    let stderr = record("accept_queue_p99>20ms");
    assert!(!stderr.contains("cannot fire"), "{stderr}");
}
