//! Clients that do rare things which TCP allows.

use std::net::{SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};
use tests::Lab;
use tests::trace::NULL;
use tests::traffic::*;

fn client() -> Socket {
    Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()
}

fn at(port: u16) -> socket2::SockAddr {
    SocketAddr::from((LOOPBACK, port)).into()
}

#[test]
fn a_client_with_a_bound_port_is_reported() {
    let lab = Lab::new();
    let (own, port) = (lab.port(), lab.port());
    let tracer = lab.trace();
    let listener = listen(port);
    let client = client();
    client.bind(&at(own)).unwrap();
    client.connect(&at(port)).unwrap();
    close(client.into(), accept(&listener).stream);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    let client = trace.client();
    client.shows(&[("lport", &own), ("rport", &port), ("complete", &true)]);
    let first = trace.transitions(&client["conn"])[0];
    first.shows(&[("newstate", &"SYN_SENT"), ("lport", &own)]);
}

#[test]
fn a_socket_that_connects_again_is_two_connections() {
    let lab = Lab::new();
    let (nobody, somebody) = (lab.port(), lab.port());
    let tracer = lab.trace();
    let listener = listen(somebody);
    let socket = client();
    socket.connect(&at(nobody)).unwrap_err();
    socket.connect(&at(somebody)).unwrap();
    close(socket.into(), accept(&listener).stream);
    tracer.wait_for_ends(3);
    let trace = tracer.stop();

    // One socket makes two connections.
    let clients = trace.connections("client");
    assert_eq!(clients.len(), 2);
    clients[0].shows(&[("rport", &nobody), ("error", &"ECONNREFUSED")]);
    clients[1].shows(&[("rport", &somebody), ("error", &NULL), ("complete", &true)]);
    assert_ne!(clients[0]["conn"], clients[1]["conn"]);
}

/// Both ends are one socket, whose SYN meets itself: simultaneous open (RFC 9293, section 3.5).
#[test]
fn a_self_connection_is_reported() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let socket = client();
    socket.bind(&at(port)).unwrap();
    socket.connect(&at(port)).unwrap();
    let mut stream = TcpStream::from(socket);
    send_text(&mut stream);
    receive_text(&mut stream);
    drop(stream);
    tracer.wait_for_ends(1);
    let trace = tracer.stop();

    let client = trace.client();
    client.shows(&[
        ("lport", &port),
        ("rport", &port),
        ("verdict", &NULL),
        ("complete", &true),
    ]);
    let path = trace.path(&client["conn"]);
    assert!(
        path.starts_with("CLOSE SYN_SENT SYN_RECV ESTABLISHED "),
        "{path}"
    );
    assert!(trace.connections("server").is_empty());
    assert!(client["handshake_ns"].is_u64(), "{client}");
}
