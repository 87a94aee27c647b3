//! Outputs: lines to a file, text to the screen, and escaped names on a terminal.

use std::path::PathBuf;

use nix::sys::signal::Signal;
use tests::run::{Ended, Running, tcptrace, tcptrace_trace};
use tests::task::{join, now_ns, set_name, spawn};
use tests::traffic::*;
use tests::{Lab, Trace, eventually, invariants};

/// `tcptrace --write FILE ARGS…`: text on stdout, and a recording.
struct Text {
    running: Running,
    file: PathBuf,
}

impl Text {
    fn start(lab: &Lab, args: &[&str]) -> Text {
        let name = format!("tcptrace-{}-{}.trace", std::process::id(), lab.ports.first);
        let file = std::env::temp_dir().join(name);
        let path = file.to_str().expect("a printable path");
        let args = [&["--color", "never", "--write", path], args].concat();
        let running = Running::start(tcptrace_trace(&args));
        let text = Text { running, file };
        text.wait_for(1, "CONN");
        text
    }

    /// Waits for `n` lines that contain `words`.
    fn wait_for(&self, n: usize, words: &str) {
        self.running.stdout().wait_until(words, |lines| {
            let lines = lines.iter().filter(|it| it.contains(words));
            (lines.count() >= n).then_some(())
        });
    }

    fn stop(self, lab: &Lab) -> (Ended, Trace) {
        self.running.signal(Signal::SIGINT);
        let ended = self.running.wait();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        let path = self.file.to_str().expect("a printable path");
        let replayed = Running::run_to_end(tcptrace(&["replay", path, "-o", "json"]));
        std::fs::remove_file(&self.file).expect("the file");
        let trace = Trace::read(&replayed.stdout, lab.netns);
        invariants::check(&trace);
        (ended, trace)
    }
}

#[test]
fn a_recording_is_written_beside_the_text() {
    let lab = Lab::new();
    let port = lab.port();
    let text = Text::start(&lab, &["-p", &port.to_string()]);
    let client_port = talk(port);
    text.wait_for(2, " ended: ");
    let (ended, trace) = text.stop(&lab);

    trace.server().shows(&[("verdict", &"queued")]);
    let verdict = ended
        .stdout
        .lines()
        .find(|line| line.contains("queued:"))
        .unwrap_or_else(|| panic!("a verdict in {}", ended.stdout));
    for part in [client_port, port] {
        assert!(verdict.contains(&format!(":{part}")), "{verdict}");
    }
    assert!(verdict.contains("accept()"), "{verdict}");

    let both_ends = ended
        .stdout
        .lines()
        .find_map(|line| line.split_once("both ends: "));
    let (_, both_ends) = both_ends.unwrap_or_else(|| panic!("both ends in {}", ended.stdout));
    let order = [
        "connect() called 0",
        "client #",
        "server ESTABLISHED +",
        "accept() called +",
        "returned +",
    ];
    let steps: Vec<&str> = both_ends.split(", ").collect();
    assert_eq!(steps.len(), order.len(), "{both_ends}");
    for (step, begins) in steps.iter().zip(order) {
        assert!(step.starts_with(begins), "{both_ends}");
    }
}

/// Asserts that a replay prints the same bytes as the live trace.
fn replays_identically(form: &str, ends_with: &str) {
    let lab = Lab::new();
    let port = lab.port();
    let name = format!("tcptrace-{}-{port}.trace", std::process::id());
    let file = std::env::temp_dir().join(name);
    let events = file.to_str().expect("a printable path");
    let ports = port.to_string();
    let running = Running::start(tcptrace_trace(&[
        "--color=never",
        "--segments",
        "-p",
        &ports,
        "--output",
        form,
        "--write",
        events,
    ]));
    let printed = running.stdout();
    printed.wait_until("the first line", |lines| lines.first().map(drop));
    talk(port);
    printed.wait_until("both ends to have ended", |lines| {
        let ended = lines.iter().filter(|it| it.contains(ends_with));
        (ended.count() >= 2).then_some(())
    });
    running.signal(Signal::SIGINT);
    let live = running.wait();
    assert_eq!(live.code, Some(0), "{}", live.stderr);
    let replayed = Running::run_to_end(tcptrace(&["replay", events, "--output", form]));
    std::fs::remove_file(&file).expect("the recording");

    assert_eq!(replayed.code, Some(0), "{}", replayed.stderr);
    assert!(replayed.stdout == live.stdout, "{replayed:#?} {live:#?}");
}

#[test]
fn replayed_json_equals_the_live_json() {
    replays_identically("json", r#"{"event":"connection""#);
}

#[test]
fn replayed_text_equals_the_live_text() {
    replays_identically("text", " ended: ");
}

#[test]
fn control_characters_of_a_name_are_escaped() {
    let lab = Lab::new();
    let port = lab.port();
    let text = Text::start(&lab, &["-v", "-p", &port.to_string()]);
    // The start of a terminal's title, a bell, a delete, a C1 control character, a line break.
    let name = c"\x1b]0;x\x07\x7f\xc2\x9b\n";
    let (_, talking) = spawn(move || {
        set_name(name);
        talk(port);
    });
    join(talking);
    text.wait_for(2, " ended: ");
    let (ended, trace) = text.stop(&lab);

    // JSON has the name itself, escaped by the rules of JSON.
    for line in [trace.server(), trace.client(), trace.accept()] {
        line.shows(&[("comm", &name.to_str().unwrap())]);
    }
    assert!(ended.stdout.contains(r"\u{1b}]0;x"), "{}", ended.stdout);
    let raw: Vec<char> = ended
        .stdout
        .chars()
        .filter(|&c| c.is_control() && c != '\n')
        .collect();
    assert_eq!(raw, [], "{:?}", ended.stdout);
}

#[test]
fn the_session_line_describes_the_trace() {
    let lab = Lab::new();
    let before = now_ns();
    let trace = lab.trace().stop();

    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let session = trace.session();
    session.shows(&[("schema", &2), ("kernel", &release.trim())]);
    for hook in ["inet_sock_set_state", "inet_csk_accept"] {
        assert!(session["hooks"][hook].is_string(), "{session}");
    }
    assert!((before..now_ns()).contains(&session.num("mono_ns")));
}

#[test]
fn two_simultaneous_traces_agree() {
    let lab = Lab::new();
    let tracers = [lab.trace(), lab.trace()];
    talk(lab.port());
    tracers.iter().for_each(|tracer| tracer.wait_for_ends(2));
    let [one, other] = tracers.map(|tracer| tracer.stop());

    // Each tracer reads the clock itself, so times differ slightly.
    for field in ["lport", "rport", "cookie", "pid", "verdict", "complete"] {
        assert_eq!(one.server()[field], other.server()[field], "{field}");
    }
}

#[test]
fn the_demo_shows_a_connection_queued_before_accept() {
    let _lab = Lab::new();
    let ended = Running::run_to_end(tcptrace(&["demo", "--color", "never"]));
    assert_eq!(ended.code, Some(0), "{} {}", ended.stdout, ended.stderr);
    for proof in ["queued", "awaited", "never"] {
        assert!(ended.stdout.contains(proof), "{}", ended.stdout);
    }
    let widest = ended.stdout.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(100), "{widest:?}: {}", ended.stdout);
}

#[test]
fn doctor_stats_measures_programs_on_real_traffic() {
    let lab = Lab::new();
    let port = lab.port();
    let doctor = Running::start(tcptrace(&["doctor", "-o", "json", "--stats=1s"]));
    let pid = doctor.pid();
    eventually("doctor to count", || {
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
        let links = fds
            .flatten()
            .filter_map(|fd| std::fs::read_link(fd.path()).ok());
        let mut links = links.map(|link| link.to_string_lossy().into_owned());
        links.any(|link| link.contains("bpf-stats")).then_some(())
    });
    talk(port);
    let ended = doctor.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);

    let report: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert!(
        report["duration_ns"].as_u64() >= Some(1_000_000_000),
        "{report}"
    );
    let programs = report["programs"].as_array().expect("programs");
    let ran = programs
        .iter()
        .find(|it| it["hook"] == "inet_sock_set_state" && it["runs"].as_u64() >= Some(1));
    let ran = ran.unwrap_or_else(|| panic!("no change of state in {report}"));
    assert!(ran["run_time_ns"].as_u64() > Some(0), "{ran}");
    assert!(ran["jitted_bytes"].as_u64() > Some(0), "{ran}");
}
