//! Half-open connections, from the SYN to the final ACK or to their end.

mod full_queue;

use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tests::task::now_ns;
use tests::trace::NULL;
use tests::traffic::*;
use tests::{Lab, Line, Trace};

/// Whether the trace has a hook for request sockets, which are half-open connections.
fn sees_requests(trace: &Trace) -> bool {
    !trace.session()["hooks"]["request_sock"].is_null()
}

fn sees_overflows(trace: &Trace) -> bool {
    !trace.session()["hooks"]["listen_overflow"].is_null()
}

fn sysctl(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value).expect("a sysctl");
}

/// Returns the steps LISTEN→NEW_SYN_RECV and NEW_SYN_RECV→CLOSE.
fn half_open_steps(trace: &Trace) -> Vec<&Line> {
    trace
        .own("transition")
        .filter(|line| line.is_synthetic() && line["source"] == "request_sock")
        .collect()
}

/// Starts a nonblocking connect().
fn begin_to_connect(addr: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).expect("a socket");
    socket.set_nonblocking(true).expect("O_NONBLOCK");
    // Returns EINPROGRESS.
    let _ = socket.connect(&addr.into());
    socket
}

fn port_of_socket(socket: &Socket) -> u16 {
    let addr = socket.local_addr().expect("an address");
    addr.as_socket().expect("an IP address").port()
}

/// Creates a listener with TCP_DEFER_ACCEPT.
fn listen_deferred(port: u16) -> TcpListener {
    let listener = listen(port);
    let seconds: libc::c_int = 30;
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
    listener
}

#[test]
fn a_servers_handshake_begins_at_the_syn() {
    const CLIENTS: usize = 4;
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen(port);
    let mut spans = Vec::new();
    for _ in 0..CLIENTS {
        let before = now_ns();
        let client = connect(port);
        spans.push((port_of(&client), before, now_ns()));
        close(client, accept(&listener).stream);
    }
    tracer.wait_for_ends(2 * CLIENTS);
    let trace = tracer.stop();

    let exact = sees_requests(&trace);
    let source = if exact { "request_sock" } else { "srtt" };
    let mut known = 0;
    for (client, before, after) in spans {
        let server = trace.server_of(client);
        let Some(syn) = server.maybe("syn_mono_ns") else {
            continue;
        };
        known += 1;
        server.shows(&[
            ("syn_source", &source),
            ("synack_retransmits", &0),
            ("complete", &true),
        ]);
        assert!(before <= syn && syn <= after, "{server}");
        assert!(syn < server.num("established_mono_ns"), "{server}");
        assert!(
            server.num("half_open_ns") <= server.num("handshake_ns"),
            "{server}"
        );
    }
    // Without the hook, tcptrace estimates the SYN's time from the round-trip time (`srtt`), except
    // in two cases. One round-trip time in a thousand looks like one by TCP timestamps. A
    // connection whose final ACK was interrupted looks like one by Fast Open.
    assert!(known == CLIENTS || !exact && known > 0, "{known} of them");
}

#[test]
fn a_request_socket_and_its_child_socket_have_one_connection_number() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let client_port = talk(port);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    let steps = half_open_steps(&trace);
    if !sees_requests(&trace) {
        assert!(steps.is_empty(), "{steps:?}");
        return;
    }
    let server = trace.server_of(client_port);
    let [begin] = steps[..] else {
        panic!("{steps:?}");
    };
    begin.shows(&[
        ("conn", &server["conn"]),
        ("side", &"server"),
        ("oldstate", &"LISTEN"),
        ("newstate", &"NEW_SYN_RECV"),
        ("lport", &port),
        ("rport", &client_port),
        ("mono_ns", &server.num("syn_mono_ns")),
        ("pid_source", &"presumed"),
        ("context", &"softirq"),
    ]);
    server.shows(&[
        ("syncookie", &false),
        ("defer_accept", &false),
        ("syn_queue_ahead", &0),
    ]);
    assert_eq!(
        trace.path(&server["conn"]),
        "LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE"
    );
}

#[test]
fn half_open_connections_are_seen_over_ipv6_and_dual_stack() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen_at(SocketAddr::new("::".parse().unwrap(), port), 16);
    let mut ports = Vec::new();
    for addr in ["::1", "127.0.0.1"] {
        let client = connect_to(SocketAddr::new(addr.parse().unwrap(), port));
        ports.push((port_of(&client), addr));
        close(client, accept(&listener).stream);
    }
    tracer.wait_for_ends(4);
    let trace = tracer.stop();
    if !sees_requests(&trace) {
        return;
    }
    for (client_port, addr) in ports {
        let server = trace.server_of(client_port);
        server.shows(&[("syn_source", &"request_sock"), ("raddr", &addr)]);
        let begins = half_open_steps(&trace);
        let begins: Vec<_> = begins
            .iter()
            .filter(|line| line["conn"] == server["conn"])
            .collect();
        assert_eq!(begins.len(), 1);
        begins[0].shows(&[("raddr", &addr), ("rport", &client_port)]);
    }
}

#[test]
fn deferred_accept_keeps_a_connection_half_open_until_there_is_data() {
    const WAIT: Duration = Duration::from_millis(300);
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen_deferred(port);
    let mut client = connect(port);
    let client_port = port_of(&client);
    std::thread::sleep(WAIT);
    let before = now_ns();
    send_text(&mut client);
    let mut server = accept(&listener).stream;
    receive_text(&mut server);
    close(client, server);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    let server = trace.server_of(client_port);
    assert!(server.num("established_mono_ns") >= before, "{server}");
    if sees_requests(&trace) {
        server.shows(&[("defer_accept", &true), ("syn_source", &"request_sock")]);
        assert!(
            server.num("half_open_ns") >= WAIT.as_nanos() as u64,
            "{server}"
        );
    } else if let Some(handshake) = server.maybe("handshake_ns") {
        server.shows(&[("syn_source", &"srtt")]);
        assert!(handshake >= WAIT.as_nanos() as u64 * 95 / 100, "{server}");
    }
}

#[test]
fn a_syn_cookie_leaves_no_half_open_connection() {
    let lab = Lab::new();
    sysctl("tcp_syncookies", "2");
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen(port);
    for _ in 0..8 {
        let client = connect(port);
        close(client, accept(&listener).stream);
    }
    tracer.wait_for_ends(16);
    let trace = tracer.stop();

    let servers = trace.connections("server");
    assert_eq!(servers.len(), 8);
    let cookie = if sees_requests(&trace) {
        true.into()
    } else {
        NULL
    };
    for server in servers {
        server.shows(&[
            ("syncookie", &cookie),
            ("syn_mono_ns", &NULL),
            ("syn_source", &NULL),
            ("handshake_ns", &NULL),
            ("complete", &true),
        ]);
    }
    assert!(half_open_steps(&trace).is_empty());
}

/// The client dies while the server waits for its data.
#[test]
fn a_half_open_connection_that_is_reset_is_unfinished() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen_deferred(port);
    let client = connect(port);
    let client_port = port_of(&client);
    std::thread::sleep(Duration::from_millis(20));
    reset(client);
    tracer.wait_for_ends(1);
    std::thread::sleep(Duration::from_millis(50));
    drop(listener);
    let trace = tracer.stop();
    if !sees_requests(&trace) {
        assert!(trace.connections("server").is_empty());
        return;
    }
    let server = trace.server_of(client_port);
    // Without a hook for overflows, a RST that the kernel sends because of a full queue looks the
    // same.
    let end = match sees_overflows(&trace) {
        true => "reset".into(),
        false => NULL,
    };
    server.shows(&[
        ("verdict", &"unfinished"),
        ("half_open_end", &end),
        ("state", &"CLOSE"),
        ("defer_accept", &true),
        ("complete", &true),
    ]);
    trace
        .listener_summary(port)
        .shows(&[("half_open_failed", &1), ("connections", &0)]);
}
