//! tcptrace gives way to what it traces, as long as it keeps up.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tests::task::{join, spawn};
use tests::traffic::storm;
use tests::{Lab, eventually};

/// The scheduling policy of the thread that decodes, correlates and writes: the 41st field of its
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

/// An output that nobody reads holds the pipeline up; then it takes its share of the CPU like
/// everybody else, so that it can catch up, and after that it yields again. Nothing is lost by it.
#[test]
fn it_takes_only_cpu_time_that_nobody_wants_unless_it_is_behind() {
    const CLIENTS: usize = 200;
    let lab = Lab::new();
    let port = lab.port();
    let folder = tempfile::tempdir().expect("a folder");
    let pipe = folder.path().join("pipe");
    mkfifo(&pipe, Mode::S_IRWXU).expect("a named pipe");
    let path = pipe.clone();
    // It can be opened when the other end is, too.
    let (_, reader) = spawn(move || File::open(path));
    let pipe = pipe.to_str().expect("a path");
    let args = ["-p", &port.to_string(), "--write", pipe];
    let mut tracer = lab.trace_with(&args);
    let mut reader = join(reader).expect("the reading end");
    let pid = tracer.process().pid();
    let comes_to = |what, wanted| eventually(what, || (policy(pid) == wanted).then_some(()));

    comes_to("the tracer to yield", libc::SCHED_IDLE);
    // More than a pipe holds.
    storm(port, CLIENTS);
    comes_to("the tracer to be in a hurry", libc::SCHED_BATCH);
    let (_, reading) = spawn(move || io::copy(&mut reader, &mut io::sink()));
    comes_to("the tracer to yield again", libc::SCHED_IDLE);

    tracer.wait_for_ends(2 * CLIENTS);
    let trace = tracer.stop();
    assert_eq!(trace.connections("server").len(), CLIENTS);
    assert!(join(reading).expect("what was written") > 1 << 16);
}
