//! Causes of the end of a connection, the segments sent for it, and its duration.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::thread::sleep;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use tests::peer::Segment;
use tests::trace::NULL;
use tests::traffic::*;
use tests::{Lab, Line, Peer, Trace, Tracer, fast_open};

/// include/uapi/linux/tcp.h
const TCP_LINGER2: libc::c_int = 8;
const TCP_REPAIR: libc::c_int = 19;
const TCP_FASTOPEN_CONNECT: libc::c_int = 30;

fn socket() -> Socket {
    Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()
}

fn at(port: u16) -> socket2::SockAddr {
    SocketAddr::from((LOOPBACK, port)).into()
}

/// Creates a client that stays in SYN_SENT because the server's queue is full.
fn connecting(port: u16) -> (std::net::TcpListener, TcpStream, Socket) {
    let listener = listen_at((LOOPBACK, port).into(), 0);
    let first = connect(port);
    let client = socket();
    client.set_nonblocking(true).unwrap();
    client.connect(&at(port)).unwrap_err();
    (listener, first, client)
}

/// Calls connect() with AF_UNSPEC.
fn disconnect(socket: &impl AsRawFd) {
    // SAFETY: an address of zeros has the family AF_UNSPEC.
    let result = unsafe {
        let unspecified: libc::sockaddr = std::mem::zeroed();
        libc::connect(socket.as_raw_fd(), &raw const unspecified, 16)
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// Destroys a socket like `ss -K`, in another process. Returns the pid of that process. `rport` is
/// 0 for a listener.
fn kill(lport: u16, rport: u16) -> u32 {
    const NETLINK_SOCK_DIAG: libc::c_int = 4;
    const SOCK_DESTROY: u16 = 21;
    const NLM_F_REQUEST_ACK: u16 = 0x1 | 0x4;
    let raddr = match rport {
        0 => [0; 4],
        _ => Ipv4Addr::LOCALHOST.octets(),
    };
    let mut request = Vec::new();
    // struct nlmsghdr
    request.extend(72_u32.to_ne_bytes());
    request.extend(SOCK_DESTROY.to_ne_bytes());
    request.extend(NLM_F_REQUEST_ACK.to_ne_bytes());
    request.extend([0; 8]);
    // struct inet_diag_req_v2: family, protocol, states; then its struct inet_diag_sockid.
    request.extend([libc::AF_INET as u8, libc::IPPROTO_TCP as u8, 0, 0]);
    request.extend(u32::MAX.to_ne_bytes());
    request.extend(lport.to_be_bytes());
    request.extend(rport.to_be_bytes());
    request.extend(Ipv4Addr::LOCALHOST.octets());
    request.extend([0; 12]);
    request.extend(raddr);
    request.extend([0; 12]);
    request.extend(0_u32.to_ne_bytes());
    // INET_DIAG_NOCOOKIE
    request.extend([0xff; 8]);
    assert_eq!(request.len(), 72);
    let mut reply = [0_u8; 64];
    // SAFETY: between fork() and _exit() the child makes only system calls.
    let (child, status) = unsafe {
        let child = libc::fork();
        if child == 0 {
            let netlink = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, NETLINK_SOCK_DIAG);
            libc::send(netlink, request.as_ptr().cast(), request.len(), 0);
            libc::recv(netlink, reply.as_mut_ptr().cast(), reply.len(), 0);
            // A struct nlmsgerr follows the header: 0 or a negated errno.
            libc::_exit(-i32::from_ne_bytes([
                reply[16], reply[17], reply[18], reply[19],
            ]));
        }
        let mut status = 0;
        libc::waitpid(child, &raw mut status, 0);
        (child, status)
    };
    let errno = libc::WEXITSTATUS(status);
    let error = std::io::Error::from_raw_os_error(errno);
    assert_eq!(errno, 0, "SOCK_DESTROY: {error}");
    child as u32
}

/// Returns the last state change of a connection.
#[track_caller]
fn last(trace: &Trace, connection: &Line) -> Line {
    let transitions = trace.transitions(&connection["conn"]);
    let printed = transitions.iter().rev().find(|it| !it.is_synthetic());
    (*printed.expect("a change of state")).clone()
}

fn resets<'a>(trace: &'a Trace, direction: &str) -> Vec<&'a Line> {
    let own = trace.own("reset");
    own.filter(|line| line["direction"] == direction).collect()
}

fn ended_client<'a>(trace: &'a Trace, ended: &str) -> &'a Line {
    let clients = trace.connections("client");
    let found = clients.into_iter().find(|line| line["ended"] == ended);
    found.unwrap_or_else(|| panic!("no client is {ended}"))
}

fn until_closed(tracer: &Tracer, side: &str) {
    tracer.wait_for(1, "CLOSE", |line| {
        line.is("transition") && line["side"] == side && line["newstate"] == "CLOSE"
    });
}

#[test]
fn close_while_connecting_sends_nothing() {
    let lab = Lab::new();
    let tracer = lab.trace();
    let (listener, first, client) = connecting(lab.port());
    drop(client);
    tracer.wait_for_ends(1);
    let trace = tracer.stop();
    drop((listener, first));

    let client = ended_client(&trace, "given_up");
    client.shows(&[("closed_first", &NULL), ("fin_sent", &false)]);
    last(&trace, client).is_caused_by("close", "__tcp_close");
    assert!(resets(&trace, "sent").is_empty());
}

/// shutdown() of a connecting socket disconnects it (`inet_shutdown`).
#[test]
fn shutdown_while_connecting_disconnects() {
    let lab = Lab::new();
    let tracer = lab.trace();
    let (listener, first, client) = connecting(lab.port());
    client.shutdown(std::net::Shutdown::Both).unwrap();
    tracer.wait_for_ends(1);
    let trace = tracer.stop();
    drop((listener, first, client));

    let client = ended_client(&trace, "disconnected");
    last(&trace, client).is_caused_by("disconnect", "tcp_disconnect");
}

#[test]
fn a_connection_in_repair_mode_has_no_segments() {
    let lab = Lab::new();
    let (server_port, own_port) = (lab.port(), lab.port());
    let tracer = lab.trace();
    let client = socket();
    set_option(&client, libc::IPPROTO_TCP, TCP_REPAIR, &1_i32);
    client.bind(&at(own_port)).unwrap();
    client.connect(&at(server_port)).unwrap();
    drop(client);
    tracer.wait_for_ends(1);
    let trace = tracer.stop();

    let client = trace.client();
    client.shows(&[
        ("ended", &"repair"),
        ("segs_out", &0),
        ("segs_in", &0),
        ("syn_mono_ns", &NULL),
        ("handshake_ns", &NULL),
        ("fin_sent", &false),
    ]);
    let transitions = trace.transitions(&client["conn"]);
    let causes: Vec<_> = transitions.iter().map(|it| &it["cause"]).collect();
    assert_eq!(causes, ["repair", "repair", "repair"]);
    assert!(resets(&trace, "sent").is_empty());
}

#[test]
fn connect_to_af_unspec_resets_and_keeps_the_socket() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen(port);
    let client = socket();
    client.connect(&at(port)).unwrap();
    let mut server = accept(&listener).stream;
    disconnect(&client);
    let error = server.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    // The same socket connects again.
    client.connect(&at(port)).unwrap();
    let again = accept(&listener).stream;
    close(TcpStream::from(client), again);
    tracer.wait_for_ends(4);
    let trace = tracer.stop();

    let client = ended_client(&trace, "disconnected");
    last(&trace, client).is_caused_by("disconnect", "tcp_disconnect");
    let sent = resets(&trace, "sent");
    assert_eq!(sent.len(), 1);
    sent[0].shows(&[("conn", &client["conn"])]);
    let again = ended_client(&trace, "orderly");
    assert_ne!(again["conn"], client["conn"]);
}

/// Both directions of two connections are shut down, as when a process is about to close. Then
/// connect() with AF_UNSPEC ends one connection, and close() with SO_LINGER 0 the other.
#[test]
fn disconnect_and_abort_are_distinguished_after_shutdown() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen(port);
    let mut servers = vec![];
    for by_connect in [true, false] {
        let client = connect(port);
        servers.push(accept(&listener).stream);
        client.shutdown(std::net::Shutdown::Both).unwrap();
        tracer.wait_for(servers.len(), "FIN_WAIT2", |line| {
            line.is("transition") && line["newstate"] == "FIN_WAIT2"
        });
        match by_connect {
            true => disconnect(&client),
            false => reset(client),
        }
    }
    tracer.wait_for_ends(4);
    let trace = tracer.stop();

    let client = ended_client(&trace, "disconnected");
    last(&trace, client).is_caused_by("disconnect", "tcp_disconnect");
    let client = ended_client(&trace, "aborted");
    last(&trace, client).is_caused_by("abort", "__tcp_close");
}

#[test]
fn connect_without_a_free_port_sends_nothing() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen(port);
    std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "41000 41000").unwrap();
    let first = connect(port);
    let second = socket();
    let error = second.connect(&at(port)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL));
    close(first, accept(&listener).stream);
    tracer.wait_for_ends(3);
    let trace = tracer.stop();

    let client = ended_client(&trace, "no_free_port");
    client.shows(&[
        ("segs_out", &0),
        ("syn_mono_ns", &NULL),
        ("closed_first", &NULL),
    ]);
    let failed = last(&trace, client);
    failed.is_caused_by("connect_failed", "tcp_v4_connect");
}

#[test]
fn the_killer_of_a_connection_is_reported() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen(port);
    let client = connect(port);
    let mut server = accept(&listener).stream;
    let killer = kill(port_of(&client), port);
    server.read(&mut [0]).unwrap_err();
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    let killed = trace.client();
    killed.shows(&[
        ("ended", &"killed"),
        ("error", &"ECONNABORTED"),
        ("pid", &std::process::id()),
    ]);
    let last = last(&trace, killed);
    last.is_caused_by("killed", "tcp_abort");
    last.shows(&[("pid", &killer)]);
    trace.server().shows(&[("ended", &"reset_received")]);
    let sent = resets(&trace, "sent");
    assert_eq!(sent.len(), 1);
    sent[0].shows(&[("conn", &killed["conn"])]);
}

#[test]
fn the_killer_of_a_connecting_client_is_reported() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let (listener, first, client) = connecting(port);
    let own = client.local_addr().unwrap().as_socket().unwrap();
    let killer = kill(own.port(), port);
    tracer.wait_for_ends(1);
    let trace = tracer.stop();
    drop((listener, first, client));

    let client = ended_client(&trace, "killed");
    last(&trace, client).shows(&[("cause", &"killed"), ("pid", &killer)]);
    assert!(resets(&trace, "sent").is_empty());
}

/// tcp_abort() of a listener calls tcp_done() when the state is CLOSE already.
#[test]
fn a_killed_listener_is_no_connection() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen(port);
    let killer = kill(port, 0);
    until_closed(&tracer, "listener");
    let trace = tracer.stop();
    drop(listener);

    assert_eq!(trace.own("connection").count(), 0);
    let listeners = trace.summary()["listeners"].as_array().unwrap().clone();
    let mine = listeners.iter().filter(|it| it["lport"] == port);
    assert_eq!(mine.count(), 1);
    let closed = trace.own("transition").last().unwrap();
    closed.is_caused_by("killed", "tcp_abort");
    closed.shows(&[("pid", &killer)]);
}

#[test]
fn shutdown_of_a_listener_has_the_cause_disconnect() {
    let lab = Lab::new();
    let tracer = lab.trace();
    let listener = listen(lab.port());
    let shut = SockRef::from(&listener).shutdown(std::net::Shutdown::Both);
    shut.unwrap();
    until_closed(&tracer, "listener");
    let trace = tracer.stop();

    let closed = trace.own("transition").last().unwrap();
    closed.is_caused_by("disconnect", "tcp_disconnect");
}

/// Covers both paths: close() in FIN_WAIT2, and the ACK of the FIN after close().
#[test]
fn with_tcp_linger2_below_0_a_rst_comes_instead_of_a_bucket() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen(port);
    let mut servers = vec![];
    for shut_down_first in [true, false] {
        let client = connect(port);
        servers.push(accept(&listener).stream);
        set_option(&client, libc::IPPROTO_TCP, TCP_LINGER2, &-1_i32);
        if shut_down_first {
            close_half(&client);
            tracer.wait_for(1, "FIN_WAIT2", |line| {
                line.is("transition") && line["newstate"] == "FIN_WAIT2"
            });
        }
        drop(client);
    }
    tracer.wait_for_ends(4);
    let trace = tracer.stop();

    for client in trace.connections("client") {
        client.shows(&[
            ("ended", &"aborted"),
            ("bucket", &NULL),
            ("closed_first", &"local"),
            ("fin_sent", &true),
        ]);
        let sent = resets(&trace, "sent");
        let mine = sent.iter().filter(|it| it["conn"] == client["conn"]);
        assert_eq!(mine.count(), 1, "{client}");
    }
    assert_eq!(trace.own("time_wait").count(), 0);
    for server in trace.connections("server") {
        server.shows(&[("ended", &"reset_received")]);
    }
}

#[test]
fn fast_open_connect_sends_its_syn_with_the_first_data() {
    let lab = Lab::new();
    fast_open::allow();
    let port = lab.port();
    let tracer = lab.trace();
    let listener = fast_open::listen(port);
    let clients = [(); 2].map(|()| {
        let client = socket();
        set_option(&client, libc::IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &1_i32);
        client.connect(&at(port)).unwrap();
        client
    });
    sleep(Duration::from_millis(600));
    let [mut talks, silent] = clients;
    talks.write_all(TEXT).unwrap();
    let mut server = accept(&listener).stream;
    receive_text(&mut server);
    drop(silent);
    tracer.wait_for_ends(1);
    close(TcpStream::from(talks), server);
    tracer.wait_for_ends(3);
    let trace = tracer.stop();

    let talked = ended_client(&trace, "orderly");
    talked.shows(&[("syn_source", &"srtt")]);
    assert!(talked.num("handshake_ns") < 400_000_000, "{talked}");
    let silent = ended_client(&trace, "given_up");
    silent.shows(&[
        ("syn_mono_ns", &NULL),
        ("syn_source", &NULL),
        ("segs_out", &0),
    ]);
}

/// The peer's window is full, so the data and the FIN behind it wait.
#[test]
fn data_for_a_closed_socket_with_an_unsent_fin_is_answered_with_a_rst() {
    let lab = Lab::new();
    let peer = Peer::new(&lab);
    let (own, port) = (lab.port(), lab.port());
    let tracer = lab.trace();
    let listener = listen_at((Ipv4Addr::UNSPECIFIED, port).into(), 4);
    let mut talk = peer.connect(own, port);
    let mut server = accept(&listener).stream;
    talk.window = 0;
    talk.ack();
    server.write_all(TEXT).unwrap();
    drop(server);
    tracer.wait_for(1, "FIN_WAIT1", |line| {
        line.is("transition") && line["newstate"] == "FIN_WAIT1"
    });
    talk.data(TEXT);
    talk.receive_rst();
    tracer.wait_for_ends(1);
    let trace = tracer.stop();

    let server = trace.server();
    server.shows(&[
        ("ended", &"reset_sent"),
        ("closed_first", &NULL),
        ("fin_sent", &false),
        ("bucket", &NULL),
    ]);
    last(&trace, server).is_caused_by("data_received", "tcp_reset");
    let sent = resets(&trace, "sent");
    assert_eq!(sent.len(), 1);
    sent[0].shows(&[("conn", &server["conn"])]);
    assert!(resets(&trace, "received").is_empty());
}

#[test]
fn data_and_rst_after_close_have_different_causes() {
    let lab = Lab::new();
    let peer = Peer::new(&lab);
    let (data_port, rst_port, port) = (lab.port(), lab.port(), lab.port());
    let tracer = lab.trace();
    let listener = listen_at((Ipv4Addr::UNSPECIFIED, port).into(), 4);
    let mut talks = [data_port, rst_port].map(|own| {
        let talk = peer.connect(own, port);
        drop(accept(&listener).stream);
        talk
    });
    let [with_data, with_rst] = &mut talks;
    // Neither segment acknowledges the FIN.
    let not_yet = with_data.segment();
    with_data.receive_fin();
    with_data.send(Segment {
        data: TEXT.to_vec(),
        ..not_yet
    });
    with_data.receive_rst();
    let not_yet = with_rst.segment();
    with_rst.receive_fin();
    with_rst.send(Segment {
        rst: true,
        ..not_yet
    });
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    for (own, ended, cause, direction) in [
        (data_port, "reset_sent", "data_received", "sent"),
        (rst_port, "reset_received", "rst_received", "received"),
    ] {
        let servers = trace.connections("server");
        let server = servers.iter().find(|it| it["rport"] == own).unwrap();
        server.shows(&[
            ("ended", &ended),
            ("closed_first", &"local"),
            ("fin_sent", &true),
        ]);
        last(&trace, server).shows(&[("cause", &cause)]);
        let received: Vec<&Line> = trace
            .own("reset")
            .filter(|it| it["conn"] == server["conn"])
            .collect();
        assert_eq!(received.len(), 1);
        received[0].shows(&[("direction", &direction)]);
    }
}

/// The kernel counts the data of a SYN-ACK, but not its FIN (`tcp_fastopen_add_skb`).
#[test]
fn a_fin_with_the_syn_ack_is_not_counted_as_a_byte() {
    let lab = Lab::new();
    fast_open::allow();
    let peer = Peer::new(&lab);
    let own = lab.port();
    let tracer = lab.trace();
    let mut client = socket();
    set_option(&client, libc::IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &1_i32);
    let addr = SocketAddr::from((Ipv4Addr::new(10, 0, 0, 2), own));
    client.connect(&addr.into()).unwrap();
    // Otherwise sending waits for the SYN-ACK.
    client.set_nonblocking(true).unwrap();
    client.write_all(TEXT).unwrap();
    client.set_nonblocking(false).unwrap();
    let (talk, _) = peer.called(own);
    talk.send(Segment {
        syn: true,
        fin: true,
        data: TEXT.to_vec(),
        ..talk.segment()
    });
    let mut received = [0; TEXT.len()];
    client.read_exact(&mut received).unwrap();
    reset(TcpStream::from(client));
    tracer.wait_for_ends(1);
    let trace = tracer.stop();

    trace.client().shows(&[
        ("bytes_received", &TEXT.len()),
        ("closed_first", &"remote"),
        ("unread_bytes", &0),
    ]);
}

/// The connection stays in the queue, and accept() returns it long after its end.
#[test]
fn open_time_of_a_connection_reset_in_the_queue_ends_at_the_reset() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen(port);
    let client = connect_queued(port);
    sleep(Duration::from_millis(100));
    reset(client);
    until_closed(&tracer, "server");
    sleep(Duration::from_millis(300));
    drop(accept(&listener));
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    let server = trace.server();
    let open_ns = server.num("closed_mono_ns") - server.num("established_mono_ns");
    assert!(open_ns < server.num("accept_queue_ns"), "{server}");
    assert_eq!(server.num("mono_ns"), server.num("accepted_mono_ns"));
}
