//! Buckets (`inet_timewait_sock`): the small records in which the kernel keeps connections in
//! FIN_WAIT2 or TIME_WAIT after their sockets are gone.

use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tests::task::now_ns;
use tests::trace::NULL;
use tests::traffic::*;
use tests::{Lab, Line, Trace, Tracer};

/// Whether this trace sees buckets themselves, and not only the last state of a closing socket.
fn sees_buckets(trace: &Trace) -> bool {
    !trace.session()["hooks"]["timewait_sock"].is_null()
}

/// Whether a running tracer sees buckets, by its first line.
fn will_see_buckets(tracer: &mut Tracer) -> bool {
    let session = tests::tracer::await_session(tracer.process());
    !session["hooks"]["timewait_sock"].is_null()
}

/// Returns the only `time_wait` line.
#[track_caller]
fn time_wait(trace: &Trace) -> &Line {
    let all: Vec<&Line> = trace.own("time_wait").collect();
    match all[..] {
        [line] => line,
        _ => panic!("{all:#?}"),
    }
}

/// Connects from a given port.
fn connect_from(from: u16, to: u16) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    let [from, to] = [from, to].map(|port| SocketAddr::from((LOOPBACK, port)).into());
    socket.bind(&from).expect("bind");
    socket.connect(&to).expect("connect");
    socket.into()
}

fn sysctl(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value)
        .unwrap_or_else(|error| panic!("{name}: {error}"));
}

/// Asserts equality within 5 % and 10 ms, because emulated machines are slow.
#[track_caller]
fn about(ns: u64, measured: u64) {
    let slack = measured / 20 + 10_000_000;
    assert!(
        ns.abs_diff(measured) < slack,
        "{ns} is not about {measured}"
    );
}

#[test]
fn a_fin_that_finds_the_socket_begins_time_wait() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen(port);
    let client = connect(port);
    let server = accept(&listener).stream;
    close_half(&client);
    tracer.wait_for(1, "the client to be half-closed", |line| {
        line.is("transition") && line["newstate"] == "FIN_WAIT2"
    });
    drop(server);
    tracer.wait_for_ends(2);
    drop(client);
    let trace = tracer.stop();

    trace
        .client()
        .shows(&[("bucket", &"TIME_WAIT"), ("state", &"CLOSE")]);
    trace.server().shows(&[("bucket", &NULL)]);
    let conn = &trace.client()["conn"];
    let closing = trace.transitions(conn).into_iter().last().expect("a CLOSE");
    closing.shows(&[("newstate", &"CLOSE"), ("bucket", &"TIME_WAIT")]);
    let synthetic: Vec<&Line> = trace
        .own("transition")
        .filter(|line| line.is_synthetic() && line["conn"] == *conn)
        .collect();
    let source = match sees_buckets(&trace) {
        true => "timewait_sock",
        false => "socket_flags",
    };
    synthetic[0].shows(&[
        ("conn", conn),
        ("oldstate", &"FIN_WAIT2"),
        ("newstate", &"TIME_WAIT"),
        ("source", &source),
    ]);
    let line = time_wait(&trace);
    line.shows(&[
        ("conn", conn),
        ("state", &"TIME_WAIT"),
        ("bucket_end", &NULL),
    ]);
    assert_eq!(line["fin_wait2_ns"], synthetic[0]["in_state_ns"]);
}

#[test]
fn fin_wait2_lasts_until_the_peer_closes_too() {
    let lab = Lab::new();
    let port = lab.port();
    let mut tracer = lab.trace();
    let listener = listen(port);
    let client = connect(port);
    let server = accept(&listener).stream;
    let closed_ns = now_ns();
    drop(client);
    sleep(Duration::from_millis(500));
    drop(server);
    let waited_ns = now_ns() - closed_ns;
    tracer.wait_for_ends(2);
    if will_see_buckets(&mut tracer) {
        tracer.wait_for(1, "TIME_WAIT", |line| {
            line.is("transition") && line["newstate"] == "TIME_WAIT"
        });
    }
    let trace = tracer.stop();

    trace.client().shows(&[("bucket", &"FIN_WAIT2")]);
    let line = time_wait(&trace);
    if sees_buckets(&trace) {
        line.shows(&[("state", &"TIME_WAIT"), ("source", &"timewait_sock")]);
        about(line.num("fin_wait2_ns"), waited_ns);
    } else {
        assert_ne!(line["source"], "timewait_sock");
    }
}

#[test]
fn fin_wait2_expires_when_the_peer_never_closes() {
    let lab = Lab::new();
    let port = lab.port();
    sysctl("tcp_fin_timeout", "2");
    let mut tracer = lab.trace();
    let listener = listen(port);
    let client = connect(port);
    let server = accept(&listener).stream;
    drop(client);
    tracer.wait_for_ends(1);
    if will_see_buckets(&mut tracer) {
        tracer.wait_for(1, "the end of FIN_WAIT2", |line| line.is("time_wait"));
    }
    let trace = tracer.stop();
    drop(server);

    let line = time_wait(&trace);
    line.shows(&[("state", &"FIN_WAIT2"), ("time_wait_ns", &NULL)]);
    if sees_buckets(&trace) {
        line.shows(&[("bucket_end", &"expired")]);
        // A timer never fires early. Its delay depends on the machine.
        let ns = line.num("fin_wait2_ns");
        assert!((1_900_000_000..6_000_000_000).contains(&ns), "{line}");
    }
}

#[test]
fn data_for_a_closed_socket_resets_its_bucket() {
    let lab = Lab::new();
    let port = lab.port();
    let mut tracer = lab.trace();
    let listener = listen(port);
    let client = connect(port);
    let mut server = accept(&listener).stream;
    drop(client);
    receive_end(&mut server);
    tracer.wait_for_ends(1);
    send_text(&mut server);
    if will_see_buckets(&mut tracer) {
        tracer.wait_for(1, "the end of FIN_WAIT2", |line| line.is("time_wait"));
    }
    let trace = tracer.stop();

    if sees_buckets(&trace) {
        time_wait(&trace).shows(&[("state", &"FIN_WAIT2"), ("bucket_end", &"reset")]);
    }
}

#[test]
fn a_syn_reuses_time_wait() {
    let lab = Lab::new();
    let (port, from) = (lab.port(), lab.port());
    let mut tracer = lab.trace();
    let listener = listen(port);
    let client = connect_from(from, port);
    // The server closes first, so TIME_WAIT is on its side.
    close(accept(&listener).stream, client);
    tracer.wait_for_ends(2);
    // Timestamps distinguish a new connection from an old segment, in milliseconds.
    sleep(Duration::from_millis(100));
    let client = connect_from(from, port);
    if will_see_buckets(&mut tracer) {
        tracer.wait_for(1, "the end of TIME_WAIT", |line| line.is("time_wait"));
    }
    let trace = tracer.stop();
    drop(client);

    if sees_buckets(&trace) {
        let ended: Vec<_> = trace.own("time_wait").collect();
        ended[0].shows(&[
            ("conn", &trace.connections("server")[0]["conn"]),
            ("lport", &port),
            ("state", &"TIME_WAIT"),
            ("bucket_end", &"reused"),
        ]);
        assert!(ended[0].num("time_wait_ns") >= 90_000_000);
    }
}

#[test]
fn a_connect_reuses_time_wait() {
    let lab = Lab::new();
    let (port, from) = (lab.port(), lab.port());
    sysctl("tcp_tw_reuse", "1");
    let mut tracer = lab.trace();
    let listener = listen(port);
    let client = connect_from(from, port);
    close(client, accept(&listener).stream);
    tracer.wait_for_ends(2);
    // The kernel requires the last timestamp to be at least a second old.
    sleep(Duration::from_millis(2100));
    let client = connect_from(from, port);
    if will_see_buckets(&mut tracer) {
        tracer.wait_for(1, "the end of TIME_WAIT", |line| line.is("time_wait"));
    }
    let trace = tracer.stop();
    drop(client);

    if sees_buckets(&trace) {
        let ended: Vec<_> = trace.own("time_wait").collect();
        ended[0].shows(&[
            ("conn", &trace.connections("client")[0]["conn"]),
            ("lport", &from),
            ("state", &"TIME_WAIT"),
            ("bucket_end", &"reused"),
        ]);
        assert!(ended[0].num("time_wait_ns") >= 1_900_000_000);
    }
}
