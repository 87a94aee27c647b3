//! Signals, limits, other clocks, and missing privileges. A trace ends with its summary, or refuses
//! to start with one line that has the reason.

use std::ffi::CStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{SigHandler, Signal, signal};
use tests::run::{Ended, Running, tcptrace, tcptrace_trace};
use tests::task::now_ns;
use tests::tracer::await_session;
use tests::traffic::*;
use tests::{Lab, Tracer};

const FAILURE: i32 = 1;
const NOT_PERMITTED: i32 = 3;
const NOBODY: u32 = 65534;

fn json_trace() -> Running {
    let running = Running::start(tcptrace_trace(&["-o", "json"]));
    await_session(&running);
    running
}

#[track_caller]
fn ends_with_its_summary(ended: &Ended) {
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let last = ended.stdout.lines().last().unwrap_or_default();
    assert!(last.contains(r#""event":"summary""#), "{last}");
}

/// `timeout` signals its child and then the process group, to which the child belongs.
#[test]
fn a_repeated_signal_still_writes_the_summary() {
    let _lab = Lab::new();
    for signals in [
        [Signal::SIGTERM, Signal::SIGTERM],
        [Signal::SIGINT, Signal::SIGINT],
        [Signal::SIGHUP, Signal::SIGTERM],
        [Signal::SIGTERM, Signal::SIGINT],
    ] {
        let running = json_trace();
        for signal in signals {
            running.signal(signal);
            sleep(Duration::from_millis(2));
        }
        ends_with_its_summary(&running.wait());
    }
}

#[test]
fn sighup_ends_the_trace_unless_it_is_ignored() {
    let _lab = Lab::new();
    let running = json_trace();
    running.signal(Signal::SIGHUP);
    ends_with_its_summary(&running.wait());

    // Ignores SIGHUP, like nohup.
    let mut command = tcptrace_trace(&["-o", "json"]);
    // SAFETY: one async-signal-safe call.
    unsafe {
        command.pre_exec(|| {
            signal(Signal::SIGHUP, SigHandler::SigIgn)?;
            Ok(())
        });
    }
    let mut running = Running::start(command);
    await_session(&running);
    running.signal(Signal::SIGHUP);
    sleep(Duration::from_millis(500));
    assert!(running.is_running(), "SIGHUP is ignored");
    running.signal(Signal::SIGINT);
    ends_with_its_summary(&running.wait());
}

/// The clock of BPF programs ignores time namespaces.
#[test]
fn times_are_correct_in_a_time_namespace() {
    const DAY_S: u64 = 86_400;
    if fs::metadata("/proc/self/timens_offsets").is_err() {
        return;
    }
    let lab = Lab::new();
    let mut command = tcptrace_trace(&["-o", "json"]);
    // SAFETY: system calls on texts that exist before the fork.
    unsafe {
        command.pre_exec(|| {
            unshare(CloneFlags::from_bits_retain(libc::CLONE_NEWTIME))?;
            fs::write("/proc/self/timens_offsets", "monotonic 86400 0\n")?;
            let children = File::open("/proc/self/ns/time_for_children")?;
            setns(children, CloneFlags::from_bits_retain(libc::CLONE_NEWTIME))?;
            Ok(())
        });
    }
    let before = now_ns();
    let tracer = Tracer::spawn(&lab, command);
    talk(lab.port());
    tracer.wait_for_ends(2);
    let trace = tracer.stop();
    let server = trace.server();
    server.shows(&[("verdict", &"queued"), ("complete", &true)]);
    for line in [trace.session(), server, trace.summary()] {
        let at = line.num("mono_ns");
        assert!((before..now_ns()).contains(&at), "{at}: {line}");
    }
    let ts = humantime(server.text("ts"));
    let now = std::time::UNIX_EPOCH.elapsed().expect("a clock").as_secs();
    assert!(ts.abs_diff(now) < DAY_S / 2, "{server}");
}

/// Returns the seconds since 1970 of a UTC date; the time of day is ignored.
fn humantime(ts: &str) -> u64 {
    let number = |range: std::ops::Range<usize>| ts[range].parse::<i64>().expect("a number");
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    // Howard Hinnant's days_from_civil, for years after 1970.
    let year = if month <= 2 { year - 1 } else { year };
    let of_era = year - year / 400 * 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let of_era = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    let days = year / 400 * 146_097 + of_era - 719_468;
    let seconds = number(11..13) * 3600 + number(14..16) * 60 + number(17..19);
    (days * 86_400 + seconds) as u64
}

/// Runs the binary by descriptor, for users without access to its folder.
fn by_descriptor(args: &[&str]) -> (Command, File) {
    let binary = File::open(tcptrace(&[]).get_program()).expect("the binary");
    let mut command = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()));
    command.args(args).stdin(Stdio::null()).current_dir("/");
    (command, binary)
}

#[test]
fn a_trace_without_permission_leaves_output_files_unchanged() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).expect("its owner");
    let (old, new) = (
        folder.path().join("old.trace"),
        folder.path().join("new.trace"),
    );
    fs::write(&old, "an old recording\n").expect("a file");
    fs::set_permissions(&old, Permissions::from_mode(0o666)).expect("its owner");
    for path in [&old, &new] {
        for args in [&["--force", "--write"][..], &["record", "--force", "-o"]] {
            let path = path.to_str().expect("a path");
            let (mut command, _binary) = by_descriptor(&[args, &[path]].concat());
            command.uid(NOBODY).gid(NOBODY);
            let ended = Running::run_to_end(command);
            assert_eq!(ended.code, Some(NOT_PERMITTED), "{ended:?}");
        }
    }
    assert_eq!(
        fs::read_to_string(&old).expect("the file"),
        "an old recording\n"
    );
    assert!(!new.exists());
}

/// Sets only CAP_BPF and CAP_PERFMON, effective: `setcap cap_bpf,cap_perfmon+ep`, see
/// include/uapi/linux/capability.h.
fn give_capabilities(path: &std::path::Path) -> io::Result<()> {
    const NAME: &CStr = c"security.capability";
    const REVISION_2_EFFECTIVE: u32 = 0x0200_0001;
    const PERFMON_AND_BPF: u32 = 0b11 << (38 - 32);
    let words = [REVISION_2_EFFECTIVE, 0, 0, PERFMON_AND_BPF, 0];
    let value: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let path = std::ffi::CString::new(path.to_str().expect("a path"))?;
    // SAFETY: names that end in NUL, and a value of the given length.
    let done = unsafe {
        libc::setxattr(
            path.as_ptr(),
            NAME.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A user of a binary with file capabilities must not choose the object that it loads into the
/// kernel.
#[test]
fn a_binary_with_capabilities_ignores_the_users_object() {
    let _lab = Lab::new();
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("its owner");
    let copy = folder.path().join("tcptrace");
    fs::copy(tcptrace(&[]).get_program(), &copy).expect("a copy");
    fs::set_permissions(&copy, Permissions::from_mode(0o755)).expect("its owner");
    if give_capabilities(&copy).is_err() {
        // The file system does not support extended attributes.
        return;
    }
    let object = folder.path().join("another.bpf.o");
    fs::write(&object, "no eBPF object").expect("a file");
    let mut command = Command::new(&copy);
    command
        .args(["-o", "json", "--duration", "100ms"])
        .env("TCPTRACE_BPF_OBJECT", &object)
        .stdin(Stdio::null())
        .uid(NOBODY)
        .gid(NOBODY)
        .current_dir("/");
    let ended = Running::run_to_end(command);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.starts_with(r#"{"event":"session""#),
        "{ended:?}"
    );
}

fn limited(resource: libc::__rlimit_resource_t, limit: u64, args: &[&str]) -> Ended {
    let mut command = tcptrace(args);
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

#[test]
fn demo_fails_on_a_full_disk_and_succeeds_for_a_closed_pipe() {
    let _lab = Lab::new();
    let mut command = tcptrace(&["demo"]);
    command.stdout(
        File::options()
            .write(true)
            .open("/dev/full")
            .expect("a full disk"),
    );
    command.stderr(Stdio::piped());
    let ended = Running::spawn(command).wait();
    assert_eq!(ended.code, Some(FAILURE), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
    assert!(
        ended.stderr.contains("No space left on device"),
        "{ended:?}"
    );

    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    let mut command = tcptrace(&["demo"]);
    command.stdout(writer).stderr(Stdio::piped());
    let ended = Running::spawn(command).wait();
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
}
