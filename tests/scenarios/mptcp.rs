//! Multipath TCP: an MPTCP socket around TCP sockets. Only the TCP sockets are traced.

use std::net::{SocketAddr, TcpListener, TcpStream};

use socket2::{Domain, Protocol, Socket, Type};
use tests::task::tid;
use tests::traffic::*;
use tests::{Lab, Trace};

pub(crate) fn mptcp() -> Option<Socket> {
    // The namespace may have MPTCP switched off. The file is missing if the kernel lacks MPTCP.
    let _ = std::fs::write("/proc/sys/net/mptcp/enabled", "1");
    match Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)) {
        Ok(socket) => Some(socket),
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => {
            eprintln!("skipped: MPTCP: {error}");
            None
        }
        Err(error) => panic!("an MPTCP socket: {error}"),
    }
}

/// Makes a connection to an MPTCP listener, queued before accept(). Returns the trace and the
/// client's port.
fn traced(client: fn(SocketAddr) -> Option<TcpStream>) -> Option<(Trace, u16)> {
    let lab = Lab::new();
    let here = SocketAddr::from((LOOPBACK, lab.port()));
    let listener = mptcp()?;
    let tracer = lab.trace();
    listener.bind(&here.into()).unwrap();
    listener.listen(16).unwrap();
    let listener = TcpListener::from(listener);
    let client = client(here)?;
    let client_port = port_of(&client);
    wait_for_the_other_end(&client);
    close(client, accept(&listener).stream);
    drop(listener);
    tracer.wait_for_ends(2);
    Some((tracer.stop(), client_port))
}

/// Asserts one listener, and one connection with two ends. The MPTCP socket, which has its own
/// states and changes from LISTEN to LISTEN, must not appear.
fn is_reported_as_tcp(trace: &Trace, client_port: u16) {
    let listen = trace.listen();
    assert_eq!(trace.path(&listen["conn"]), "CLOSE LISTEN CLOSE");
    let server = trace.server();
    server.shows(&[
        ("lport", &listen["lport"]),
        ("rport", &client_port),
        ("complete", &true),
    ]);
    trace
        .client()
        .shows(&[("lport", &client_port), ("rport", &listen["lport"])]);
}

fn is_accepted(trace: &Trace, client_port: u16) {
    trace.accept().shows(&[
        ("conn", &trace.server()["conn"]),
        ("listener", &trace.listen()["conn"]),
        ("rport", &client_port),
        ("tid", &tid()),
    ]);
    trace
        .server()
        .shows(&[("verdict", &"queued"), ("tid", &tid())]);
}

#[test]
fn an_mptcp_connection_is_reported_as_one_tcp_connection() {
    let client = |server: SocketAddr| {
        let socket = mptcp()?;
        socket.connect(&server.into()).expect("connect");
        Some(socket.into())
    };
    let Some((trace, client_port)) = traced(client) else {
        return;
    };
    is_reported_as_tcp(&trace, client_port);
    is_accepted(&trace, client_port);
}

#[test]
fn a_tcp_client_of_an_mptcp_listener_is_reported_as_tcp() {
    let Some((trace, client_port)) = traced(|server| Some(connect_to(server))) else {
        return;
    };
    is_reported_as_tcp(&trace, client_port);
    is_accepted(&trace, client_port);
}
