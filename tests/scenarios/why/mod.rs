//! `--why`: each scenario makes an accept() late in a known way, and compares the explanation with
//! that cause and with the kernel's own accounts of the thread.

mod blocked;
mod cpu;
mod driven;
mod runtimes;
mod several;
mod stacks;
mod stopped;
mod waiting;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde_json::Value;
use tests::task::{join, now_ns, spawn, tid};
use tests::trace::Line;
use tests::traffic::*;
use tests::{Lab, Trace, Tracer, is_emulated};

/// Returns how long a cause delays an accept(): long in comparison with all else that does.
fn delay() -> Duration {
    Duration::from_millis(if is_emulated() { 1000 } else { 200 })
}

fn delay_ns() -> u64 {
    delay().as_nanos() as u64
}

/// The time of `--why`. Setting up a connection takes less.
const WHY: &str = "--why=20ms";

/// Starts a trace of the lab's ports with a `--why`. Other traffic of the machine would only slow it.
fn trace(lab: &Lab, why: &str) -> Tracer {
    let ports = format!("{}-{}", lab.ports.first, lab.ports.last);
    lab.trace_with(&[why, "-p", &ports])
}

/// The time of a thread by the kernel's accounts, independent of tcptrace.
#[derive(Clone, Copy, Debug)]
struct Accounts {
    mono_ns: u64,
    running_ns: u64,
    /// `sched_info.run_delay`: the thread was runnable and waited for a CPU.
    runnable_ns: u64,
}

impl Accounts {
    /// Reads the accounts of the calling thread.
    fn now() -> Accounts {
        let cpu = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock");
        let path = format!("/proc/self/task/{}/schedstat", tid());
        let text = std::fs::read_to_string(path).expect("schedstat");
        let run_delay = text.split_whitespace().nth(1).expect("a second number");
        Accounts {
            mono_ns: now_ns(),
            running_ns: Duration::from(cpu).as_nanos() as u64,
            runnable_ns: run_delay.parse().expect("a number"),
        }
    }

    /// Returns the times from `self` until now.
    fn until_now(self) -> Accounts {
        let now = Accounts::now();
        Accounts {
            mono_ns: now.mono_ns - self.mono_ns,
            running_ns: now.running_ns - self.running_ns,
            runnable_ns: now.runnable_ns - self.runnable_ns,
        }
    }

    fn blocked_ns(self) -> u64 {
        self.mono_ns
            .saturating_sub(self.running_ns + self.runnable_ns)
    }
}

/// A late connection: its line, and the accounts of the thread that accepted it.
struct Late {
    trace: Trace,
    line: Line,
    accounts: Accounts,
    tid: u32,
}

/// Accepts one connection, connects again and lets `cause` delay the second accept().
fn late_by(cause: impl Fn() + Send + Sync + 'static) -> Late {
    late_at(serve, move |_| cause())
}

/// Like [`late_by`]. `serve` accepts each connection, and `cause` gets the listener.
fn late_at(
    serve: impl Fn(&TcpListener) + Send + Sync + 'static,
    cause: impl Fn(&TcpListener) + Send + Sync + 'static,
) -> Late {
    late_until(serve, cause, 2, |tracer| tracer.wait_for_ends(4))
}

/// Like [`late_by`]. Makes late connections until the functions of a user stack are named: the
/// tracer reads a program's symbols while the first ones wait.
fn late_with_names(cause: impl Fn() + Send + Sync + 'static) -> Late {
    late_until(
        serve,
        move |_| cause(),
        usize::MAX,
        |tracer| {
            tracer.wait_for_line("names of functions", is_named);
        },
    )
}

/// Whether a line has a user stack with names of functions.
fn is_named(line: &Line) -> bool {
    let has_name = |frame: &Value| frame["function"].is_string();
    let frames = || line["user_frames"].as_array();
    line.is("stack") && frames().is_some_and(|all| all.iter().any(has_name))
}

/// Returns the frames of a `stack` line, innermost first: `kernel_frames` or `user_frames`.
#[track_caller]
fn functions(trace: &Trace, stack: &Value, frames: &str) -> Vec<Value> {
    // A stack is repeated when more of its functions are named.
    let mut lines = trace.lines.iter().rev();
    let line = lines.find(|it| it.is("stack") && it["stack"] == *stack);
    let frames = line.expect("a stack line")[frames].as_array();
    frames.expect("a list").clone()
}

fn serve(listener: &TcpListener) {
    drop(accept(listener).stream);
}

/// How often a scenario is tried. Where the kernel runs no program on top of init, it hides some
/// switches, and what they begin is not known.
const TRIES: usize = 3;

/// Whether the trace knows what the acceptor did, but for a tenth of the wait.
fn is_known(line: &Line) -> bool {
    line.num("acceptor_unseen_ns") <= line.num("accept_queue_ns") / 10
}

/// Makes connections that are accepted late, except for the first one, until there are `most` or
/// `wait` has returned. Returns the last one.
fn late_until(
    serve: impl Fn(&TcpListener) + Send + Sync + 'static,
    cause: impl Fn(&TcpListener) + Send + Sync + 'static,
    most: usize,
    wait: impl Fn(&Tracer),
) -> Late {
    let (serve, cause) = (Arc::new(serve), Arc::new(cause));
    let mut tries = (0..TRIES).map(|_| {
        let (serve, cause) = (serve.clone(), cause.clone());
        try_late(move |it| serve(it), move |it| cause(it), most, &wait)
    });
    let late = tries.find(|late| is_known(&late.line));
    let late = late.expect("what the acceptor did is known");
    late.agrees_with_the_accounts();
    late
}

fn try_late(
    serve: impl Fn(&TcpListener) + Send + 'static,
    cause: impl Fn(&TcpListener) + Send + 'static,
    most: usize,
    wait: impl Fn(&Tracer),
) -> Late {
    let lab = Lab::alone();
    let port = lab.port();
    let tracer = trace(&lab, WHY);
    let is_enough = Arc::new(AtomicBool::new(false));
    let enough = is_enough.clone();
    let (tid, server) = spawn(move || {
        let listener = listen(port);
        let first = connect(port);
        serve(&listener);
        drop(first);
        let mut made = 1;
        loop {
            let client = connect(port);
            let before = Accounts::now();
            cause(&listener);
            let accounts = before.until_now();
            serve(&listener);
            made += 1;
            if made >= most || enough.load(Ordering::Relaxed) {
                return (port_of(&client), accounts);
            }
        }
    });
    wait(&tracer);
    is_enough.store(true, Ordering::Relaxed);
    let (client_port, accounts) = join(server);
    tracer.wait_for(2, "both ends of the last connection", |line| {
        let has_port = line["lport"] == client_port || line["rport"] == client_port;
        line.is("connection") && has_port
    });
    let trace = tracer.stop_lossy();
    let line = trace.server_of(client_port).clone();
    Late {
        trace,
        line,
        accounts,
        tid,
    }
}

/// Asserts that a time differs from another by at most 10 % of the whole wait, or 2 ms. The kernel's
/// accounts draw the line between running and not at another place of each switch. A time that is
/// not known may belong to each part.
#[track_caller]
fn assert_near(what: &str, told: u64, expected: u64, line: &Line) {
    let wait = line.maybe("accept_queue_ns").unwrap_or(0);
    let unseen = line.maybe("acceptor_unseen_ns").unwrap_or(0);
    let tolerance = (expected.max(wait) / 10).max(2_000_000) + unseen;
    assert!(
        told.abs_diff(expected) <= tolerance,
        "{what}: {told} told, {expected} expected in {line}"
    );
}

impl Late {
    #[track_caller]
    fn agrees_with_the_accounts(&self) {
        let line = &self.line;
        adds_up(line);
        line.shows(&[("acceptor_tid", &self.tid)]);
        let told = |field: &str| line.num(field);
        let accounts = self.accounts;
        assert_near(
            "running",
            told("acceptor_running_ns"),
            accounts.running_ns,
            line,
        );
        assert_near(
            "runnable",
            told("acceptor_runnable_ns"),
            accounts.runnable_ns,
            line,
        );
        assert_near(
            "blocked",
            told("acceptor_blocked_ns"),
            accounts.blocked_ns(),
            line,
        );
        // The accept line says the same.
        let conn = &line["conn"];
        let mut accepts = self.trace.accepts().into_iter();
        let accept = accepts.find(|it| it["conn"] == *conn).expect("an accept");
        for field in ["late_because", "late_reason", "acceptor_blocked_in"] {
            assert_eq!(accept[field], line[field], "{field}");
        }
    }

    /// Asserts the main reason and a part of the sentence. Other work of the machine may have taken
    /// the CPU for longer, by the kernel's accounts.
    #[track_caller]
    fn says(&self, reason: &str, sentence: &str) {
        let accounts = self.accounts;
        let longest = accounts.blocked_ns().max(accounts.running_ns);
        let reason = if accounts.runnable_ns > longest {
            "cpu"
        } else {
            reason
        };
        self.line.shows(&[("late_reason", &reason)]);
        let said = self.line.text("late_because");
        assert!(said.starts_with("late because "), "{said}");
        assert!(said.contains(sentence), "{sentence:?} in {said:?}");
    }

    /// Returns the reason that the kernel's accounts give for most of the time. Other work of the
    /// machine may take the CPU from a thread that computes.
    fn longest(&self) -> &'static str {
        match self.accounts.running_ns > self.accounts.runnable_ns {
            true => "running",
            false => "cpu",
        }
    }

    /// Returns the place where the acceptor was blocked longest.
    #[track_caller]
    fn blocked_in(&self) -> &Value {
        let places = self.line["acceptor_blocked_in"].as_array();
        places.and_then(|it| it.first()).expect("a place")
    }
}

/// Asserts the main reason of a line, which is "cpu" if other work of the machine has taken the CPU for
/// longer.
#[track_caller]
fn assert_mainly(line: &Line, reason: &str) {
    let throttled = line.num("acceptor_throttled_ns");
    let cpu = line.num("acceptor_runnable_ns") - throttled;
    let others = [
        line.num("acceptor_blocked_ns"),
        line.num("acceptor_running_ns"),
        throttled,
    ];
    let is_cpu = others.iter().all(|&it| cpu > it);
    line.shows(&[("late_reason", &if is_cpu { "cpu" } else { reason })]);
}

/// Asserts that the four times of the acceptor add up to the wait.
#[track_caller]
fn adds_up(line: &Line) {
    let parts = ["running", "runnable", "blocked", "unseen"];
    let sum: u64 = parts
        .iter()
        .map(|part| line.num(&format!("acceptor_{part}_ns")))
        .sum();
    assert_eq!(sum, line.num("accept_queue_ns"), "{line}");
}
