//! Time namespaces. The clock of BPF programs ignores them, and so does a recording.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, SystemTime};

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::Signal;
use tests::run::{Running, tcptrace, tcptrace_trace};
use tests::task::now_ns;
use tests::traffic::*;
use tests::{Lab, Trace, Tracer, eventually, invariants};

use crate::{DONE, says};

const OFFSETS: &str = "/proc/self/timens_offsets";

/// Moves the command's process into a new time namespace with these offsets.
fn in_a_time_namespace(command: &mut Command, offsets: &'static str) {
    let new = CloneFlags::from_bits_retain(libc::CLONE_NEWTIME);
    // SAFETY: system calls on texts that exist before the fork.
    unsafe {
        command.pre_exec(move || -> io::Result<()> {
            unshare(new)?;
            fs::write(OFFSETS, offsets)?;
            setns(File::open("/proc/self/ns/time_for_children")?, new)?;
            Ok(())
        });
    }
}

/// A day ahead, and less than the time since the boot of a VM behind.
const NAMESPACES: [&str; 3] = [
    "monotonic 86400 0\nboottime 86400 0\n",
    "monotonic 0 0\nboottime 1000000 0\n",
    "monotonic -2 500000000\nboottime -1 0\n",
];

/// Asserts that the wall clock of a line is near the present.
fn is_near_the_present(ts: &str) {
    let at = humantime::parse_rfc3339(ts).expect("a time");
    let now = SystemTime::now();
    let apart = now
        .duration_since(at)
        .unwrap_or_else(|error| error.duration());
    assert!(apart < Duration::from_secs(60), "{ts} is {apart:?} off");
}

#[test]
fn times_are_correct_in_a_time_namespace() {
    if fs::metadata(OFFSETS).is_err() {
        return;
    }
    for offsets in NAMESPACES {
        let lab = Lab::new();
        let port = lab.port();
        let ports = port.to_string();
        let mut command = tcptrace_trace(&["-o", "json", "-p", &ports]);
        in_a_time_namespace(&mut command, offsets);
        let before = now_ns();
        let tracer = Tracer::spawn(&lab, command);
        talk(port);
        tracer.wait_for_ends(2);
        let trace = tracer.stop_filtered(|tuple| [tuple.lport, tuple.rport].contains(&port));
        let server = trace.server();
        server.shows(&[("verdict", &"queued"), ("complete", &true)]);
        for line in [trace.session(), server, trace.summary()] {
            let at = line.num("mono_ns");
            assert!((before..now_ns()).contains(&at), "{offsets}: {at}: {line}");
            is_near_the_present(line.text("ts"));
        }
    }
}

/// A process of a time namespace is traced from outside of it, and its recording is replayed in
/// another one.
#[test]
fn a_recording_has_the_same_times_in_each_time_namespace() {
    if fs::metadata(OFFSETS).is_err() {
        return;
    }
    let lab = Lab::new();
    let port = lab.port();
    let ports = port.to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("it.trace");
    let name = path.to_str().expect("a printable path");
    let mut command = tcptrace(&["record", "-o", name, "-p", &ports]);
    in_a_time_namespace(&mut command, NAMESPACES[0]);
    let running = Running::start(command);
    eventually("the recording to begin", || {
        (fs::metadata(&path).ok()?.len() > 0).then_some(())
    });
    let before = now_ns();
    talk(port);
    running.signal(Signal::SIGINT);
    says(&running.wait(), DONE, "");
    let replay = || tcptrace(&["replay", name, "-o", "json"]);
    let here = Running::run_to_end(replay());
    let mut command = replay();
    in_a_time_namespace(&mut command, NAMESPACES[2]);
    let there = Running::run_to_end(command);
    says(&here, DONE, "");
    assert_eq!(here.stdout, there.stdout);
    let trace = Trace::read(&here.stdout, lab.netns);
    invariants::check(&trace);
    let server = trace.server();
    assert!(
        (before..now_ns()).contains(&server.num("mono_ns")),
        "{server}"
    );
    is_near_the_present(server.text("ts"));
}
