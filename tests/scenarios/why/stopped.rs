//! Acceptors that are stopped, frozen or throttled from outside.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use tests::cgroup::Cgroup;
use tests::trace::Line;
use tests::{Lab, run};

use super::{WHY, adds_up, assert_mainly, assert_near, delay, trace};

/// A `tests-helper` that has a queued connection, and accepts it after a line on its stdin.
struct LateServer {
    child: Child,
}

impl LateServer {
    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    fn go(&mut self) {
        let stdin = self.child.stdin.as_mut().expect("a pipe");
        writeln!(stdin, "go").expect("write");
    }
}

/// Known times of a late server.
struct Facts {
    /// How long it was stopped.
    stopped: Duration,
    /// The CPU time that it used.
    used: Duration,
}

/// Runs the helper in a cgroup and `cause` while its connection is queued. Returns the late
/// connection's line.
fn late_process(
    cgroup: Option<&Cgroup>,
    cause: impl FnOnce(&mut LateServer) -> Duration,
) -> (Line, Facts) {
    let lab = Lab::alone();
    let port = lab.port();
    let tracer = trace(&lab, WHY);
    let mut command = run::helper(&["accept-late", &port.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    if let Some(cgroup) = cgroup {
        cgroup.put(&mut command);
    }
    let mut server = LateServer {
        child: command.spawn().expect("start the helper"),
    };
    let mut line = String::new();
    let mut stdout = BufReader::new(server.child.stdout.take().expect("a pipe"));
    stdout.read_line(&mut line).expect("read");
    let client_port: u16 = line.trim().parse().expect("a port");
    let stopped = cause(&mut server);
    assert!(server.child.wait().expect("wait").success());
    line.clear();
    stdout.read_line(&mut line).expect("read");
    let used = Duration::from_nanos(line.trim().parse().expect("a time"));
    tracer.wait_for_ends(4);
    let trace = tracer.stop_lossy();
    let line = trace.server_of(client_port).clone();
    adds_up(&line);
    line.shows(&[("acceptor_tid", &server.child.id())]);
    (line, Facts { stopped, used })
}

#[track_caller]
fn blocked_for_the_cause((line, facts): (Line, Facts), reason: &str, words: &str) {
    assert_mainly(&line, reason);
    let stopped_ns = facts.stopped.as_nanos() as u64;
    assert_near(
        "blocked",
        line.num("acceptor_blocked_ns"),
        stopped_ns,
        &line,
    );
    let said = line.text("late_because");
    assert!(said.contains(words), "{words:?} in {said:?}");
    let places = line["acceptor_blocked_in"].as_array().expect("a list");
    assert_eq!(places[0]["late_reason"], reason, "{line}");
}

/// Tells the server to go on as soon as it can. Returns the time until `resume` has returned.
fn stopped(server: &mut LateServer, resume: impl FnOnce(&LateServer)) -> Duration {
    let began = Instant::now();
    sleep(delay());
    server.go();
    resume(server);
    began.elapsed()
}

#[test]
fn an_acceptor_that_sigstop_stops_is_stopped() {
    let late = late_process(None, |server| {
        kill(server.pid(), Signal::SIGSTOP).expect("SIGSTOP");
        stopped(server, |it| {
            kill(it.pid(), Signal::SIGCONT).expect("SIGCONT")
        })
    });
    blocked_for_the_cause(late, "stopped", "stopped by a signal");
}

#[test]
fn an_acceptor_under_a_debugger_is_traced() {
    let late = late_process(None, |server| {
        ptrace::attach(server.pid()).expect("PTRACE_ATTACH");
        waitpid(server.pid(), None).expect("the stop");
        stopped(server, |it| {
            ptrace::detach(it.pid(), None).expect("PTRACE_DETACH")
        })
    });
    blocked_for_the_cause(late, "traced", "stopped by a debugger");
}

#[test]
fn an_acceptor_in_a_frozen_cgroup_is_frozen() {
    let cgroup = Cgroup::new();
    let freeze = cgroup.path.join("cgroup.freeze");
    if !freeze.exists() {
        println!("not run: there is no cgroup.freeze here");
        return;
    }
    let late = late_process(Some(&cgroup), |server| {
        std::fs::write(&freeze, "1").expect("freeze");
        stopped(server, |_| std::fs::write(&freeze, "0").expect("thaw"))
    });
    blocked_for_the_cause(late, "frozen", "frozen");
}

/// The helper gets 20 ms in each 100 ms, and uses three times as much CPU time.
#[test]
fn an_acceptor_without_cpu_quota_is_throttled() {
    let cgroup = Cgroup::new();
    let Some(()) = cgroup.limit_cpu(20_000, 100_000) else {
        println!("not run: there is no CPU controller of cgroup v2 here");
        return;
    };
    let (line, facts) = late_process(Some(&cgroup), |server| {
        let stdin = server.child.stdin.as_mut().expect("a pipe");
        writeln!(stdin, "compute 60").expect("write");
        server.go();
        Duration::ZERO
    });
    assert_mainly(&line, "quota");
    let running = line.num("acceptor_running_ns");
    assert_near("running", running, facts.used.as_nanos() as u64, &line);
    let throttled = line.num("acceptor_throttled_ns");
    assert!(throttled > 100_000_000, "{line}");
    let told = cgroup.throttled_ns();
    assert_near("throttled", throttled, told, &line);
    assert!(line.text("late_because").contains("CPU quota"), "{line}");
}
