//! Servers that are programs of their own, late by their handler.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::trace::Line;
use tests::traffic::*;
use tests::{Lab, Trace};

use super::{WHY, adds_up, delay, functions, trace};

/// Upper bound on late connections without the wanted stack.
const ROUNDS: usize = 200;

/// A running server. It handles one connection after the other, and closes each.
struct Server {
    port: u16,
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

/// The last late connection of a server.
pub struct Driven {
    pub trace: Trace,
    /// The `accept` line.
    pub line: Line,
    /// The time from the connection to the input that ended the cause.
    pub delay: Duration,
    /// The lines that the server printed for its connections.
    pub printed: Vec<String>,
}

impl Server {
    /// Starts a server with the port as its last argument.
    fn start(mut command: Command, port: u16) -> Server {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.arg(port.to_string()).spawn().expect("the server");
        let stdout = child.stdout.take().expect("a pipe");
        let mut stdout = BufReader::new(stdout).lines();
        let line = stdout.next().expect("a line").expect("read");
        assert_eq!(line, "listening");
        Server {
            port,
            stdin: child.stdin.take().expect("a pipe"),
            stdout,
            child,
        }
    }

    /// Makes two connections. The second one is queued while the server handles the first one: until
    /// it is done, or gets a byte of input after the time of the cause. Returns the second one's port,
    /// and that time; `None` if this thread was so slow that the server may have waited for it.
    fn be_late(&mut self) -> Option<(u16, Duration)> {
        let began = Instant::now();
        let _first = connect_queued(self.port);
        let mut second = connect_queued(self.port);
        let is_prompt = began.elapsed() < delay() / 4;
        let began = Instant::now();
        sleep(delay());
        self.stdin.write_all(b"xx").expect("write");
        let delay = began.elapsed();
        let end = second.read(&mut [0]);
        assert!(matches!(end, Ok(0)), "{end:?}");
        is_prompt.then(|| (port_of(&second), delay))
    }

    /// Kills the server. Returns its process id, and what it printed.
    fn end(mut self) -> (u32, Vec<String>) {
        self.child.kill().expect("SIGKILL");
        let printed = self.stdout.by_ref().map(|line| line.expect("read"));
        (self.child.id(), printed.collect())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // A runtime leaves its names of functions.
        let _ = std::fs::remove_file(format!("/tmp/perf-{}.map", self.child.id()));
    }
}

/// Makes connections that the server accepts late until a `stack` line is `wanted`: the tracer reads
/// the program's symbols while the first ones wait. Returns one more.
pub fn drive(server: Command, wanted: impl Fn(&Line) -> bool + Sync) -> Driven {
    let lab = Lab::alone();
    let tracer = trace(&lab, WHY);
    let mut server = Server::start(server, lab.port());
    let is_enough = AtomicBool::new(false);
    scope(|scope| {
        scope.spawn(|| {
            tracer.wait_for_line("the stack", |line| line.is("stack") && wanted(line));
            is_enough.store(true, Ordering::Relaxed);
        });
        let mut rounds = 0;
        while !is_enough.load(Ordering::Relaxed) && rounds < ROUNDS {
            server.be_late();
            rounds += 1;
        }
    });
    let mut rounds = (0..ROUNDS).filter_map(|_| server.be_late());
    let (client_port, delay) = rounds.next().expect("a prompt round");
    let accepts = |line: &Line| line.is("accept") && line["rport"] == client_port;
    tracer.wait_for(1, "the last connection to be accepted", accepts);
    let (pid, printed) = server.end();
    let trace = tracer.stop_lossy();
    let line = trace.accept_of(client_port).clone();
    adds_up(&line);
    line.shows(&[("acceptor_tid", &pid)]);
    Driven {
        trace,
        line,
        delay,
        printed,
    }
}

/// Returns whether a `stack` line has a user function with this in its name.
pub fn has_function(line: &Line, name: &str) -> bool {
    let has_name = |frame: &Value| {
        let function = frame["function"].as_str();
        function.is_some_and(|it| it.contains(name))
    };
    let frames = line["user_frames"].as_array();
    frames.is_some_and(|all| all.iter().any(has_name))
}

/// Returns whether a program can be started, and prints that the scenario does not run if not, as in
/// the VMs.
pub fn is_installed(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdout(Stdio::null());
    let status = command.stderr(Stdio::null()).status();
    if let Err(error) = &status {
        println!("not run: {program}: {error}");
    }
    status.is_ok()
}

impl Driven {
    /// Returns the place where the server was blocked longest.
    #[track_caller]
    pub fn blocked_in(&self) -> &Value {
        let places = self.line["acceptor_blocked_in"].as_array();
        places.and_then(|it| it.first()).expect("a place")
    }

    /// Returns the names of the user functions of a stack, innermost first.
    #[track_caller]
    pub fn user_functions(&self, stack: &Value) -> Vec<String> {
        let frames = functions(&self.trace, stack, "user_frames").into_iter();
        let names = frames.filter_map(|it| it["function"].as_str().map(str::to_owned));
        names.collect()
    }
}
