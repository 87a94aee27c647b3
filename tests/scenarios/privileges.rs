//! A trace keeps few of root's privileges. It also works with few of them from the start.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tests::run::{Running, tcptrace, tcptrace_trace};
use tests::tracer::await_session;
use tests::{Lab, TIMEOUT, eventually};

const NOBODY: u32 = 65534;

/// Bits of capabilities, include/uapi/linux/capability.h.
const DAC_OVERRIDE: u64 = 1 << 1;
const DAC_READ_SEARCH: u64 = 1 << 2;
const KILL: u64 = 1 << 5;
const SYS_PTRACE: u64 = 1 << 19;
const SYS_ADMIN: u64 = 1 << 21;
const SYS_NICE: u64 = 1 << 23;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;
const CHECKPOINT_RESTORE: u64 = 1 << 40;

/// Capabilities that the main thread keeps on some machines: before Linux 5.19, and where it may not
/// raise RLIMIT_NICE.
const ON_SOME: u64 = BPF | SYS_NICE;

/// Returns a line of a status file in /proc.
fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|line| line.strip_prefix(':'));
    value.expect("a line of status").trim()
}

/// Returns the permitted capabilities of each thread of a process that has given up system calls, by
/// the thread's name. Threads without a name of their own have that of the program.
fn kept(pid: u32) -> BTreeMap<String, u64> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    let paths = threads.flatten().map(|thread| thread.path().join("status"));
    // A thread may have ended.
    let statuses = paths.filter_map(|path| std::fs::read_to_string(path).ok());
    let of_thread = |status: String| {
        assert_eq!(field(&status, "NoNewPrivs"), "1", "{status}");
        assert_eq!(field(&status, "CapInh"), "0000000000000000", "{status}");
        assert_eq!(field(&status, "CapAmb"), "0000000000000000", "{status}");
        let bits = u64::from_str_radix(field(&status, "CapPrm"), 16);
        (
            field(&status, "Name").to_owned(),
            bits.expect("a hexadecimal number"),
        )
    };
    statuses.map(of_thread).collect()
}

/// Asserts which capabilities the threads of a trace keep. `main` are those of the main thread.
#[track_caller]
fn keeps(pid: u32, main: u64) {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}"));
    eventually("a trace to give up system calls", || {
        (field(&read("status").ok()?, "Seccomp") == "2").then_some(())
    });
    let name = read("comm").expect("a name");
    let expected = |thread: &str, kept: u64| match thread {
        "lookups" => SYS_ADMIN | SYS_PTRACE | DAC_READ_SEARCH,
        "symbols" => SYS_PTRACE | DAC_READ_SEARCH | CHECKPOINT_RESTORE,
        it if it == name.trim() => main | kept & ON_SOME,
        _ => 0,
    };
    // A thread that begins late gives up late, and only then holds what it should.
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let kept = self::kept(pid);
        let all = kept.keys();
        let expected: BTreeMap<String, u64> =
            all.map(|it| (it.clone(), expected(it, kept[it]))).collect();
        if kept == expected || Instant::now() > deadline {
            assert_eq!(kept, expected);
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn after_its_start_a_trace_keeps_only_what_its_threads_need() {
    let _lab = Lab::new();
    for args in [
        &[][..],
        &["--why"],
        &["--depth", "histogram"],
        &["--segments"],
    ] {
        let running = Running::start(tcptrace_trace(&[&["-o", "json"], args].concat()));
        await_session(&running);
        keeps(running.pid(), 0);
        running.signal(Signal::SIGINT);
        assert_eq!(running.wait().code, Some(0), "{args:?}");
    }
}

#[test]
fn a_recording_in_a_folder_of_another_user_keeps_the_right_to_write_there() {
    let _lab = Lab::new();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.trace");
    let path = path.to_str().expect("a printable path");
    for (owner, main) in [(0, 0), (NOBODY, DAC_OVERRIDE)] {
        std::os::unix::fs::chown(folder.path(), Some(owner), None).expect("chown");
        let permissions = PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.path(), permissions).expect("chmod");
        let args = ["record", "-o", path, "--rotate", "64K", "--files", "2"];
        let running = Running::start(tcptrace(&args));
        keeps(running.pid(), main);
        running.signal(Signal::SIGINT);
        assert_eq!(running.wait().code, Some(0));
    }
    let files = std::fs::read_dir(folder.path())
        .expect("a folder")
        .flatten();
    let modes = files.map(|file| file.metadata().expect("a file").permissions().mode() & 0o777);
    let modes: Vec<u32> = modes.collect();
    assert!(
        !modes.is_empty() && modes.iter().all(|mode| *mode == 0o600),
        "{modes:?}"
    );
}

/// Runs tcptrace as the user nobody with only these capabilities.
fn with_only(capabilities: u64, args: &[&str]) -> Command {
    // Nobody may not look into the folder of the program.
    let binary = File::open(tcptrace(&[]).get_program()).expect("the program");
    let mut command = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()));
    command.args(args);
    let prepare = move || {
        let _kept_open = &binary;
        let check = |result: i64| match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        };
        let [low, high] = [capabilities as u32, (capabilities >> 32) as u32];
        // `struct __user_cap_header_struct` of version 3, and two of `struct __user_cap_data_struct`:
        // effective, permitted, inheritable.
        let header = [0x2008_0522_u32, 0];
        let data = [low, low, low, high, high, high];
        // SAFETY: plain system calls with valid arguments.
        unsafe {
            check(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0).into())?;
            check(libc::setgroups(0, std::ptr::null()).into())?;
            check(libc::setgid(NOBODY).into())?;
            check(libc::setuid(NOBODY).into())?;
            check(libc::syscall(libc::SYS_capset, &header, &data))?;
            for bit in (0..41).filter(|bit| capabilities >> bit & 1 != 0) {
                let raise = libc::PR_CAP_AMBIENT_RAISE;
                check(libc::prctl(libc::PR_CAP_AMBIENT, raise, bit, 0, 0).into())?;
            }
        }
        Ok(())
    };
    // SAFETY: the closure makes only system calls.
    unsafe { command.pre_exec(prepare) };
    command
}

#[test]
fn with_two_capabilities_a_trace_shows_connections_and_names_what_it_lacks() {
    let lab = Lab::new();
    let port = lab.port();
    let number = port.to_string();
    let args = ["-o", "json", "--why", "-p", &number];
    let running = Running::start(with_only(BPF | PERFMON, &args));
    await_session(&running);
    tests::traffic::talk(port);
    running.signal(Signal::SIGINT);
    let ended = running.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let lines: Vec<serde_json::Value> = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let unseen = lines[0]["unseen"].as_array().expect("a list");
    for wanted in [
        "what snapshots show in other network namespaces, such as sockets that are older than the \
         trace: they need CAP_SYS_ADMIN and CAP_SYS_PTRACE",
        "containers: finding a cgroup by its id needs CAP_DAC_READ_SEARCH",
        "names of user functions in the stacks of other users' processes: they need CAP_SYS_PTRACE \
         and CAP_DAC_READ_SEARCH",
    ] {
        assert!(
            unseen.iter().any(|it| it == wanted),
            "{wanted} in {unseen:?}"
        );
    }
    let ends = lines.iter().filter(|line| line["event"] == "connection");
    assert_eq!(ends.count(), 2);
}

#[test]
fn every_command_works_with_two_capabilities_or_names_the_one_that_it_lacks() {
    let _lab = Lab::new();
    let folder = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::chown(folder.path(), Some(NOBODY), None).expect("chown");
    let run = |args: &[&str]| {
        let mut command = with_only(BPF | PERFMON, args);
        command.current_dir(folder.path());
        let ended = Running::run_to_end(command);
        (ended.code, ended.stderr)
    };
    for args in [
        &["record", "--duration", "100ms"][..],
        &[
            "record",
            "-o",
            "parts",
            "--rotate",
            "64K",
            "--duration",
            "100ms",
        ],
        &[
            "record",
            "-o",
            "kept",
            "--keep",
            "1s",
            "--duration",
            "100ms",
        ],
        &["replay", "tcptrace.trace", "-q"],
        &["-q", "--segments", "--duration", "100ms"],
        &["-q", "--uid", "root", "--duration", "100ms"],
        &[
            "-q",
            "--expect",
            "never_accepted==0",
            "-p",
            "1",
            "--duration",
            "100ms",
        ],
        &["-q", "-p", "1", "--", "true"],
        &["doctor"],
        &["demo"],
    ] {
        let (code, stderr) = run(args);
        assert_eq!(code, Some(0), "{args:?}: {stderr}");
    }
    let refused = "tcptrace: the kernel's run-time statistics cannot be turned on: `bpf_enable_stats` \
                   failed: Operation not permitted (os error 1)\n";
    assert_eq!(
        run(&["doctor", "--stats=1s"]),
        (Some(1), refused.to_owned())
    );
    let refused = "tcptrace: only root can run COMMAND as root; leave --user out\n";
    let args = ["-q", "--user", "root", "--", "true"];
    assert_eq!(run(&args), (Some(2), refused.to_owned()));
    for (had, lacks) in [
        (0, "CAP_BPF and CAP_PERFMON"),
        (BPF, "CAP_PERFMON"),
        (PERFMON, "CAP_BPF"),
    ] {
        let ended = Running::run_to_end(with_only(had, &["-q", "--duration", "100ms"]));
        let refused = format!(
            "tcptrace: not permitted: tracing needs {lacks}; run tcptrace as root or with sudo\n"
        );
        assert_eq!((ended.code, ended.stderr), (Some(3), refused));
    }
}

/// Returns what a command of a trace writes. It runs as under sudo that nobody has called.
fn under_sudo(args: &[&str], script: &str) -> String {
    let mut command = tcptrace_trace(&[&["-q"], args, &["--", "sh", "-c", script]].concat());
    command.env("SUDO_UID", NOBODY.to_string());
    command.env("SUDO_GID", NOBODY.to_string());
    command.env("SECRET", "1").env("LC_ALL", "C");
    let ended = Running::run_to_end(command);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.stderr
}

#[test]
fn a_command_runs_as_the_user_who_called_sudo_with_a_clean_environment() {
    let lab = Lab::new();
    let port = lab.port().to_string();
    let script = "id -u; id -g; id -G; grep CapEff /proc/self/status; ls /proc/self/fd | tr '\\n' ' '; \
                  echo; env | grep -v '^PWD=\\|^_=\\|^SHLVL=\\|^OLDPWD=' | cut -d= -f1 | sort | \
                  tr '\\n' ' '; echo; cut -d' ' -f6 /proc/$$/stat; echo $$";
    let said = under_sudo(&["-p", &port], script);
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    let [
        uid,
        gid,
        groups,
        capabilities,
        descriptors,
        names,
        session,
        pid,
    ] = lines[..]
    else {
        panic!("{said}");
    };
    assert_eq!([uid, gid, groups], ["65534"; 3], "{said}");
    assert_eq!(capabilities, "CapEff:\t0000000000000000");
    // 3 is the folder that ls reads.
    assert_eq!(descriptors, "0 1 2 3");
    for absent in ["SECRET", "SUDO_UID", "TCPTRACE_BIN"] {
        assert!(!names.split(' ').any(|it| it == absent), "{names}");
    }
    for present in ["HOME", "LC_ALL", "LOGNAME", "PATH", "SHELL", "USER"] {
        assert!(names.split(' ').any(|it| it == present), "{names}");
    }
    assert_eq!(session, pid, "the command leads a session");
    let root = under_sudo(&["-p", &port, "--user", "root"], "id -u; echo $SECRET");
    assert_eq!(root, "0\n1\n");
}

#[test]
fn a_killed_trace_takes_its_command_with_it_unless_it_is_detached() {
    let lab = Lab::new();
    let port = lab.port().to_string();
    for (args, survives) in [(&[][..], false), (&["--detach-command"], true)] {
        for user in ["root", "nobody"] {
            let options = ["-o", "json", "-p", &port, "--user", user];
            let command = ["--", "sh", "-c", "echo $$; exec sleep 600"];
            let mut command = tcptrace_trace(&[&options[..], args, &command].concat());
            let (reader, writer) = io::pipe().expect("a pipe");
            command.stderr(writer);
            let mut child = command
                .stdout(std::process::Stdio::null())
                .spawn()
                .expect("tcptrace");
            drop(command);
            let mut line = String::new();
            let mut reader = io::BufReader::new(reader);
            io::BufRead::read_line(&mut reader, &mut line).expect("a line");
            let pid: i32 = line.trim().parse().expect("a process id");
            if user == "nobody" && !survives {
                keeps(child.id(), KILL);
            }
            child.kill().expect("kill");
            child.wait().expect("wait");
            let is_there = || Path::new(&format!("/proc/{pid}/cwd")).exists();
            match survives {
                false => eventually("the command to end", || (!is_there()).then_some(())),
                true => {
                    std::thread::sleep(Duration::from_millis(200));
                    assert!(is_there());
                    let pid = nix::unistd::Pid::from_raw(pid);
                    nix::sys::signal::kill(pid, Signal::SIGKILL).expect("kill");
                }
            }
        }
    }
}

#[test]
fn an_output_of_root_is_private_and_replaces_nothing_unasked() {
    let _lab = Lab::new();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.trace");
    let name = path.to_str().expect("a printable path");
    let run = |args: &[&str]| Running::run_to_end(tcptrace(args));
    let record = ["record", "-o", name, "--duration", "100ms"];
    assert_eq!(run(&record).code, Some(0));
    let mode = |path: &Path| {
        std::fs::metadata(path)
            .expect("a file")
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode(&path), 0o600);
    let before = std::fs::read(&path).expect("a recording");
    for args in [&record[..], &["--write", name, "-q", "--duration", "100ms"]] {
        let ended = run(args);
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        let words = format!("{name} exists; choose another file for");
        assert!(ended.stderr.contains(&words), "{}", ended.stderr);
        assert_eq!(std::fs::read(&path).expect("a recording"), before);
    }
    assert_eq!(run(&[&record[..], &["--force"]].concat()).code, Some(0));
    assert_ne!(std::fs::read(&path).expect("a recording"), before);
    assert_eq!(run(&["report", name]).code, Some(0));
    assert_eq!(mode(&path.with_extension("html")), 0o600);
}

#[test]
fn a_symbolic_link_of_another_user_in_a_shared_folder_is_not_followed() {
    let _lab = Lab::new();
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o1777)).expect("chmod");
    std::fs::write(path("theirs"), "theirs").expect("a file");
    symlink(path("theirs"), path("link")).expect("a link");
    symlink(path("none"), path("dangling")).expect("a link");
    for name in ["link", "dangling"] {
        std::os::unix::fs::lchown(path(name), Some(NOBODY), None).expect("lchown");
        let link = path(name);
        let link = link.to_str().expect("a printable path");
        let args = ["record", "-o", link, "--force", "--duration", "100ms"];
        let ended = Running::run_to_end(tcptrace(&args));
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        let words = "it is a symbolic link of another user in a shared folder";
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    }
    assert_eq!(std::fs::read(path("theirs")).expect("a file"), b"theirs");
    assert!(!path("none").exists());
}
