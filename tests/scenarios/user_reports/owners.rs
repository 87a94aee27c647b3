//! The owner of a socket: only processes that hold it, or held it last.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tests::mounts::unmount;
use tests::run::{self, Running};
use tests::task::{join, now_ns, pid, set_name, spawn};
use tests::trace::NULL;
use tests::tracer::await_session;
use tests::traffic::*;
use tests::{Lab, Line, Trace, Tracer, eventually};

/// A child process of a `tests-helper` process that has exited. The child process lives as long as
/// this value.
struct Successor {
    pid: u32,
    /// The pid of the `tests-helper` process that has exited.
    maker: u32,
    /// The time at which the exit was known.
    exited_ns: u64,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

/// Starts a `tests-helper` process that forks a child process and exits. Calls `meanwhile` before
/// it waits for the exit.
fn start_successor(role: &str, port: u16, name: &str, meanwhile: impl FnOnce()) -> Successor {
    let mut helper = run::helper(&[role, &port.to_string(), name]);
    helper.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut helper: Child = helper.spawn().expect("start the helper");
    let mut stdout = BufReader::new(helper.stdout.take().expect("a pipe"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("the successor's number");
    meanwhile();
    eventually("the helper to exit", || helper.try_wait().expect("wait"));
    Successor {
        pid: line.trim().parse().expect("a number"),
        maker: helper.id(),
        exited_ns: now_ns(),
        stdin: helper.stdin.take().expect("a pipe"),
        stdout,
    }
}

impl Successor {
    /// Ends the child process and waits until it has exited.
    fn end(mut self) -> u64 {
        drop(self.stdin);
        self.stdout.read_to_end(&mut vec![]).expect("its end");
        now_ns()
    }
}

/// Asserts that no line after this time names the process.
fn is_not_named_after(trace: &Trace, pid: u32, ns: u64) {
    for event in ["transition", "accept", "connection"] {
        for line in trace.own(event).filter(|line| line.num("mono_ns") > ns) {
            assert_ne!(line["pid"], pid, "the process had exited before {line}");
        }
    }
}

/// The kernel reports the listener's maker. A socket snapshot finds its present holder some
/// milliseconds later.
fn wait_until_presumed(tracer: &Tracer, port: u16, pid: u32) {
    eventually("the successor to be presumed", || {
        let before = now_ns();
        drop(connect_queued(port));
        let lines = tracer.wait_for(1, "a child", |line| {
            line.is("transition")
                && line["newstate"] == "SYN_RECV"
                && line["lport"] == port
                && line.num("mono_ns") > before
        });
        let line = lines.first().expect("one");
        (line["pid"] == pid).then(|| line.shows(&[("pid_source", &"presumed")]))
    });
}

#[test]
fn a_listener_is_attributed_to_a_living_holder_when_its_maker_exits() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let successor = start_successor("leave-listener", port, "successor", || {});
    wait_until_presumed(&tracer, port, successor.pid);
    let client = connect_queued(port);
    let (maker, exited_ns, own) = (successor.maker, successor.exited_ns, successor.pid);
    let ended_ns = successor.end();
    tracer.wait_for(1, "the listener to close", |line| {
        line.0.get("oldstate") == Some(&"LISTEN".into()) && line["newstate"] == "CLOSE"
    });
    drop(client);
    let trace = tracer.stop();

    trace
        .listen()
        .shows(&[("pid", &maker), ("pid_source", &"listen")]);
    is_not_named_after(&trace, maker, exited_ns);
    is_not_named_after(&trace, own, ended_ns);
    for server in trace.connections("server") {
        server.shows(&[("verdict", &"never_accepted")]);
    }
}

#[test]
fn a_filter_by_the_successors_name_shows_connections_it_never_accepts() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace_with(&["--comm", "successor"]);
    let successor = start_successor("leave-listener", port, "successor", || {});
    // tcptrace learns of the new holder some milliseconds after the maker has exited.
    for _ in 0..20 {
        drop(connect_queued(port));
        std::thread::sleep(Duration::from_millis(100));
    }
    let pid = successor.pid;
    tracer.wait_for(1, "a connection of the successor", |line| {
        line.is("transition") && line["pid"] == pid
    });
    successor.end();
    let trace = tracer.stop_lossy();

    assert!(!trace.connections("server").is_empty());
    assert!(trace.connections("client").is_empty());
    let named: Vec<&Line> = trace
        .own("transition")
        .filter(|it| it["pid"] == pid)
        .collect();
    assert!(!named.is_empty());
    for line in named {
        line.shows(&[("comm", &"successor")]);
    }
}

/// Passes descriptors with SCM_RIGHTS, as Node's cluster passes connections to its workers.
#[test]
fn a_passed_connection_belongs_to_the_worker_that_closed_it() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let mut client = None;
    let worker = start_successor("hand-over", port, "worker", || {
        client = Some(connect(port));
    });
    let mut client: TcpStream = client.expect("a client");
    send_text(&mut client);
    receive_end(&mut client);
    drop(client);
    tracer.wait_for_ends(2);
    let (acceptor, exited_ns, own) = (worker.maker, worker.exited_ns, worker.pid);
    worker.end();
    let trace = tracer.stop();

    trace.accept().shows(&[("pid", &acceptor)]);
    let server = trace.server();
    server.shows(&[
        ("pid", &own),
        ("comm", &"worker"),
        ("pid_source", &"close"),
        ("complete", &true),
    ]);
    is_not_named_after(&trace, acceptor, exited_ns);
    let transitions = trace.transitions(&server["conn"]);
    let closing = transitions
        .iter()
        .skip_while(|it| it["newstate"] != "FIN_WAIT1");
    // The network caused the other state changes.
    let closing = closing.filter(|it| it["context"] == "process");
    let mut steps = 0;
    for line in closing {
        line.shows(&[("pid", &own)]);
        steps += 1;
    }
    assert!(steps > 0);
}

/// A kernel thread closes the subflows, the TCP connections of a Multipath TCP connection.
#[test]
fn a_multipath_connection_belongs_to_its_acceptor() {
    let lab = Lab::new();
    let here = SocketAddr::from((LOOPBACK, lab.port()));
    // The namespace may have MPTCP switched off. The file is missing if the kernel lacks MPTCP.
    let _ = std::fs::write("/proc/sys/net/mptcp/enabled", "1");
    let mptcp = || Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP));
    let Ok(listener) = mptcp() else {
        eprintln!("skipped: no MPTCP");
        return;
    };
    let tracer = lab.trace();
    listener.bind(&here.into()).expect("bind");
    listener.listen(4).expect("listen");
    let listener = TcpListener::from(listener);
    let client = mptcp().expect("a second one");
    client.connect(&here.into()).expect("connect");
    let mut client = TcpStream::from(client);
    let mut server = accept(&listener).stream;
    send_text(&mut client);
    receive_text(&mut server);
    close(client, server);
    drop(listener);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    for end in [trace.server(), trace.client()] {
        end.shows(&[("pid", &pid())]);
    }
    for line in trace.own("transition") {
        let is_ours = line["pid"] == pid() || line["pid"].is_null();
        assert!(is_ours, "a kernel thread owns no connection: {line}");
    }
}

#[test]
fn a_name_filter_matches_the_thread_or_its_process() {
    let process = std::fs::read_to_string("/proc/self/comm").expect("a name");
    let process = process.trim_end();
    let lab = Lab::new();
    let (port, other) = (lab.port(), lab.port());
    let tracer = lab.trace_with(&["--comm", process]);
    let mut helper = run::helper(&["talk", &other.to_string(), "0"]);
    assert!(helper.status().expect("the helper").success());
    let named = move || {
        set_name(c"Socket Thread");
        talk(port);
    };
    join(spawn(named).1);
    tracer.wait_for_ends(2);
    let trace = tracer.stop_lossy();

    for end in [trace.server(), trace.client()] {
        end.shows(&[("comm", &"Socket Thread"), ("process", &process)]);
        assert!(end["lport"] == port || end["rport"] == port, "{end}");
    }
}

/// `ps` shows other pids than the kernel's own in a PID namespace.
#[test]
fn a_pid_filter_uses_the_pid_namespace_of_its_user() {
    let lab = Lab::new();
    let (port, tcptrace) = (lab.port().to_string(), run::tcptrace(&[]));
    let tcptrace = tcptrace.get_program().to_str().expect("a plain name");
    let inside = |pid: &str| {
        let args = [
            "in-a-pid-namespace",
            &port,
            tcptrace,
            "-o",
            "json",
            "--netns",
            "self",
        ];
        let helper = run::helper(&[&args[..], &["--count", "2", "--pid", pid]].concat());
        Running::run_to_end(helper)
    };
    let ended = inside("PID");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let trace = Trace::read(&ended.stdout, lab.netns);
    // The first connection may have begun before the trace; it is not counted then.
    assert!(trace.own("connection").count() >= 2);
    for line in trace.own("connection") {
        // The first process of the namespace is tcptrace's parent, the second one talks.
        line.shows(&[("nspid", &2)]);
        assert!(line["pid"].as_u64().is_some_and(|pid| pid != 2), "{line}");
    }

    let ended = inside("4194000");
    assert_eq!(ended.code, Some(4), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("--pid 4194000"), "{}", ended.stderr);
}

#[test]
fn a_process_in_a_pid_namespace_has_both_of_its_numbers() {
    let lab = Lab::new();
    let [port, theirs] = [lab.port(), lab.port()];
    let tracer = lab.trace_with(&["--port", &format!("{port},{theirs}")]);
    talk(port);
    let mut helper = run::helper(&["in-a-pid-namespace", &theirs.to_string(), "cat"]);
    helper.stdin(Stdio::piped());
    let helper = Running::start(helper);
    tracer.wait_for_ends(6);
    let ended = helper.wait_without_input();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let trace = tracer.stop_lossy();

    let is_own = |line: &Line| line["lport"] == port || line["rport"] == port;
    let ends = trace
        .own("connection")
        .filter(|line| !line["pid"].is_null());
    let (own, theirs): (Vec<&Line>, Vec<&Line>) = ends.partition(|line| is_own(line));
    assert!(own.len() == 2 && theirs.len() >= 4, "{own:?} {theirs:?}");
    for line in own {
        line.shows(&[("pid", &pid()), ("nspid", &NULL)]);
    }
    // The namespace's first process is the helper's child, which forks the one that talks.
    for line in &theirs {
        line.shows(&[("pid", &theirs[0]["pid"]), ("nspid", &2)]);
        assert_ne!(line["pid"], 2);
    }
}

#[test]
fn a_trace_without_cgroup_v2_says_that_containers_are_unknown() {
    let _lab = Lab::new();
    let mut command = run::tcptrace_trace(&["-o", "json", "--duration", "100ms"]);
    unmount(&mut command, c"/sys/fs/cgroup");
    let mut running = Running::start(command);
    let session = await_session(&running);
    let unseen = session["unseen"].as_array().expect("a list");
    let said = |it: &serde_json::Value| it.as_str().is_some_and(|it| it.contains("containers"));
    assert_eq!(unseen.iter().filter(|it| said(it)).count(), 1, "{session}");
    eventually("its end", || (!running.is_running()).then_some(()));
}
