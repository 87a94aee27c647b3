//! `--expect`: met and unmet expectations, and the exit codes.

use std::time::Duration;

use nix::sys::signal::Signal;
use tests::Lab;
use tests::run::{Ended, Running, helper_path, tcptrace, tcptrace_trace};
use tests::task::now_ns;
use tests::tracer::await_session;
use tests::traffic::*;

const DONE: i32 = 0;
const USAGE: i32 = 2;
const NOT_MET: i32 = 5;

/// Minimum time that the connection waits for accept().
const WAIT: Duration = Duration::from_millis(20);

/// Traces one connection that is accepted late, with expectations.
fn expecting(port: u16, args: &[&str], expectations: &[&str]) -> Ended {
    let port_text = port.to_string();
    let expectations = expectations.iter().flat_map(|it| ["--expect", it]);
    let all: Vec<&str> = ["-o", "json", "-p", &port_text].into_iter().collect();
    let all = [all, args.to_vec(), expectations.collect()].concat();
    let running = Running::start(tcptrace_trace(&all));
    await_session(&running);
    let listener = listen(port);
    let client = connect_queued(port);
    let queued_ns = now_ns();
    std::thread::sleep(WAIT);
    let server = accept(&listener).stream;
    assert!(now_ns() - queued_ns >= WAIT.as_nanos() as u64);
    close(client, server);
    if !args.contains(&"histogram") {
        running
            .stdout()
            .wait_until("both ends to have ended", |lines| {
                let ended = lines
                    .iter()
                    .filter(|it| it.starts_with(r#"{"event":"connection""#));
                (ended.count() >= 2).then_some(())
            });
    }
    drop(listener);
    running.signal(Signal::SIGINT);
    running.wait()
}

/// Returns the line printed for each expectation.
fn judgements(ended: &Ended) -> Vec<&str> {
    ended.stderr.lines().collect()
}

#[test]
fn a_met_expectation_is_printed_and_exits_with_0() {
    let lab = Lab::new();
    let port = lab.port();
    for depth in ["events", "connections", "histogram"] {
        let mine = format!("accepted@{port}==1");
        let ended = expecting(
            port,
            &["--depth", depth],
            &[&mine, "accept_queue_max>=20ms", "queued >= 1", "lost==0"],
        );
        assert_eq!(ended.code, Some(DONE), "{depth}: {ended:?}");
        let said = judgements(&ended);
        assert_eq!(said.len(), 4, "{ended:?}");
        assert_eq!(said[0], format!("tcptrace: expected {mine}: holds, 1"));
        assert!(said.iter().all(|it| it.contains(": holds, ")), "{ended:?}");
    }
}

#[test]
fn an_unmet_expectation_is_printed_and_exits_with_5() {
    let lab = Lab::new();
    let port = lab.port();
    let ended = expecting(
        port,
        &[],
        &[
            "accept_queue_p99<20ms",
            "accepted==1",
            "accept_queue_p50@1<1s",
        ],
    );
    assert_eq!(ended.code, Some(NOT_MET), "{ended:?}");
    let said = judgements(&ended);
    assert!(
        said[0].contains("accept_queue_p99<20ms: NOT MET, "),
        "{ended:?}"
    );
    assert!(
        said[0].ends_with(" ms") || said[0].ends_with(" s"),
        "the measured value: {ended:?}"
    );
    assert!(said[1].contains("accepted==1: holds"), "{ended:?}");
    let unknown = "NOT MET, not known: no accept-queue wait was measured";
    assert!(said[2].ends_with(unknown), "{ended:?}");
}

#[test]
fn the_exit_code_of_a_failed_command_takes_precedence() {
    let lab = Lab::new();
    let helper = helper_path();
    let helper = helper.to_str().expect("a printable path");
    for (code, expect, ends) in [
        ("7", "accepted==99", 7),
        ("0", "accepted==99", NOT_MET),
        ("0", "accepted==1", DONE),
    ] {
        let port = lab.port().to_string();
        let args = ["-p", &port, "-o", "json", "--expect", expect, "--"];
        let args = [&args[..], &[helper, "talk", &port, code]].concat();
        let ended = Running::run_to_end(tcptrace_trace(&args));
        assert_eq!(ended.code, Some(ends), "{ended:?}");
        assert!(ended.stderr.contains(expect), "{ended:?}");
    }
}

#[test]
fn an_invalid_expectation_is_refused_before_tracing() {
    let ended = Running::run_to_end(tcptrace(&["--expect", "accept_queue_p99<10"]));
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(USAGE), ""));
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    assert!(ended.stderr.contains("such as 1.5ms"), "{ended:?}");
}

#[test]
fn a_replay_judges_expectations_like_the_live_trace() {
    let lab = Lab::new();
    let port = lab.port();
    let name = format!("tcptrace-{}-{port}-expect.trace", std::process::id());
    let file = std::env::temp_dir().join(name);
    let path = file.to_str().expect("a printable path");
    let expectations = ["accept_queue_p99<20ms", "accepted==1", "handshake_max<1h"];
    let live = expecting(port, &["--write", path], &expectations);
    let args = expectations.iter().flat_map(|it| ["--expect", it]);
    let args: Vec<&str> = ["replay", path].into_iter().chain(args).collect();
    let replayed = Running::run_to_end(tcptrace(&args));
    std::fs::remove_file(&file).expect("the recording");
    assert_eq!(
        (live.code, replayed.code),
        (Some(NOT_MET), Some(NOT_MET)),
        "{replayed:?}"
    );
    assert_eq!(judgements(&replayed), judgements(&live));
}
