//! TCP Fast Open, with a client that keeps the final ACK back.

use std::net::TcpListener;

use socket2::{Domain, Socket, Type};

use crate::traffic::{BACKLOG, LOOPBACK, TEXT, listen_socket, set_option};

/// Lets clients and servers of this namespace use Fast Open, without having met before.
pub fn allow() {
    const CLIENT: u32 = 0x1;
    const SERVER: u32 = 0x2;
    const CLIENT_NEEDS_NO_COOKIE: u32 = 0x4;
    const SERVER_NEEDS_NO_COOKIE: u32 = 0x200;
    let bits = CLIENT | SERVER | CLIENT_NEEDS_NO_COOKIE | SERVER_NEEDS_NO_COOKIE;
    std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", bits.to_string()).expect("a sysctl");
}

/// A listener that takes data with the SYN.
pub fn listen(port: u16) -> TcpListener {
    listen_socket((LOOPBACK, port).into(), BACKLOG, |socket| {
        let pending: libc::c_int = 16;
        set_option(socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, &pending);
    })
}

/// A client that sends data with its SYN.
pub struct Client {
    socket: Socket,
}

impl Client {
    /// Drops every segment that reaches it: it never learns of the SYN-ACK.
    pub fn deaf() -> Client {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        // One instruction of classic BPF: keep 0 bytes.
        let mut drop_all = libc::sock_filter {
            code: (libc::BPF_RET | libc::BPF_K) as u16,
            jt: 0,
            jf: 0,
            k: 0,
        };
        let program = libc::sock_fprog {
            len: 1,
            filter: &mut drop_all,
        };
        set_option(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program);
        // Otherwise sending would wait for the SYN-ACK.
        socket.set_nonblocking(true).expect("O_NONBLOCK");
        Client { socket }
    }

    /// Sends a SYN with [`TEXT`].
    pub fn say(&self, port: u16) {
        let server = std::net::SocketAddr::from((LOOPBACK, port)).into();
        let sent = self
            .socket
            .send_to_with_flags(TEXT, &server, libc::MSG_FASTOPEN)
            .expect("send with the SYN");
        assert_eq!(sent, TEXT.len());
    }

    /// Is not deaf any more: it answers the next SYN-ACK, which the server sends after a second.
    pub fn hear_again(&self) {
        let nothing: libc::c_int = 0;
        set_option(
            &self.socket,
            libc::SOL_SOCKET,
            libc::SO_DETACH_FILTER,
            &nothing,
        );
    }
}
