//! Acceptors that are stopped, frozen or throttled from outside.

use std::io::Write;
use std::process::{Child, Stdio};
use std::thread::sleep;

use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use tests::cgroup::Cgroup;
use tests::trace::Line;
use tests::{Lab, run};

use super::{CAUSE, WHY, adds_up, assert_near};

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

/// Runs the helper in a cgroup and `cause` while its connection is queued. Returns the late
/// connection's line.
fn late_process(cgroup: Option<&Cgroup>, cause: impl FnOnce(&mut LateServer)) -> Line {
    let lab = Lab::alone();
    let port = lab.port();
    let tracer = lab.trace_with(&[WHY]);
    let mut command = run::helper(&["accept-late", &port.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    if let Some(cgroup) = cgroup {
        cgroup.put(&mut command);
    }
    let mut server = LateServer {
        child: command.spawn().expect("start the helper"),
    };
    let mut line = String::new();
    let stdout = server.child.stdout.take().expect("a pipe");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("read");
    let client_port: u16 = line.trim().parse().expect("a port");
    cause(&mut server);
    assert!(server.child.wait().expect("wait").success());
    tracer.wait_for_ends(4);
    let trace = tracer.stop_lossy();
    let line = trace.server_of(client_port).clone();
    adds_up(&line);
    line.shows(&[("acceptor_tid", &server.child.id())]);
    line
}

#[track_caller]
fn blocked_for_the_cause(line: &Line, reason: &str, words: &str) {
    line.shows(&[("late_reason", &reason)]);
    assert_near(
        "blocked",
        line.num("acceptor_blocked_ns"),
        200_000_000,
        line,
    );
    let said = line.text("late_because");
    assert!(said.contains(words), "{words:?} in {said:?}");
    let places = line["acceptor_blocked_in"].as_array().expect("a list");
    assert_eq!(places[0]["late_reason"], reason, "{line}");
}

#[test]
fn an_acceptor_that_sigstop_stops_is_stopped() {
    let line = late_process(None, |server| {
        kill(server.pid(), Signal::SIGSTOP).expect("SIGSTOP");
        sleep(CAUSE);
        server.go();
        kill(server.pid(), Signal::SIGCONT).expect("SIGCONT");
    });
    blocked_for_the_cause(&line, "stopped", "stopped by a signal");
}

#[test]
fn an_acceptor_under_a_debugger_is_traced() {
    let line = late_process(None, |server| {
        ptrace::attach(server.pid()).expect("PTRACE_ATTACH");
        waitpid(server.pid(), None).expect("the stop");
        sleep(CAUSE);
        server.go();
        ptrace::detach(server.pid(), None).expect("PTRACE_DETACH");
    });
    blocked_for_the_cause(&line, "traced", "stopped by a debugger");
}

#[test]
fn an_acceptor_in_a_frozen_cgroup_is_frozen() {
    let cgroup = Cgroup::new();
    let freeze = cgroup.path.join("cgroup.freeze");
    if !freeze.exists() {
        return;
    }
    let line = late_process(Some(&cgroup), |server| {
        std::fs::write(&freeze, "1").expect("freeze");
        sleep(CAUSE);
        server.go();
        std::fs::write(&freeze, "0").expect("thaw");
    });
    blocked_for_the_cause(&line, "frozen", "frozen");
}

/// The helper uses 60 ms of CPU time, of which it gets 20 ms in each 100 ms.
#[test]
fn an_acceptor_without_cpu_quota_is_throttled() {
    let cgroup = Cgroup::new();
    let Some(()) = cgroup.limit_cpu(20_000, 100_000) else {
        return;
    };
    let line = late_process(Some(&cgroup), |server| {
        let stdin = server.child.stdin.as_mut().expect("a pipe");
        writeln!(stdin, "compute 60").expect("write");
        server.go();
    });
    line.shows(&[("late_reason", &"quota")]);
    assert_near(
        "running",
        line.num("acceptor_running_ns"),
        60_000_000,
        &line,
    );
    let throttled = line.num("acceptor_throttled_ns");
    assert!(throttled > 100_000_000, "{line}");
    let told = cgroup.throttled_ns();
    assert_near("throttled", throttled, told, &line);
    assert!(line.text("late_because").contains("CPU quota"), "{line}");
}
