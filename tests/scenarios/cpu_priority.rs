//! tcptrace yields the CPU to the traced programs while it keeps up.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::Signal;
use tests::run::{Running, tcptrace_trace};
use tests::task::{join, spawn};
use tests::traffic::storm;
use tests::{Lab, Trace, eventually, invariants};

/// Returns the scheduling policy of the thread that decodes, correlates and writes: field 41 of its
/// /proc/PID/task/TID/stat, see proc(5).
fn policy(tracer: u32) -> libc::c_int {
    let tasks = fs::read_dir(format!("/proc/{tracer}/task")).expect("its threads");
    let mut tasks = tasks.map(|task| task.expect("a thread").path());
    let of = |task: &Path, file| fs::read_to_string(task.join(file)).expect("a thread's files");
    let task = tasks
        .find(|task| of(task, "comm") == "pipeline\n")
        .expect("the working thread");
    let stat = of(&task, "stat");
    let (_, after_the_name) = stat.rsplit_once(") ").expect("a name");
    let field = after_the_name.split(' ').nth(41 - 3);
    field.expect("a policy").parse().expect("a number")
}

/// An output without a reader blocks the pipeline. Then the pipeline's thread takes a normal share
/// of the CPU to catch up, and yields again afterwards. No event is lost.
#[test]
fn the_pipeline_runs_at_idle_priority_unless_it_falls_behind() {
    const CLIENTS: usize = 200;
    let lab = Lab::new();
    let port = lab.port();
    let (reader, writer) = io::pipe().expect("a pipe");
    let mut command = tcptrace_trace(&["-o", "json", "-p", &port.to_string()]);
    command.stdout(writer).stderr(Stdio::piped());
    let running = Running::spawn(command);
    let mut reader = BufReader::new(reader);
    let mut text = String::new();
    reader.read_line(&mut text).expect("the session line");
    let pid = running.pid();
    let comes_to = |what, wanted| eventually(what, || (policy(pid) == wanted).then_some(()));

    comes_to("the tracer to yield", libc::SCHED_IDLE);
    // These connections have more output than the pipe holds.
    storm(port, CLIENTS);
    comes_to("the tracer to be in a hurry", libc::SCHED_BATCH);
    let (_, reading) = spawn(move || {
        reader.read_to_string(&mut text).expect("the rest");
        text
    });
    comes_to("the tracer to yield again", libc::SCHED_IDLE);

    // The pipeline has processed all records, because it only yields again when it has caught up.
    running.signal(Signal::SIGINT);
    let ended = running.wait();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let trace = Trace::read(&join(reading), lab.netns);
    invariants::check(&trace);
    assert_eq!(trace.connections("server").len(), CLIENTS);
}
