//! A replay prints a recorded trace as the live trace did.

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

/// A file that is removed at the end of the scenario.
pub struct Recording(pub PathBuf);

impl Recording {
    pub fn new(lab: &Lab) -> Recording {
        let (process, port) = (std::process::id(), lab.ports.first);
        let name = format!("tcptrace-replay-{process}-{port}.trace");
        Recording(std::env::temp_dir().join(name))
    }

    pub fn path(&self) -> &str {
        self.0.to_str().expect("a printable path")
    }

    /// Waits until the hooks are attached; writing begins only then.
    pub fn wait_until_begun(&self) {
        eventually("the recording to begin", || {
            let size = std::fs::metadata(&self.0).ok()?.len();
            (size > 0).then_some(())
        });
    }

    pub fn replay(&self, args: &[&str]) -> Ended {
        Running::run_to_end(tcptrace(&[&["replay", self.path()], args].concat()))
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Runs `tcptrace --write FILE SHOWN… HOOKED…` during one connection.
fn live(shown: &[&str], hooked: &[&str]) -> Live {
    let lab = Lab::new();
    let port = lab.port();
    let recording = Recording::new(&lab);
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

/// Asserts that a replay with the same options prints the same text as the live trace.
#[track_caller]
fn replays_identically(shown: &[&str], hooked: &[&str]) {
    let live = live(shown, hooked);
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
fn text_is_replayed_identically() {
    replays_identically(&[], &[]);
}

#[test]
fn verbose_text_is_replayed_identically() {
    replays_identically(&["-v", "--explain", "--color=always"], &["--segments"]);
}

#[test]
fn text_at_depth_connections_is_replayed_identically() {
    replays_identically(&["-v"], &["--depth=connections"]);
}

#[test]
fn text_at_depth_histogram_is_replayed_identically() {
    replays_identically(&[], &["--depth=histogram"]);
}

#[test]
fn a_table_of_chosen_columns_is_replayed_identically() {
    replays_identically(&["--fields=ts,conn,laddr,lport,newstate,in_state_ns"], &[]);
}

#[test]
fn a_wide_table_is_replayed_identically() {
    replays_identically(&["--output=wide"], &["--segments"]);
}

#[test]
fn csv_is_replayed_identically() {
    replays_identically(&["--output=csv"], &["--segments"]);
}

#[test]
fn json_with_segments_is_replayed_identically() {
    replays_identically(&["-o", "json"], &["--segments"]);
}

#[test]
fn json_of_every_depth_is_replayed_identically() {
    replays_identically(&["-o", "json"], &["--depth=connections"]);
    replays_identically(&["-o", "json"], &["--depth=histogram"]);
}

#[test]
fn a_compressed_recording_is_replayed_identically() {
    replays_identically(&["-v"], &["--zstd"]);
}

/// A recording beside a shallow live trace can be replayed at greater depths.
#[test]
fn a_recording_can_be_replayed_at_every_depth() {
    let live = live(&["-o", "json"], &["--depth=histogram"]);
    let of_depth = |depth| {
        let replayed = live.recording.replay(&["-o", "json", "--depth", depth]);
        assert_eq!(replayed.code, Some(0), "{}", replayed.stderr);
        let lines: Vec<serde_json::Value> = replayed.stdout.lines().map(parse).collect();
        let count = |event: &str| lines.iter().filter(|it| it["event"] == event).count();
        assert_eq!(lines[0]["depth"], depth);
        (
            count("transition") > 0,
            count("connection"),
            count("histogram") > 0,
        )
    };
    assert_eq!(of_depth("events"), (true, 6, false));
    assert_eq!(of_depth("connections"), (false, 6, false));
    assert_eq!(of_depth("histogram"), (false, 0, true));
}

/// Filters apply to a recording as to a live trace.
#[test]
fn replay_filters_by_owner_and_side() {
    let live = live(&["-o", "json"], &[]);
    let ends = |args: &[&str]| {
        let replayed = live.recording.replay(&[&["-o", "json"], args].concat());
        assert_eq!(replayed.code, Some(0), "{}", replayed.stderr);
        let lines = replayed.stdout.lines().map(parse);
        lines.filter(|it| it["event"] == "connection").count()
    };
    let own = std::process::id().to_string();
    assert_eq!(ends(&[]), 6);
    assert_eq!(ends(&["--side", "client"]), 3);
    assert_eq!(ends(&["--pid", &own]), 6);
    assert_eq!(ends(&["--pid", "1"]), 0);
    assert_eq!(ends(&["--comm", "nobody"]), 0);
}

#[test]
fn replay_reads_standard_input() {
    let live = live(&["-o", "json"], &["--zstd"]);
    for args in [
        &["replay", "-", "-o", "json"][..],
        &["replay", "-", "-o", "json", "--only", "accept"],
    ] {
        let mut command = tcptrace(args);
        command.stdin(std::fs::File::open(&live.recording.0).expect("the recording"));
        let replayed = Running::run_to_end(command);
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
fn replay_of_one_connection_includes_its_other_end() {
    let live = live(&["-o", "json"], &[]);
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
    // Selects by either end, although the first end's lines precede the other end's.
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

/// Replays a truncated or damaged file.
fn replay_of(path: &Path, bytes: &[u8]) -> Ended {
    std::fs::write(path, bytes).expect("a file");
    Running::run_to_end(tcptrace(&["replay", path.to_str().unwrap(), "-o", "json"]))
}

#[test]
fn damage_is_reported_and_the_remaining_lines_are_replayed() {
    let live = live(&["-o", "json"], &[]);
    let path = &live.recording.0;
    let whole = std::fs::read(path).expect("the recording");

    // The middle of the file: records, or the socket snapshot.
    let middle = whole.len() * 2 / 3;
    let mut damaged = whole.clone();
    damaged[middle] ^= 0x10;
    let replayed = replay_of(path, &damaged);
    assert_eq!(replayed.code, Some(1));
    assert_eq!(replayed.stderr.lines().count(), 1, "{}", replayed.stderr);
    assert!(
        replayed.stderr.contains("it is damaged at byte "),
        "{}",
        replayed.stderr
    );
    let first = live.ended.stdout.lines().next();
    assert_eq!(replayed.stdout.lines().next(), first);
    let last = parse(replayed.stdout.lines().last().unwrap());
    assert_eq!(last["event"], "summary");

    let replayed = replay_of(path, &whole[..whole.len() - 10]);
    assert_eq!(replayed.code, Some(1));
    let lines: Vec<&str> = live.ended.stdout.lines().collect();
    let replayed_lines: Vec<&str> = replayed.stdout.lines().collect();
    assert_eq!(replayed_lines, lines[..lines.len() - 1]);
    assert!(
        replayed.stderr.contains("its summary is missing"),
        "{}",
        replayed.stderr
    );

    for (bytes, message) in [
        (&b""[..], "it is empty"),
        (b"PNG\n", "it is not a recording"),
        (live.ended.stdout.as_bytes(), "it is JSON"),
    ] {
        let replayed = replay_of(path, bytes);
        assert_eq!((replayed.code, &*replayed.stdout), (Some(2), ""));
        assert!(replayed.stderr.contains(message), "{}", replayed.stderr);
        assert_eq!(replayed.stderr.lines().count(), 1, "{}", replayed.stderr);
    }
    let missing = Running::run_to_end(tcptrace(&["replay", "/no/such/file"]));
    assert_eq!(missing.code, Some(2));
    assert!(
        missing.stderr.contains("/no/such/file: No such file"),
        "{}",
        missing.stderr
    );
}

#[test]
fn a_recording_of_a_killed_tracer_can_be_replayed() {
    for options in [&[][..], &["--zstd"]] {
        let lab = Lab::new();
        let port = lab.port();
        let recording = Recording::new(&lab);
        let ports = port.to_string();
        let args = ["-p", &ports, "-o", "json", "--write", recording.path()];
        let running = Running::start(tcptrace_trace(&[&args, options].concat()));
        running
            .stdout()
            .wait_until("the first line", |lines| lines.first().map(drop));
        talk(port);
        let ended = |replayed: &Ended| {
            let lines = replayed.stdout.lines().map(parse);
            let ended = |it: &serde_json::Value| it["state"] == "CLOSE";
            lines
                .filter(|it| it["event"] == "connection" && ended(it))
                .count()
        };
        let replayed = eventually("both ends in the recording", || {
            let replayed = recording.replay(&["-o", "json"]);
            (ended(&replayed) >= 2).then_some(replayed)
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
            replayed.stdout.starts_with(&live.stdout),
            "{replayed:#?} {live:#?}"
        );
    }
}
