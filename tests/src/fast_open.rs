//! TCP Fast Open, with a client that withholds the final ACK.

use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Socket, Type};

use crate::trace::{Line, Trace};
use crate::traffic::{
    BACKLOG, LOOPBACK, TEXT, drop_incoming, listen_socket, set_option, stop_dropping,
};

/// Allows Fast Open without a cookie for clients and servers of this namespace.
pub fn allow() {
    const CLIENT: u32 = 0x1;
    const SERVER: u32 = 0x2;
    const CLIENT_NEEDS_NO_COOKIE: u32 = 0x4;
    const SERVER_NEEDS_NO_COOKIE: u32 = 0x200;
    let bits = CLIENT | SERVER | CLIENT_NEEDS_NO_COOKIE | SERVER_NEEDS_NO_COOKIE;
    std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", bits.to_string()).expect("a sysctl");
}

/// Creates a listener that accepts data in the SYN.
pub fn listen(port: u16) -> TcpListener {
    listen_at((LOOPBACK, port).into())
}

/// Creates a listener for Fast Open at another address.
pub fn listen_at(addr: SocketAddr) -> TcpListener {
    listen_socket(addr, BACKLOG, |socket| {
        let pending: libc::c_int = 16;
        set_option(socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, &pending);
    })
}

/// A client that sends data in its SYN.
pub struct Client {
    socket: Socket,
}

impl Client {
    /// Creates a client whose socket drops every SYN-ACK.
    pub fn without_syn_ack() -> Client {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        drop_incoming(&socket);
        // Otherwise sending waits for the SYN-ACK.
        socket.set_nonblocking(true).expect("O_NONBLOCK");
        Client { socket }
    }

    /// Sends a SYN that carries [`TEXT`].
    pub fn send_syn(&self, port: u16) {
        let server = std::net::SocketAddr::from((LOOPBACK, port)).into();
        let sent = self
            .socket
            .send_to_with_flags(TEXT, &server, libc::MSG_FASTOPEN)
            .expect("send with the SYN");
        assert_eq!(sent, TEXT.len());
    }

    /// Lets the socket receive again. The server repeats its SYN-ACK after a second.
    pub fn stop_dropping(&self) {
        stop_dropping(&self.socket);
    }
}

/// Asserts that a server's socket is shown as created by the SYN. The next event on the same CPU,
/// here accept(), proves that. The `transition` line is held back for only 5 ms. If load delays
/// accept() for longer, the cause is unknown, and null.
pub fn shows_birth(trace: &Trace, server: &Line) {
    let birth = trace.transitions(&server["conn"])[0];
    birth.shows(&[("oldstate", &"LISTEN")]);
    let until_next = server.num("accepted_mono_ns") - birth.num("mono_ns");
    if until_next < 5_000_000 || !birth["cause"].is_null() {
        birth.shows(&[("cause", &"syn_received")]);
    }
}
