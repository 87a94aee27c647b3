//! The verdicts: the client waited for accept(), or accept() waited for the client.

use std::thread::sleep;
use std::time::Duration;

use tests::Lab;
use tests::fast_open;
use tests::task::{join, now_ns, pid, spawn, tid, wait_until_in_accept};
use tests::trace::NULL;
use tests::traffic::*;

const A_WHILE: Duration = Duration::from_millis(400);

#[test]
fn accept_queue_wait_is_reported_for_a_late_accept() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();

    let listener = listen(port);
    let connecting_ns = now_ns();
    let mut client = connect_queued(port);
    let connected_ns = now_ns();
    send_text(&mut client);
    sleep(A_WHILE);
    let mut accepted = accept(&listener);
    receive_text(&mut accepted.stream);
    // accept() opens no new port: the connection has the listener's port.
    assert_eq!(accepted.stream.local_addr().unwrap().port(), port);
    assert_eq!(accepted.peer, client.local_addr().unwrap());
    let client_port = port_of(&client);
    close(client, accepted.stream);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    let connection = trace.server();
    connection.shows(&[
        ("verdict", &"queued"),
        ("laddr", &"127.0.0.1"),
        ("lport", &port),
        ("raddr", &"127.0.0.1"),
        ("rport", &client_port),
        ("pid", &pid()),
        ("tid", &tid()),
        ("pid_source", &"accept"),
        ("backlog_ahead", &0),
        ("state", &"CLOSE"),
        ("error", &NULL),
        ("complete", &true),
    ]);
    // The wait lies between the times that the test measured around connect() and accept().
    let least = accepted.called_ns - connected_ns;
    let most = accepted.returned_ns - connecting_ns;
    let waited = connection.num("accept_queue_ns");
    assert!(
        (least..=most).contains(&waited),
        "waited {waited} ns, the test {least} to {most} ns"
    );
    let called = connection.num("accept_called_mono_ns");
    assert!(connection.num("established_mono_ns") < called);
    assert!((accepted.called_ns..=accepted.returned_ns).contains(&called));

    let accept = trace.accept();
    accept.shows(&[
        ("conn", &connection["conn"]),
        ("listener", &trace.listen()["conn"]),
        ("lport", &port),
        ("rport", &client_port),
        ("side", &"server"),
        ("tid", &tid()),
        ("called_mono_ns", &called),
        ("accept_queue_ns", &waited),
        ("backlog_len", &0),
        ("backlog_max", &512),
    ]);
    trace.listen().shows(&[
        ("side", &"listener"),
        ("pid", &pid()),
        ("tid", &tid()),
        ("pid_source", &"listen"),
        ("context", &"process"),
    ]);
}

#[test]
fn blocked_time_is_reported_for_an_early_accept() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();

    let listener = listen(port);
    let (acceptor, accepting) = spawn(move || accept(&listener));
    wait_until_in_accept(acceptor);
    sleep(A_WHILE);
    let client = connect(port);
    close(client, join(accepting).stream);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    let connection = trace.server();
    connection.shows(&[("verdict", &"awaited"), ("tid", &acceptor)]);
    let established = connection.num("established_mono_ns");
    assert!(connection.num("accept_called_mono_ns") < established);
    let blocked = trace.accept().num("blocked_ns");
    assert!(blocked >= A_WHILE.as_nanos() as u64, "blocked {blocked} ns");
}

#[test]
fn a_connection_never_accepted_names_the_presumed_acceptor() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();

    let _listener = listen(port);
    let mut client = connect(port);
    send_text(&mut client);
    tracer.wait_for(2, "both ends to be ESTABLISHED", |line| {
        line.is("transition") && line["newstate"] == "ESTABLISHED"
    });
    let trace = tracer.stop();

    trace.server().shows(&[
        ("verdict", &"never_accepted"),
        ("state", &"ESTABLISHED"),
        ("accepted_mono_ns", &NULL),
        ("closed_mono_ns", &NULL),
        ("accept_queue_ns", &NULL),
        ("pid", &pid()),
        ("pid_source", &"presumed"),
    ]);
    trace.client().shows(&[
        ("verdict", &NULL),
        ("state", &"ESTABLISHED"),
        ("pid", &pid()),
        ("tid", &tid()),
        ("pid_source", &"connect"),
    ]);
    trace.listener_summary(port).shows(&[
        ("conn", &trace.listen()["conn"]),
        ("connections", &1),
        ("accepted", &0),
        ("never_accepted", &1),
        ("accept_queue_max_ns", &NULL),
    ]);
}

#[test]
fn each_connection_reports_how_many_were_queued_ahead() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();

    let listener = listen_at((LOOPBACK, port).into(), 8);
    let connect_and_queue = |nth| {
        let client = connect(port);
        wait_until_in_queue(&listener, nth);
        client
    };
    let clients: Vec<_> = (1..=5).map(connect_and_queue).collect();
    for client in clients {
        close(client, accept(&listener).stream);
    }
    tracer.wait_for_ends(10);
    let trace = tracer.stop();

    // The queue is first in, first out.
    let mut servers = trace.connections("server");
    servers.sort_by_key(|line| line.num("accepted_mono_ns"));
    for (ahead, line) in servers.iter().enumerate() {
        line.shows(&[("backlog_ahead", &ahead), ("backlog_max", &8)]);
    }
    let left: Vec<u64> = trace
        .accepts()
        .iter()
        .map(|line| line.num("backlog_len"))
        .collect();
    assert_eq!(left, [4, 3, 2, 1, 0]);
}

#[test]
fn fast_open_accept_returns_before_the_handshake_is_finished() {
    let lab = Lab::new();
    fast_open::allow();
    let port = lab.port();
    let tracer = lab.trace();

    let listener = fast_open::listen(port);
    // The client drops the SYN-ACK, so its final ACK has to wait.
    let client = fast_open::Client::without_syn_ack();
    client.send_syn(port);
    let mut accepted = accept(&listener);
    receive_text(&mut accepted.stream);
    client.stop_dropping();
    tracer.wait_for(2, "both ends to be ESTABLISHED", |line| {
        line.is("transition") && line["newstate"] == "ESTABLISHED"
    });
    let trace = tracer.stop();

    let connection = trace.server();
    connection.shows(&[("verdict", &"fast_open"), ("accept_queue_ns", &0)]);
    assert!(connection.num("accepted_mono_ns") < connection.num("established_mono_ns"));
    fast_open::shows_birth(&trace, connection);
}
