//! Facts that no hook shows by itself. They are declared unseen, marked as likely, or read from the
//! kernel's counters.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};
use tests::netns::add_loopback_address;
use tests::peer::KERNEL;
use tests::run::{Running, helper, tcptrace, tcptrace_trace};
use tests::trace::NULL;
use tests::tracer::await_session;
use tests::traffic::*;
use tests::{Lab, Line, Peer, Trace, Tracer, eventually};

const LIMIT: i32 = 4;
/// An accept queue holds one connection more than its limit.
const FULL: usize = LIMIT as usize + 1;

fn sees(trace: &Trace, hook: &str) -> bool {
    !trace.session()["hooks"][hook].is_null()
}

/// Starts a connect() without waiting for an answer.
fn begin_to_connect(addr: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).expect("a socket");
    socket.set_nonblocking(true).expect("O_NONBLOCK");
    // Returns EINPROGRESS.
    let _ = socket.connect(&addr.into());
    socket
}

/// Returns a counter of the calling thread's network namespace, from /proc/net/netstat.
fn counter(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/netstat").expect("/proc is mounted");
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt: "));
    let mut words = || lines.next().expect("TcpExt has two lines").split(' ');
    let mut pairs = words().zip(words());
    let (_, value) = pairs.find(|(it, _)| *it == name).expect("the counter");
    value.parse().expect("a number")
}

/// Creates a listener with a full accept queue. Returns it with its clients.
fn full_queue(tracer: &Tracer, port: u16) -> (TcpListener, Vec<TcpStream>) {
    let listener = listen_at((LOOPBACK, port).into(), LIMIT);
    let clients = fill(tracer, (LOOPBACK, port).into());
    (listener, clients)
}

fn fill(tracer: &Tracer, addr: SocketAddr) -> Vec<TcpStream> {
    let clients = (0..FULL).map(|_| connect_to(addr)).collect();
    tracer.wait_for(FULL, "a full queue", |line| {
        line.is("transition") && line["side"] == "server" && line["newstate"] == "ESTABLISHED"
    });
    clients
}

/// Returns the summary's entry of the scenario's namespace.
fn netns_counters(trace: &Trace) -> Line {
    let all = trace.summary()["netns_counters"].as_array();
    let mut all = all.expect("a list").iter();
    let own = all.find(|it| it["netns"] == trace.netns.inode);
    Line(own.expect("the namespace has a listener").clone())
}

#[test]
fn syns_dropped_at_a_full_queue_are_counted_and_their_likely_cause_is_named() {
    const CALLERS: usize = 3;
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let (listener, clients) = full_queue(&tracer, port);
    let before = counter("ListenOverflows");
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| begin_to_connect((LOOPBACK, port).into()))
        .collect();
    tracer.wait_for(CALLERS, "the SYNs to be sent again", |line| {
        line.is("retransmit") && line["retransmitted"] == "SYN"
    });
    drop((callers, clients));
    let dropped = counter("ListenOverflows") - before;
    drop(listener);
    tracer.wait_for_ends(2 * FULL + CALLERS);
    let trace = tracer.stop();

    assert!(dropped >= 2 * CALLERS as u64, "{dropped}");
    let counters = netns_counters(&trace);
    for bound in ["at_least", "at_most"] {
        assert_eq!(counters[bound]["listen_overflows"], dropped, "{counters}");
    }
    let listener = trace.listen()["conn"].clone();
    counters.shows(&[("likely_listener", &listener)]);
    let unanswered: Vec<_> = (trace.connections("client").into_iter())
        .filter(|line| line["established_mono_ns"].is_null())
        .collect();
    assert_eq!(unanswered.len(), CALLERS);
    for line in unanswered {
        let explanation = line.text("explanation");
        let met = format!("met a full accept queue of #{listener} (5 queued, limit 4) 2 times");
        let likely = !sees(&trace, "listen_overflow");
        let begin = if likely { "its SYN likely" } else { "its SYN" };
        assert!(
            explanation.starts_with(&format!("{begin} {met}")),
            "{explanation}"
        );
        if likely {
            line.shows(&[("overflows", &NULL)]);
        }
    }
}

#[test]
fn a_client_whose_syn_is_answered_at_once_has_no_likely_cause() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let (listener, clients) = full_queue(&tracer, port);
    let accepted = accept(&listener);
    let last = connect_queued(port);
    drop((accepted, last, clients, listener));
    tracer.wait_for_ends(2 * (FULL + 1));
    let trace = tracer.stop();

    for line in trace.connections("client") {
        line.shows(&[("explanation", &NULL)]);
    }
    let counters = netns_counters(&trace);
    counters.shows(&[("likely_listener", &NULL)]);
    assert_eq!(counters["at_most"]["listen_overflows"], 0, "{counters}");
}

/// A final ACK that arrives at a full queue leaves its connection half-open, and the SYN-ACK is
/// sent again.
#[test]
fn ack_dropped_at_a_full_queue_is_the_likely_cause_of_a_repeated_synack() {
    let lab = Lab::new();
    let port = lab.port();
    let addr = SocketAddr::from((KERNEL, port));
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let listener = listen_at(addr, LIMIT);
    let mut talk = peer.talk(lab.port(), port);
    talk.syn();
    talk.receive_syn_ack();
    let clients = fill(&tracer, addr);
    talk.ack();
    talk.receive_syn_ack();
    let accepted = accept(&listener);
    talk.ack();
    let own = talk.own();
    tracer.wait_for(1, "the late connection", |line| {
        line.is("transition") && line["rport"] == own && line["newstate"] == "ESTABLISHED"
    });
    drop((accepted, clients, listener));
    let trace = tracer.stop();

    let server = trace.server_of(own);
    let reason = server.text("reason");
    match sees(&trace, "listen_overflow") {
        true => assert!(reason.contains("but met a full accept queue"), "{reason}"),
        false => {
            let likely = "; its final ACK likely met a full accept queue (5 queued, limit 4) once: \
                          the SYN-ACK was sent again once";
            assert!(reason.ends_with(likely), "{reason}");
            server.shows(&[("overflows", &NULL)]);
        }
    }
}

/// Sets TCP_DEFER_ACCEPT.
fn defer(listener: &TcpListener, seconds: libc::c_int) {
    let size = size_of_val(&seconds) as libc::socklen_t;
    // SAFETY: the kernel reads an int.
    let result = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            size,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// Returns the exit code and stderr of a trace with this expectation, in which one SYN is dropped.
fn expecting(expectation: &str) -> (Option<i32>, String) {
    let lab = Lab::new();
    let port = lab.port();
    let running = Running::start(tcptrace_trace(&["-o", "json", "--expect", expectation]));
    await_session(&running);
    let listener = listen_at((LOOPBACK, port).into(), LIMIT);
    let clients: Vec<_> = (0..FULL).map(|_| connect_queued(port)).collect();
    let before = counter("ListenOverflows");
    let caller = begin_to_connect((LOOPBACK, port).into());
    eventually("the drop", || {
        (counter("ListenOverflows") > before).then_some(())
    });
    running.signal(Signal::SIGINT);
    let ended = running.wait();
    drop((caller, clients, listener));
    (ended.code, ended.stderr)
}

#[test]
fn an_expectation_about_overflows_uses_kernel_counters_without_a_hook() {
    const DONE: Option<i32> = Some(0);
    const NOT_MET: Option<i32> = Some(5);
    for (expectation, code) in [("overflows>=1", DONE), ("overflows==0", NOT_MET)] {
        let (ended, said) = expecting(expectation);
        assert_eq!(ended, code, "{expectation}: {said}");
        assert!(!said.contains("not known"), "{said}");
    }
}

#[test]
fn connect_that_fails_before_its_syn_is_named_as_unseen() {
    let lab = Lab::new();
    let tracer = lab.trace();
    // The namespace has only the route of its loopback interface.
    let error = TcpStream::connect(("192.0.2.1", lab.port())).expect_err("no route");
    assert_eq!(error.raw_os_error(), Some(libc::ENETUNREACH));
    let trace = tracer.stop();

    assert_eq!(trace.connections("client").len(), 0);
    let unseen = trace.session()["unseen"].as_array().expect("a list");
    for limit in ["a connect() that fails before its SYN is sent", "(NAT)"] {
        let is_named = unseen.iter().any(|it| it.as_str().unwrap().contains(limit));
        assert!(is_named, "{unseen:?}");
    }
}

/// A `tests-helper` process that has run out of descriptors. It calls accept() when the scenario
/// asks for it.
struct WithoutDescriptors {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl WithoutDescriptors {
    fn start(port: u16) -> WithoutDescriptors {
        let mut command = helper(&["no-descriptors", &port.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("start the helper");
        let mut helper_process = WithoutDescriptors {
            stdin: child.stdin.take().expect("a pipe"),
            stdout: BufReader::new(child.stdout.take().expect("a pipe")),
            child,
        };
        helper_process.answers("the helper listens");
        helper_process
    }

    /// Makes `tests-helper` call accept() once, with or without a free descriptor.
    fn does(&mut self, what: &str, answer: &str) {
        writeln!(self.stdin, "{what}").expect("the helper reads");
        self.answers(answer);
    }

    fn answers(&mut self, expected: &str) {
        let mut line = String::new();
        self.stdout
            .read_line(&mut line)
            .expect("the helper answers");
        assert_eq!(line.trim(), expected);
    }
}

impl Drop for WithoutDescriptors {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_connection_delayed_by_emfile_is_explained() {
    const FAILURES: usize = 20;
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let mut server = WithoutDescriptors::start(port);
    let client = connect_queued(port);
    for _ in 0..FAILURES {
        server.does("accept", "24");
    }
    server.does("raise", "0");
    server.does("accept", "0");
    drop((server, client));
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    if trace.accept_attach_method() != "syscall" {
        assert!(trace.failed_accepts().is_empty());
        let unseen = trace.session()["unseen"].to_string();
        assert!(unseen.contains("EMFILE"), "{unseen}");
        return;
    }
    let failed = trace.failed_accepts();
    assert_eq!(failed.len(), FAILURES);
    for line in failed {
        line.shows(&[
            ("accept_error", &"EMFILE"),
            ("listener", &trace.listen()["conn"]),
        ]);
    }
    let expected = format!("; meanwhile accept() failed {FAILURES} times with EMFILE");
    let reason = trace.server().text("reason");
    assert!(reason.ends_with(&expected), "{reason}");
}

#[test]
fn repeated_failures_of_accept_are_folded_in_the_log() {
    const FAILURES: usize = 20;
    let lab = Lab::new();
    let port = lab.port();
    let ports = port.to_string();
    // The other methods see no call that fails before the kernel looks for a connection.
    let running = Running::start(tcptrace(&["-p", &ports, "--attach", "syscall"]));
    let head = |lines: &[String]| lines.iter().any(|it| it.starts_with("TIME")).then_some(());
    running.stdout().wait_until("the heading", head);
    let mut server = WithoutDescriptors::start(port);
    let client = connect_queued(port);
    for _ in 0..FAILURES {
        server.does("accept", "24");
    }
    server.does("raise", "0");
    server.does("accept", "0");
    drop((server, client));
    std::thread::sleep(Duration::from_millis(200));
    running.signal(Signal::SIGINT);
    let text = running.wait().stdout;
    let failures: Vec<_> = text.lines().filter(|it| it.contains(": EMFILE")).collect();
    assert!(failures.len() < FAILURES / 2, "{text}");
    let more = failures.last().expect("a line");
    assert!(more.contains(" more"), "{text}");
    assert!(text.contains("failed 20 times with EMFILE"), "{text}");
}

/// Without probes only a repeated SYN-ACK reveals the request socket. With the shortest
/// TCP_DEFER_ACCEPT the kernel repeats the SYN-ACK after a second. It accepts the ACK of that
/// SYN-ACK without data.
#[test]
fn a_deferred_connection_reports_its_half_open_time() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen(port);
    defer(&listener, 1);
    let client = connect_queued(port);
    let server = accept(&listener).stream;
    close(client, server);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    let server = trace.server();
    server.shows(&[("defer_accept", &true), ("synack_retransmits", &1)]);
    assert!(server.num("half_open_ns") > 900_000_000, "{server}");
}

#[test]
fn link_local_addresses_are_shown_with_their_device() {
    let lab = Lab::new();
    let (port, old_port) = (lab.port(), lab.port());
    let address: Ipv6Addr = "fe80::1".parse().unwrap();
    let device = add_loopback_address(address);
    let at = |port| SocketAddr::from(SocketAddrV6::new(address, port, 0, device));
    let old = listen_at(at(old_port), LIMIT);
    let tracer = lab.trace();
    let listener = listen_at(at(port), LIMIT);
    let client = connect_to(at(port));
    let server = accept(&listener).stream;
    close(client, server);
    tracer.wait_for_ends(2);
    drop((listener, old));
    let trace = tracer.stop();

    for line in [
        trace.listen(),
        trace.server(),
        trace.client(),
        trace.accept(),
    ] {
        line.shows(&[("laddr", &"fe80::1"), ("scope_id", &device)]);
    }
    let old = trace
        .own("preexisting")
        .find(|line| line["lport"] == old_port);
    old.expect("the old listener")
        .shows(&[("laddr", &"fe80::1"), ("scope_id", &device)]);
    trace.listener_summary(port).shows(&[("scope_id", &device)]);
    trace.server().shows(&[
        ("peer_conn", &trace.client()["conn"]),
        ("raddr", &"fe80::1"),
    ]);
    trace
        .accept()
        .shows(&[("listener", &trace.listen()["conn"])]);
}
