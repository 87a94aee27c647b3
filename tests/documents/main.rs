//! Runs each command of README.md and of the book, with traffic on the ports that they name.

#[path = "../../tcptrace/tests/documents/mod.rs"]
mod documents;

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tests::netns::Netns;
use tests::run::{Ended, Running, tcptrace};
use tests::terminal::Terminal;
use tests::traffic::listen_at;
use tests::{Lab, eventually};

/// Programs of the documents that are not run, with the reason.
const NOT_RUN: [(&str, &str); 9] = [
    ("cargo", "it builds, tests or measures this repository"),
    ("apt", "it installs a package"),
    ("jq", "it only reads the output of tcptrace"),
    ("grep", "it only reads the output of tcptrace"),
    ("duckdb", "it only reads the output of tcptrace"),
    ("curl", "it shows the server of the case study"),
    ("ps", "it shows the server of the case study"),
    ("ss", "it shows the server of the case study"),
    ("nstat", "it shows the counters of the case study"),
];

/// Ports of servers that the documents name.
const PORTS: [u16; 3] = [3000, 7878, 8080];

/// Recordings that the documents name.
const RECORDINGS: [&str; 3] = ["tcptrace.trace", "load.trace", "ci.trace"];

/// Commands of users that the documents name. A trace runs for as long as they do.
const LOADS: [&str; 2] = ["load-test", "load-test.sh"];

/// Time of a trace between its start and Ctrl-C.
const TRACED: Duration = Duration::from_millis(700);

/// Number of commands that run at the same time. Most of them only wait.
const AT_A_TIME: usize = 6;

/// A command of the documents, and the first place where it stands.
struct Call {
    words: Vec<String>,
    place: String,
}

/// How a command ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    ByItself,
    CtrlC,
    /// By the key q on a terminal.
    Key,
}

impl Call {
    fn is(&self, subcommand: &str) -> bool {
        self.words.get(1).is_some_and(|it| it == subcommand)
    }

    fn has(&self, word: &str) -> bool {
        self.words.iter().any(|it| it == word)
    }

    /// Returns true if the command traces the kernel until it is ended.
    fn is_trace(&self) -> bool {
        let first = self.words.get(1).map_or("-", String::as_str);
        first.starts_with('-') || ["record", "export"].contains(&first)
    }

    fn end(&self) -> End {
        let lists_fields = self.words.windows(2).any(|it| it == ["--fields", "help"]);
        match self.is_trace() && !self.has("--") && !lists_fields {
            true => End::CtrlC,
            false if self.is("top") => End::Key,
            false => End::ByItself,
        }
    }

    /// Returns the exit codes that the documents allow.
    fn codes(&self) -> &'static [i32] {
        // Whether an expectation holds depends on the kernel and on the speed of this machine.
        if self.has("--expect") {
            return &[0, 5];
        }
        // This kernel may lack kprobes.
        if self.has("--attach") {
            return &[0, 4];
        }
        &[0]
    }

    /// Returns the arguments, with the names of cgroups, containers and pods replaced by the id of a
    /// cgroup, because this machine may not have them.
    fn args(&self) -> Vec<&str> {
        let mut args: Vec<&str> = self.words[1..].iter().map(String::as_str).collect();
        for at in 1..args.len() {
            if ["--cgroup", "--container", "--pod"].contains(&args[at - 1]) {
                (args[at - 1], args[at]) = ("--cgroup", "1");
            }
        }
        args
    }

    /// Runs the command in a folder with the files that it needs. An exporter has a network namespace
    /// of its own, because several use one port.
    fn run(&self, folder: &Path) -> Ended {
        let apart = || {
            Netns::enter();
            self.run_here(folder)
        };
        match self.is("export") {
            true => thread::scope(|scope| scope.spawn(apart).join().expect("no panic")),
            false => self.run_here(folder),
        }
    }

    fn run_here(&self, folder: &Path) -> Ended {
        let mut command = tcptrace(&self.args());
        command.current_dir(folder).env("TERM", "xterm-256color");
        if self.is("replay") && self.has("-") {
            command.stdin(File::open(folder.join(RECORDINGS[0])).expect("a recording"));
        }
        match self.end() {
            End::ByItself => Running::run_to_end(command),
            End::CtrlC => {
                let mut running = Running::start(command);
                wait_until_interruptible(&mut running);
                thread::sleep(TRACED);
                if running.is_running() {
                    running.signal(Signal::SIGINT);
                }
                running.wait()
            }
            End::Key => {
                let mut terminal = Terminal::start(command, 100, 30);
                terminal.shows(&["tcptrace top", "quit"]);
                terminal.press("q");
                terminal.end().0
            }
        }
    }

    /// Returns what is wrong with the end of the command, if anything is.
    fn fault(&self, folder: &Path, ended: &Ended) -> Option<String> {
        if !ended.code.is_some_and(|code| self.codes().contains(&code)) {
            return Some(format!("not one of the exit codes {:?}", self.codes()));
        }
        let is_written = |name: &str| fs::metadata(folder.join(name)).is_ok_and(|it| it.len() > 0);
        let file = match () {
            () if self.is("report") => Some("tcptrace.html"),
            () if self.has("--rotate") => Some("tcptrace.trace.0001"),
            () if self.has("--write") => Some("load.trace"),
            _ => None,
        };
        let is_silent = self.is("report")
            || self.is("record")
            || self.is("export")
            || self.is("top")
            || self.has("-q");
        match file {
            Some(name) if !self.has("ci.trace") && !is_written(name) => {
                Some(format!("{name} was not written"))
            }
            _ if !is_silent && ended.code == Some(0) && ended.stdout.is_empty() => {
                Some("no output".to_owned())
            }
            _ => None,
        }
    }
}

/// Waits until the process handles SIGINT, or has ended.
fn wait_until_interruptible(running: &mut Running) {
    let status = format!("/proc/{}/status", running.pid());
    let handles = || {
        let status = fs::read_to_string(&status).ok()?;
        let caught = status
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:"))?;
        let caught = u64::from_str_radix(caught.trim(), 16).ok()?;
        Some(caught & 1 << (Signal::SIGINT as u32 - 1) != 0)
    };
    eventually("a process to handle SIGINT", || {
        (!running.is_running() || handles() == Some(true)).then_some(())
    });
}

/// Returns the distinct commands of README.md and of the book.
fn calls() -> Vec<Call> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut calls = BTreeMap::new();
    for path in documents::paths(&root, &["README.md"]) {
        let text = fs::read_to_string(&path).expect("read a document");
        let name = path.file_name().expect("a name").to_string_lossy();
        for line in documents::lines(&text) {
            let place = format!("{name}:{}", line.number);
            for program in line.programs.iter().filter_map(|words| words.first()) {
                let known = NOT_RUN.iter().any(|(name, _)| name == program);
                assert!(
                    known || program == "tcptrace",
                    "{place}: {program} is neither run nor in NOT_RUN"
                );
            }
            for words in line.calls() {
                let first = || place.clone();
                calls.entry(words.to_vec()).or_insert_with(first);
            }
        }
    }
    let calls = calls.into_iter();
    let mut calls: Vec<Call> = calls.map(|(words, place)| Call { words, place }).collect();
    // The longest one first.
    calls.sort_by_key(|call| !call.words.iter().any(|it| it.starts_with("--stats")));
    calls
}

/// Servers on the ports of the documents and clients of them, until the flag is set. They inherit the
/// thread's network namespace.
fn traffic<'scope>(scope: &'scope thread::Scope<'scope, '_>, done: &'scope AtomicBool) {
    const REPLY: &[u8] = b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    for port in PORTS {
        let listener = listen_at((Ipv6Addr::UNSPECIFIED, port).into(), 128);
        scope.spawn(move || {
            for stream in listener.incoming() {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let Ok(mut stream) = stream else { continue };
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(REPLY);
            }
        });
        scope.spawn(move || {
            let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let mut last = false;
            // The last connection ends the server.
            while !last {
                last = done.load(Ordering::Relaxed);
                let mut stream = TcpStream::connect(server).expect("connect to a server");
                let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
                let _ = stream.read_to_end(&mut vec![]);
                thread::sleep(Duration::from_millis(100));
            }
        });
    }
}

/// Makes a folder with the programs that the documents name, and with the recordings that a command
/// may read.
fn folder(at: &Path, recording: Option<&Path>) {
    fs::create_dir(at).expect("create a folder");
    for name in RECORDINGS {
        if let Some(recording) = recording {
            fs::copy(recording, at.join(name)).expect("copy a recording");
        }
    }
    for name in LOADS {
        let program = at.join(name);
        fs::write(&program, "#!/bin/sh\nexec sleep 1\n").expect("write a program");
        fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("make it executable");
    }
}

/// Records three connections. The listener is #1, the ends of the first connection are #2 and #3.
fn recording(scratch: &Path) -> PathBuf {
    let port = PORTS[0];
    let path = scratch.join("recording");
    let (name, ports) = (path.to_str().expect("a printable path"), port.to_string());
    let listener = listen_at((Ipv4Addr::LOCALHOST, port).into(), 128);
    let args = ["record", "--segments", "-p", &ports, "-o", name];
    let running = Running::start(tcptrace(&args));
    eventually("the recording to begin", || {
        let size = fs::metadata(&path).ok()?.len();
        (size > 0).then_some(())
    });
    thread::sleep(TRACED);
    for _ in 0..3 {
        let client = TcpStream::connect(listener.local_addr().expect("an address"));
        drop((client.expect("connect"), listener.accept().expect("accept")));
    }
    running.signal(Signal::SIGINT);
    let ended = running.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    path
}

/// Sets a flag at the end of its life, also in a panic.
struct Finally<'a>(&'a AtomicBool);

impl Drop for Finally<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a command in a new folder. Returns what is wrong, if anything is.
fn check(call: &Call, at: &Path, recording: &Path) -> Option<String> {
    // A recording is not replaced without --force.
    let reads = !call.is_trace();
    folder(at, reads.then_some(recording));
    let begun = Instant::now();
    let ended = call.run(at);
    let (took, line) = (begun.elapsed().as_secs_f32(), call.words.join(" "));
    println!(
        "{took:5.1} s, exit code {:?}: {line} ({})",
        ended.code, call.place
    );
    let fault = call.fault(at, &ended)?;
    Some(format!("{}: {line}: {fault}: {ended:?}", call.place))
}

/// Runs all commands, some at a time. Returns what is wrong.
fn check_all(calls: &[Call], scratch: &Path, recording: &Path) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut faults = vec![];
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let Some(call) = calls.get(n) else {
                break faults;
            };
            faults.extend(check(call, &scratch.join(n.to_string()), recording));
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(work)).collect();
        let faults = workers
            .into_iter()
            .flat_map(|it| it.join().expect("no panic"));
        faults.collect()
    })
}

#[test]
fn every_command_of_readme_and_book_runs() {
    let _lab = Lab::new();
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let calls = calls();
    assert!(calls.len() > 60, "{} commands", calls.len());
    let recording = recording(scratch.path());
    let done = AtomicBool::new(false);
    let faults = thread::scope(|scope| {
        let _finally = Finally(&done);
        traffic(scope, &done);
        check_all(&calls, scratch.path(), &recording)
    });
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
