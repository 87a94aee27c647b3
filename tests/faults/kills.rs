//! Signals at each phase of the start and of the end.

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tests::programs::Programs;
use tests::run::{Running, tcptrace, tcptrace_trace};
use tests::tracer::await_session;
use tests::traffic::*;
use tests::{Lab, Trace, invariants};

use crate::{DONE, ended, ends_with_its_summary, says};

/// Moments after the start: before the first system call, while programs are loaded and attached,
/// and after that.
const PHASES: u32 = 24;

/// A trace that other tests do not disturb.
fn trace() -> Command {
    tcptrace_trace(&["-o", "json", "-p", "1"])
}

/// Returns how long a start takes, until the first line.
fn start_takes() -> Duration {
    let began = Instant::now();
    let running = Running::start(trace());
    await_session(&running);
    let took = began.elapsed();
    running.signal(Signal::SIGINT);
    running.wait();
    took
}

/// Stops a process, and returns the programs that it has loaded so far.
fn stop(running: &mut Running) -> Programs {
    running.signal(Signal::SIGSTOP);
    Programs::so_far(running.pid())
}

#[test]
fn kill_9_at_each_phase_of_the_start_leaves_nothing_attached() {
    let whole = start_takes();
    let pinned = pins();
    let mut counts = vec![];
    for phase in 0..PHASES {
        let mut running = Running::start(trace());
        sleep(whole * phase * 5 / 4 / PHASES);
        let programs = stop(&mut running);
        running.signal(Signal::SIGKILL);
        let killed = ended(running, &programs);
        assert_eq!(killed.signal, Some(Signal::SIGKILL as i32), "{killed:?}");
        counts.push(programs.len());
    }
    // The phases are before, while and after the programs are loaded.
    let all = counts.iter().max().copied().unwrap_or(0);
    assert!(counts.contains(&0), "{counts:?}");
    assert!(all > 4, "{counts:?}");
    assert_eq!(pins(), pinned, "nothing is pinned");
}

#[test]
fn kill_9_at_each_phase_of_the_end_leaves_nothing_attached() {
    let lab = Lab::new();
    let port = lab.port();
    let ports = port.to_string();
    for phase in 0..PHASES {
        let mut running = Running::start(tcptrace_trace(&["-o", "json", "-p", &ports]));
        await_session(&running);
        talk(port);
        let programs = Programs::of(running.pid());
        running.signal(Signal::SIGINT);
        sleep(Duration::from_millis(2) * phase);
        // Fails if the end was faster.
        if running.is_running() {
            running.signal(Signal::SIGKILL);
        }
        let ended = ended(running, &programs);
        let mut lines = ended.stdout.lines();
        // Only the last line may be cut off.
        let last = lines.next_back().unwrap_or_default();
        for line in lines {
            serde_json::from_str::<serde_json::Value>(line).expect("a whole line");
        }
        if ended.code.is_some() {
            says(&ended, DONE, "");
            assert!(last.contains(r#""event":"summary""#), "{last}");
        }
    }
}

/// A signal before the handlers are installed has its default effect; afterwards the trace ends
/// normally. There is nothing in between.
#[test]
fn sigterm_and_sigint_at_each_phase_of_the_start_end_in_good_order() {
    let lab = Lab::new();
    let whole = start_takes();
    let mut normal = 0;
    for phase in 0..PHASES {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let mut running = Running::start(trace());
            sleep(whole * phase * 5 / 4 / PHASES);
            let programs = stop(&mut running);
            running.signal(signal);
            running.signal(Signal::SIGCONT);
            let ended = ended(running, &programs);
            if ended.signal == Some(signal as i32) {
                assert_eq!((&*ended.stdout, &*ended.stderr), ("", ""));
                assert_eq!(programs.len(), 0, "programs are loaded after the handlers");
                continue;
            }
            normal += 1;
            ends_with_its_summary(&ended);
            invariants::check(&Trace::read(&ended.stdout, lab.netns));
        }
    }
    assert!(normal > 4, "{normal} ended normally");
}

/// Whatever a killed recorder has written can be replayed.
#[test]
fn kill_9_at_each_phase_of_a_recording_leaves_what_was_written() {
    let lab = Lab::new();
    let port = lab.port();
    let ports = port.to_string();
    let whole = start_takes();
    let mut replays = 0;
    for phase in 0..PHASES / 2 {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("it.trace");
        let path = path.to_str().expect("a printable path");
        let mut running = Running::start(tcptrace(&["record", "-o", path, "-p", &ports]));
        let until = Instant::now() + whole / 2 + whole * phase / 4;
        while Instant::now() < until {
            talk(port);
        }
        let programs = stop(&mut running);
        running.signal(Signal::SIGKILL);
        ended(running, &programs);
        if std::fs::metadata(path).map_or(0, |it| it.len()) == 0 {
            continue;
        }
        let replayed = Running::run_to_end(tcptrace(&["replay", path, "-o", "json"]));
        assert_eq!(replayed.code, Some(1), "{replayed:?}");
        assert_eq!(replayed.stderr.lines().count(), 1, "{replayed:?}");
        assert!(
            replayed.stderr.contains("it breaks off at byte "),
            "{}",
            replayed.stderr
        );
        for line in replayed.stdout.lines() {
            invariants::follows_the_schema(&tests::Line::parse(line));
        }
        replays += 1;
    }
    assert!(replays > 0, "no recording had begun");
}

/// Returns the names of pinned objects, if bpffs is mounted.
fn pins() -> Vec<std::ffi::OsString> {
    let entries = std::fs::read_dir("/sys/fs/bpf").into_iter().flatten();
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    names
}
