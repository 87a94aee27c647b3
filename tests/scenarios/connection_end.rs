//! The `ended` of the `connection` line: how a connection ended.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use tests::netns::set_loopback;
use tests::trace::NULL;
use tests::traffic::*;
use tests::{Lab, Line, Trace};

fn socket() -> Socket {
    Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()
}

fn at(port: u16) -> socket2::SockAddr {
    SocketAddr::from((LOOPBACK, port)).into()
}

/// Creates a listener whose accept queue is full, so that the kernel drops every further SYN.
fn listen_and_fill(port: u16) -> (std::net::TcpListener, TcpStream) {
    let listener = listen_at((LOOPBACK, port).into(), 0);
    (listener, connect(port))
}

fn resets<'a>(trace: &'a Trace, direction: &str) -> Vec<&'a Line> {
    let own = trace.own("reset");
    own.filter(|line| line["direction"] == direction).collect()
}

#[test]
fn simultaneous_close_ends_orderly_with_retransmitted_fins() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen(port);
    let client = connect(port);
    let server = accept(&listener).stream;
    close_at_once(&client, &server);
    tracer.wait_for_ends(2);
    drop((client, server));
    let trace = tracer.stop();

    let sides = [trace.client(), trace.server()];
    let closing = sides.iter().filter(|line| line["closed_first"] == "both");
    assert!(closing.count() >= 1, "{} {}", sides[0], sides[1]);
    for side in sides {
        side.shows(&[
            ("ended", &"orderly"),
            ("bytes_acked", &0),
            ("bytes_received", &0),
        ]);
    }
    // The lost FINs were sent again.
    let again: Vec<&Line> = trace.own("retransmit").collect();
    assert!(!again.is_empty() && again.iter().all(|line| line["retransmitted"] == "FIN"));
}

#[test]
fn close_with_linger_0_resets_the_connection() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen(port);
    let client = connect(port);
    let mut server = accept(&listener).stream;
    reset(client);
    let error = server.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    trace
        .client()
        .shows(&[("ended", &"aborted"), ("closed_first", &NULL)]);
    let server = trace.server();
    server.shows(&[("ended", &"reset_received"), ("closed_first", &NULL)]);
    // One RST, reported at both ends.
    assert_eq!(resets(&trace, "sent").len(), 1);
    let received = resets(&trace, "received");
    assert_eq!(received.len(), 1);
    received[0].shows(&[("conn", &server["conn"]), ("rst_reason", &NULL)]);
}

#[test]
fn connect_to_a_closed_port_is_refused() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    TcpStream::connect((LOOPBACK, port)).unwrap_err();
    tracer.wait_for_ends(1);
    let trace = tracer.stop();

    let client = trace.client();
    client.shows(&[
        ("ended", &"refused"),
        ("closed_first", &NULL),
        ("syn_retransmits", &0),
        ("bytes_acked", &0),
        ("segs_out", &1),
    ]);
    let received = resets(&trace, "received");
    assert_eq!(received.len(), 1);
    received[0].shows(&[
        ("conn", &client["conn"]),
        ("state", &"SYN_SENT"),
        ("lport", &client["lport"]),
    ]);
}

#[test]
fn a_reset_in_the_accept_queue_ends_the_connection() {
    let lab = Lab::new();
    let (reset_port, closed_port) = (lab.port(), lab.port());
    let tracer = lab.trace();
    let listeners = [listen(reset_port), listen(closed_port)];
    reset(connect(reset_port));
    let client = connect(closed_port);
    tracer.wait_for(1, "the reset to arrive", |line| {
        line.is("transition") && line["side"] == "server" && line["newstate"] == "CLOSE"
    });
    drop(listeners);
    tracer.wait_for_ends(4);
    drop(client);
    let trace = tracer.stop();

    for (port, ended) in [
        (reset_port, "reset_in_queue"),
        (closed_port, "closed_in_queue"),
    ] {
        let servers = trace.connections("server");
        let line = servers.iter().find(|line| line["lport"] == port).unwrap();
        line.shows(&[("ended", &ended), ("verdict", &"never_accepted")]);
    }
}

#[test]
fn an_unanswered_connect_times_out_after_repeated_syns() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let (listener, first) = listen_and_fill(port);
    let client = socket();
    let retries: libc::c_int = 1;
    // SAFETY: TCP_SYNCNT takes an int.
    let result = unsafe {
        let retries = (&raw const retries).cast();
        libc::setsockopt(
            client.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_SYNCNT,
            retries,
            4,
        )
    };
    assert_eq!(result, 0, "TCP_SYNCNT");
    let error = client.connect(&at(port)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    tracer.wait_for(1, "the timeout", |line| line.is("connection"));
    let trace = tracer.stop();
    drop((listener, first));

    let line = trace
        .connections("client")
        .into_iter()
        .find(|line| line["ended"] == "timeout")
        .expect("a timeout");
    // The number of repeated SYNs follows from TCP_SYNCNT and, since Linux 6.5,
    // net.ipv4.tcp_syn_linear_timeouts.
    let again: Vec<&Line> = trace.own("retransmit").collect();
    assert!(!again.is_empty());
    line.shows(&[
        ("syn_retransmits", &again.len()),
        ("retransmits", &again.len()),
        ("segs_out", &(1 + again.len())),
        ("segs_in", &0),
        ("srtt_ns", &NULL),
        ("error", &"ETIMEDOUT"),
    ]);
    again[0].shows(&[
        ("conn", &line["conn"]),
        ("retransmitted", &"SYN"),
        ("state", &"SYN_SENT"),
        ("retransmits", &1),
        ("lport", &line["lport"]),
    ]);
}

#[test]
fn an_established_connection_counts_its_repeated_syn() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let (listener, first) = listen_and_fill(port);
    let client = socket();
    client.set_nonblocking(true).unwrap();
    let error = client.connect(&at(port)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS));
    tracer.wait_for(1, "the SYN to be sent again", |line| line.is("retransmit"));
    // Makes room in the accept queue, so that the kernel answers the next SYN.
    let second_and_first = [accept(&listener).stream, first];
    let second = accept(&listener);
    client.set_nonblocking(false).unwrap();
    let client = TcpStream::from(client);
    let client_port = port_of(&client);
    assert_eq!(second.peer.port(), client_port);
    close(client, second.stream);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();
    drop(second_and_first);

    let line = trace
        .connections("client")
        .into_iter()
        .find(|line| line["lport"] == client_port)
        .expect("the client");
    line.shows(&[("ended", &"orderly")]);
    let again = line.num("syn_retransmits");
    assert!(again >= 1, "{line}");
    assert_eq!(line.num("retransmits"), again, "{line}");
    assert!(line.num("handshake_ns") > 500_000_000, "{line}");
}

#[test]
fn close_in_syn_sent_abandons_the_connection() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let (listener, first) = listen_and_fill(port);
    let client = socket();
    client.set_nonblocking(true).unwrap();
    client.connect(&at(port)).unwrap_err();
    drop(client);
    tracer.wait_for_ends(1);
    let trace = tracer.stop();
    drop((listener, first));

    let ended: Vec<&Line> = trace
        .connections("client")
        .into_iter()
        .filter(|line| line["ended"] == "given_up")
        .collect();
    assert_eq!(ended.len(), 1);
    ended[0].shows(&[("error", &NULL), ("established_mono_ns", &NULL)]);
    assert!(ended[0]["lport"].is_u64(), "{}", ended[0]);
}

#[test]
fn unacknowledged_data_times_the_connection_out() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen(port);
    let mut client = connect(port);
    let server = accept(&listener).stream;
    SockRef::from(&client)
        .set_tcp_user_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    set_loopback(false);
    send_text(&mut client);
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    tracer.wait_for_ends(1);
    let trace = tracer.stop();
    drop(server);

    let line = trace.client();
    line.shows(&[
        ("ended", &"timeout"),
        ("closed_first", &NULL),
        ("bytes_acked", &0),
        ("syn_retransmits", &0),
        ("error", &"ETIMEDOUT"),
    ]);
    assert!(line.num("retransmits") >= 1, "{line}");
}
