//! Resource limits: each either suffices, or one line names what is missing.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::Signal;
use tests::capabilities::give_bpf_and_perfmon;
use tests::programs::Programs;
use tests::run::{Ended, Running, tcptrace};
use tests::traffic::*;
use tests::{Lab, Trace, eventually, invariants};

use crate::{DONE, FAILURE, ended, says};

const NOBODY: u32 = 65534;

/// Sets a limit for the command's process.
fn limit(command: &mut Command, resource: libc::__rlimit_resource_t, limit: u64) {
    // SAFETY: one async-signal-safe call.
    unsafe {
        command.pre_exec(move || {
            let limit = libc::rlimit {
                rlim_cur: limit,
                rlim_max: limit,
            };
            match libc::setrlimit(resource, &limit) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
    }
}

fn limited(resource: libc::__rlimit_resource_t, at: u64, args: &[&str]) -> Ended {
    let mut command = tcptrace(args);
    limit(&mut command, resource, at);
    Running::run_to_end(command)
}

/// Each run either attaches all hooks, or prints one line that names the limit to raise.
#[test]
fn running_out_of_descriptors_names_the_limit() {
    let _lab = Lab::new();
    let trace = ["-o", "json", "--duration", "100ms"];
    let hooks = |ended: &Ended| {
        let first = ended.stdout.lines().next().expect("a line").to_owned();
        let session: serde_json::Value = serde_json::from_str(&first).expect("JSON");
        session["hooks"].clone()
    };
    let whole = hooks(&Running::run_to_end(tcptrace(&trace)));
    let mut refused = 0;
    for limit in (6..60).step_by(6) {
        let ended = limited(libc::RLIMIT_NOFILE, limit, &trace);
        match ended.code {
            Some(0) => assert_eq!(hooks(&ended), whole, "{limit} descriptors: {ended:?}"),
            code => {
                refused += 1;
                assert_eq!(code, Some(FAILURE), "{limit} descriptors: {ended:?}");
                assert_eq!(
                    ended.stderr.lines().count(),
                    1,
                    "{limit} descriptors: {ended:?}"
                );
                assert!(
                    ended.stderr.contains("ulimit -n"),
                    "{limit} descriptors: {ended:?}"
                );
            }
        }
    }
    assert!(refused > 0, "6 descriptors suffice");
}

#[test]
fn running_out_of_memory_ends_with_one_line() {
    let _lab = Lab::new();
    for mebibytes in [24, 32, 48, 64, 96, 128, 192] {
        let ended = limited(
            libc::RLIMIT_AS,
            mebibytes << 20,
            &["-o", "json", "--duration", "100ms"],
        );
        assert!(
            matches!(ended.code, Some(0 | FAILURE)),
            "{mebibytes} MiB: {ended:?}"
        );
        let lines = if ended.code == Some(0) { 0 } else { 1 };
        assert_eq!(
            ended.stderr.lines().count(),
            lines,
            "{mebibytes} MiB: {ended:?}"
        );
    }
}

/// `ulimit -f`: a file that would become larger fails like a full disk. The signal that comes with
/// it does not end the process.
#[test]
fn a_file_that_reaches_its_limit_ends_the_trace_with_one_line() {
    const LIMIT: u64 = 64 << 10;
    for args in [&["-q", "-o", "json", "--write"][..], &["record", "-o"]] {
        let lab = Lab::new();
        let port = lab.port();
        let ports = port.to_string();
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("it.trace");
        let name = path.to_str().expect("a printable path");
        let mut command = tcptrace(&[args, &[name, "-p", &ports]].concat());
        limit(&mut command, libc::RLIMIT_FSIZE, LIMIT);
        let mut running = Running::start(command);
        eventually("the recording to begin", || {
            (fs::metadata(&path).ok()?.len() > 0).then_some(())
        });
        let programs = Programs::of(running.pid());
        while running.is_running() {
            storm(port, 10);
        }
        let ended = ended(running, &programs);
        let message =
            format!("tcptrace: cannot write to {name}: File too large; the trace ends here");
        says(&ended, FAILURE, &message);
        assert_eq!(fs::metadata(&path).expect("the file").len(), LIMIT);
        if args[0] == "-q" {
            invariants::check(&Trace::read(&ended.stdout, lab.netns));
        }
    }
}

/// The signal of the limit has its default effect in the traced command.
#[test]
fn a_traced_command_is_ended_by_its_file_limit() {
    let _lab = Lab::new();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("big");
    let of = format!("of={}", path.display());
    let mut command = tcptrace(&[
        "-o",
        "json",
        "--",
        "dd",
        "if=/dev/zero",
        &of,
        "bs=64K",
        "count=9",
    ]);
    limit(&mut command, libc::RLIMIT_FSIZE, 64 << 10);
    let ended = Running::run_to_end(command);
    assert_eq!(ended.code, Some(128 + Signal::SIGXFSZ as i32), "{ended:?}");
}

/// Since Linux 5.11 the memory of programs and maps belongs to the cgroup.
#[test]
fn no_locked_memory_is_needed() {
    let lab = Lab::new();
    let ended = limited(
        libc::RLIMIT_MEMLOCK,
        0,
        &["-o", "json", "--duration", "100ms"],
    );
    says(&ended, DONE, "");
    invariants::check(&Trace::read(&ended.stdout, lab.netns));
}

/// `ulimit -u` does not bind root.
#[test]
fn running_out_of_threads_ends_with_one_line() {
    let _lab = Lab::new();
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("its owner");
    let copy = folder.path().join("tcptrace");
    fs::copy(tcptrace(&[]).get_program(), &copy).expect("a copy");
    fs::set_permissions(&copy, Permissions::from_mode(0o755)).expect("its owner");
    if give_bpf_and_perfmon(&copy).is_err() {
        // The file system does not support extended attributes.
        return;
    }
    let mut command = Command::new(&copy);
    command
        .args(["-o", "json", "--duration", "100ms"])
        .uid(NOBODY)
        .gid(NOBODY)
        .current_dir("/");
    limit(&mut command, libc::RLIMIT_NPROC, 0);
    let ended = Running::run_to_end(command);
    says(
        &ended,
        FAILURE,
        "tcptrace: cannot start a thread: there is no memory for it (ulimit -v), or there are too \
         many (ulimit -u)",
    );
    assert_eq!(ended.stdout, "");
}
