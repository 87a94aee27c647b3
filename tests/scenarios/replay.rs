//! A trace that was recorded is told again as it was told live.

use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use tests::run::{Ended, Running, tcptrace, tcptrace_trace};
use tests::traffic::*;
use tests::{Lab, eventually};

/// A live trace with `--write`, and its recording.
struct Live {
    ended: Ended,
    recording: Recording,
}

/// A file that goes with the scenario.
struct Recording(PathBuf);

impl Recording {
    fn new(lab: &Lab, extension: &str) -> Recording {
        let name = format!(
            "tcptrace-replay-{}-{}.{extension}",
            std::process::id(),
            lab.ports.first
        );
        Recording(std::env::temp_dir().join(name))
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a printable path")
    }

    fn replay(&self, args: &[&str]) -> Ended {
        Running::to_the_end(tcptrace(&[&["replay", self.path()], args].concat()))
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// `tcptrace --write FILE.EXTENSION SHOWN… HOOKED…`, while two talk.
fn live(extension: &str, shown: &[&str], hooked: &[&str]) -> Live {
    let lab = Lab::new();
    let port = lab.port();
    let recording = Recording::new(&lab, extension);
    let ports = port.to_string();
    let fixed = ["-p", &ports, "--write", recording.path()];
    let running = Running::start(tcptrace_trace(&[&fixed, shown, hooked].concat()));
    running
        .stdout()
        .wait_until("the first line", |lines| lines.first().map(drop));
    for _ in 0..3 {
        talk(port);
    }
    running.signal(Signal::SIGINT);
    let ended = running.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stdout.contains(&ports), "{}", ended.stdout);
    Live { ended, recording }
}

/// Replayed with the same options for what is shown, it prints the same.
#[track_caller]
fn told_again(extension: &str, shown: &[&str], hooked: &[&str]) {
    let live = live(extension, shown, hooked);
    let replayed = live.recording.replay(shown);
    assert_eq!(replayed.code, Some(0), "{}", replayed.stderr);
    assert_eq!(replayed.stderr, "");
    assert!(
        replayed.stdout == live.ended.stdout,
        "{replayed:#?} {:#?}",
        live.ended
    );
}

#[test]
fn text() {
    told_again("jsonl", &[], &[]);
}

#[test]
fn text_with_all_its_details() {
    told_again(
        "jsonl",
        &["-v", "--explain", "--color=always"],
        &["--segments"],
    );
}

#[test]
fn text_of_a_trace_that_tells_connections_only() {
    told_again("jsonl", &["-v"], &["--depth=connections"]);
}

#[test]
fn text_of_a_trace_that_counts() {
    told_again("jsonl", &[], &["--depth=histogram"]);
}

#[test]
fn a_table_of_chosen_columns() {
    told_again(
        "jsonl",
        &["--fields=ts,conn,laddr,lport,newstate,in_state_ns"],
        &[],
    );
}

#[test]
fn a_wide_table() {
    told_again("jsonl", &["--output=wide"], &["--segments"]);
}

#[test]
fn csv() {
    told_again("jsonl", &["--output=csv"], &["--segments"]);
}

#[test]
fn json() {
    let live = live("jsonl", &["-o", "json"], &["--segments"]);
    let replayed = live.recording.replay(&["-o", "json"]);
    assert_eq!(replayed.stdout, live.ended.stdout);
}

#[test]
fn text_from_a_compressed_recording() {
    told_again("jsonl.zst", &["-v"], &[]);
}

#[test]
fn from_standard_input() {
    let live = live("jsonl.zst", &["-o", "json"], &[]);
    for args in [
        &["replay", "-", "-o", "json"][..],
        &["replay", "-", "-o", "json", "--only", "accept"],
    ] {
        let mut command = tcptrace(args);
        command.stdin(std::fs::File::open(&live.recording.0).expect("the recording"));
        let replayed = Running::to_the_end(command);
        assert_eq!((replayed.code, &*replayed.stderr), (Some(0), ""));
        let all = live.ended.stdout.split_inclusive('\n');
        let expected: String = match args.contains(&"--only") {
            true => all
                .filter(|it| it.contains(r#""event":"accept""#))
                .collect(),
            false => all.collect(),
        };
        assert_eq!(replayed.stdout, expected);
    }
}

#[test]
fn one_connection_is_told_with_its_other_end() {
    let live = live("jsonl", &["-o", "json"], &[]);
    let conn_of = |line: &serde_json::Value| line["conn"].as_u64();
    let all: Vec<serde_json::Value> = live.ended.stdout.lines().map(parse).collect();
    let server = all
        .iter()
        .find(|it| it["event"] == "connection" && it["side"] == "server");
    let server = server.expect("a server's connection");
    let both = [conn_of(server), server["peer_conn"].as_u64()];
    let of_the_trace = |line: &&serde_json::Value| line.get("conn").is_none();
    let expected: Vec<&serde_json::Value> = all
        .iter()
        .filter(|it| of_the_trace(it) || both.contains(&conn_of(it)))
        .collect();
    assert!(expected.len() < all.len());
    // By either end, although the one is told of before the other is known.
    for conn in both.into_iter().flatten() {
        let replayed = live
            .recording
            .replay(&["-o", "json", "--conn", &conn.to_string()]);
        let lines: Vec<serde_json::Value> = replayed.stdout.lines().map(parse).collect();
        assert_eq!(lines.iter().collect::<Vec<_>>(), expected);
    }
    let none = live.recording.replay(&["--conn", "4711"]);
    assert_eq!((none.code, &*none.stdout), (Some(2), ""));
    assert!(
        none.stderr.contains("no connection 4711"),
        "{}",
        none.stderr
    );
}

fn parse(line: &str) -> serde_json::Value {
    serde_json::from_str(line).expect("JSON")
}

/// What is printed of a file that is not whole.
fn replay_of(path: &Path, text: &str) -> Ended {
    std::fs::write(path, text).expect("a file");
    Running::to_the_end(tcptrace(&["replay", path.to_str().unwrap(), "-o", "json"]))
}

#[test]
fn damage_is_told_and_the_rest_is_told_all_the_same() {
    let live = live("jsonl", &["-o", "json"], &[]);
    let path = &live.recording.0;
    let whole = std::fs::read_to_string(path).expect("the recording");
    let recorded: Vec<&str> = whole.split_inclusive('\n').collect();
    let lines: Vec<&str> = live.ended.stdout.split_inclusive('\n').collect();

    let damaged = [&recorded[..3], &["gar\u{1b}bage\n"], &recorded[4..]].concat();
    let replayed = replay_of(path, &damaged.concat());
    assert_eq!(replayed.code, Some(1));
    assert_eq!(
        replayed.stdout,
        [&lines[..3], &lines[4..]].concat().concat()
    );
    assert_eq!(replayed.stderr.lines().count(), 1);
    assert!(
        replayed.stderr.contains("line 4 cannot be read"),
        "{}",
        replayed.stderr
    );

    let cut = &whole[..whole.len() - recorded[recorded.len() - 1].len() - 10];
    let replayed = replay_of(path, cut);
    assert_eq!(replayed.code, Some(1));
    assert_eq!(replayed.stdout, lines[..lines.len() - 2].concat());
    assert!(
        replayed.stderr.contains("its summary is missing"),
        "{}",
        replayed.stderr
    );

    let other = whole.replacen("\"schema\":2", "\"schema\":7", 1);
    for (text, told) in [
        ("", "it is empty"),
        ("PNG\n", "it is no recording"),
        (other.as_str(), "it has schema 7"),
    ] {
        let replayed = replay_of(path, text);
        assert_eq!((replayed.code, &*replayed.stdout), (Some(2), ""), "{text}");
        assert!(replayed.stderr.contains(told), "{}", replayed.stderr);
        assert_eq!(replayed.stderr.lines().count(), 1, "{}", replayed.stderr);
    }
    let missing = Running::to_the_end(tcptrace(&["replay", "/no/such/file"]));
    assert_eq!(missing.code, Some(2));
    assert!(
        missing.stderr.contains("/no/such/file: No such file"),
        "{}",
        missing.stderr
    );

    let path = path.to_str().unwrap();
    let onto_itself = Running::to_the_end(tcptrace(&["replay", path, "--write", path]));
    assert_eq!(onto_itself.code, Some(2), "{}", onto_itself.stderr);
}

#[test]
fn what_a_killed_tracer_has_compressed_can_be_read() {
    let lab = Lab::new();
    let port = lab.port();
    let recording = Recording::new(&lab, "jsonl.zst");
    let ports = port.to_string();
    let args = ["-p", &ports, "-o", "json", "--write", recording.path()];
    let running = Running::start(tcptrace_trace(&args));
    running
        .stdout()
        .wait_until("the first line", |lines| lines.first().map(drop));
    talk(port);
    let replayed = eventually("both ends in the recording", || {
        let replayed = recording.replay(&["-o", "json"]);
        let ended = replayed.stdout.matches(r#"{"event":"connection""#).count();
        (ended >= 2).then_some(replayed)
    });
    assert_eq!(replayed.code, Some(1));
    running.signal(Signal::SIGKILL);
    let live = running.wait();
    let replayed = recording.replay(&["-o", "json"]);
    assert_eq!(replayed.code, Some(1));
    assert!(
        replayed.stderr.contains("its summary is missing"),
        "{}",
        replayed.stderr
    );
    assert!(
        live.stdout.starts_with(&replayed.stdout),
        "{replayed:#?} {live:#?}"
    );
}
