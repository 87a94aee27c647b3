//! Actions of clients and servers.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, SockFilter, SockRef, Socket, Type};

use crate::eventually;
use crate::task::{join, now_ns, spawn, wait_until_in_accept};

/// The message of a client: 18 bytes.
pub const TEXT: &[u8; 18] = b"This is tcp client";

pub const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The default backlog of listen().
pub(crate) const BACKLOG: i32 = 512;

/// Listens on 127.0.0.1.
pub fn listen(port: u16) -> TcpListener {
    listen_at((LOOPBACK, port).into(), BACKLOG)
}

/// Listens with a given backlog. A listener on an IPv6 address accepts IPv4, too.
pub fn listen_at(addr: SocketAddr, backlog: i32) -> TcpListener {
    listen_socket(addr, backlog, |_| {})
}

/// Listens on a port that several listeners share (SO_REUSEPORT).
pub fn listen_sharing(port: u16) -> TcpListener {
    listen_socket((LOOPBACK, port).into(), BACKLOG, |socket| {
        socket.set_reuse_port(true).expect("SO_REUSEPORT");
    })
}

/// Creates a listener to which TPROXY may redirect connections for other addresses.
pub fn listen_transparent(port: u16) -> TcpListener {
    listen_socket((LOOPBACK, port).into(), BACKLOG, |socket| {
        set_option(socket, libc::SOL_IP, libc::IP_TRANSPARENT, &1i32);
    })
}

pub(crate) fn listen_socket(
    addr: SocketAddr,
    backlog: i32,
    prepare: impl Fn(&Socket),
) -> TcpListener {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("SO_REUSEADDR");
    if addr.is_ipv6() {
        socket.set_only_v6(false).expect("IPV6_V6ONLY");
    }
    prepare(&socket);
    // A process that another test has just forked may still hold the previous listener.
    eventually("the address to be free", || {
        match socket.bind(&addr.into()) {
            Ok(()) => Some(()),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => None,
            Err(error) => panic!("bind: {error}"),
        }
    });
    socket.listen(backlog).expect("listen");
    socket.into()
}

/// Connects to 127.0.0.1. The client's handshake is finished when this returns.
pub fn connect(port: u16) -> TcpStream {
    connect_to((LOOPBACK, port).into())
}

pub fn connect_to(addr: SocketAddr) -> TcpStream {
    TcpStream::connect(addr).expect("connect")
}

/// Like [`connect`], to a listener of this machine from which nobody accepts meanwhile. The
/// server's end is ESTABLISHED, too, when this returns.
pub fn connect_queued(port: u16) -> TcpStream {
    connect_queued_to((LOOPBACK, port).into())
}

/// A client is connected as soon as it has sent the final ACK. On a slow machine ksoftirqd may
/// process that ACK later, so an immediate accept() could run first.
pub fn connect_queued_to(addr: SocketAddr) -> TcpStream {
    let client = connect_to(addr);
    wait_for_the_other_end(&client);
    client
}

/// Waits until the server's end of a connection is ESTABLISHED.
pub fn wait_for_the_other_end(client: &TcpStream) {
    let server = client.peer_addr().expect("a connected socket").port();
    let ports = (server, port_of(client));
    crate::eventually("the server's end to be ESTABLISHED", || {
        is_established(ports).then_some(())
    });
}

/// Whether this namespace has a connection with these ports.
fn is_established((local, remote): (u16, u16)) -> bool {
    // `0: 0100007F:1F90 0100007F:C350 01 …`: local and remote address, and the state's number.
    const ESTABLISHED: &str = "01";
    let tables = ["tcp", "tcp6"].map(|it| format!("/proc/thread-self/net/{it}"));
    let tables = tables.map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let [local, remote] = [local, remote].map(|port| format!(":{port:04X}"));
    tables.iter().flat_map(|table| table.lines()).any(|line| {
        let mut words = line.split_whitespace().skip(1);
        let mut next = || words.next().unwrap_or_default();
        next().ends_with(&local) && next().ends_with(&remote) && next() == ESTABLISHED
    })
}

/// Returns the port that the kernel chose for a client.
pub fn port_of(client: &TcpStream) -> u16 {
    client.local_addr().expect("a bound socket").port()
}

/// The result of accept(), and the times of call and return by the test's own clock.
pub struct Accepted {
    pub stream: TcpStream,
    pub peer: SocketAddr,
    pub called_ns: u64,
    pub returned_ns: u64,
}

pub fn accept(listener: &TcpListener) -> Accepted {
    let called_ns = now_ns();
    let (stream, peer) = listener.accept().expect("accept");
    let returned_ns = now_ns();
    Accepted {
        stream,
        peer,
        called_ns,
        returned_ns,
    }
}

/// Starts threads that sleep in accept() on one listener. Returns them with their ids.
pub fn blocked_in_accept(
    listener: &Arc<TcpListener>,
    threads: usize,
) -> Vec<(u32, JoinHandle<Accepted>)> {
    let acceptors: Vec<_> = (0..threads)
        .map(|_| {
            let listener = listener.clone();
            spawn(move || accept(&listener))
        })
        .collect();
    for (tid, _) in &acceptors {
        wait_until_in_accept(*tid);
    }
    acceptors
}

/// Busy-waits until a connection is in the accept queue, without calling accept().
pub fn wait_until_queued(listener: &TcpListener) {
    let mut wanted = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    crate::eventually_at_once("a connection in the accept queue", || {
        let ready = poll(&mut wanted, PollTimeout::ZERO).expect("poll");
        (ready > 0).then_some(())
    });
}

/// Waits until the accept queue has this many connections. connect() can return earlier, while
/// another CPU still processes the final ACK.
pub fn wait_until_in_queue(listener: &TcpListener, connections: u32) {
    let what = format!("{connections} connections in the accept queue");
    crate::eventually(&what, || (in_queue(listener) == connections).then_some(()));
}

/// For a listener, `tcpi_unacked` is `sk_ack_backlog` (`tcp_get_info`, net/ipv4/tcp.c).
fn in_queue(listener: &TcpListener) -> u32 {
    // SAFETY: all zero is a tcp_info.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes of it.
    let done = unsafe {
        libc::getsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &mut length,
        )
    };
    assert_eq!(done, 0, "TCP_INFO: {}", std::io::Error::last_os_error());
    info.tcpi_unacked
}

pub fn send_text(stream: &mut TcpStream) {
    stream.write_all(TEXT).expect("write");
}

/// Reads exactly [`TEXT`].
pub fn receive_text(stream: &mut TcpStream) {
    let mut received = [0; TEXT.len()];
    stream.read_exact(&mut received).expect("read");
    assert_eq!(&received, TEXT);
}

/// Reads the end of the stream.
pub fn receive_end(stream: &mut TcpStream) {
    let end = stream.read(&mut [0]).expect("the end of the stream");
    assert_eq!(end, 0, "the end of the stream");
}

/// Closes one end, then the other after it has read the end of the stream.
pub fn close(first: TcpStream, mut second: TcpStream) {
    drop(first);
    receive_end(&mut second);
}

/// Shuts down the sending direction.
pub fn close_half(stream: &TcpStream) {
    stream.shutdown(Shutdown::Write).expect("shutdown");
}

/// Drops every segment that reaches a socket.
pub fn drop_incoming(socket: &impl AsFd) {
    // One instruction of classic BPF: keep 0 bytes.
    let drop_all = SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0);
    let attached = SockRef::from(socket).attach_filter(&[drop_all]);
    attached.expect("SO_ATTACH_FILTER");
}

/// Lets a socket receive again.
pub fn stop_dropping(socket: &impl AsFd) {
    let detached = SockRef::from(socket).detach_filter();
    detached.expect("SO_DETACH_FILTER");
}

/// Closes both ends before either FIN arrives. Both FINs are lost and sent again.
pub fn close_at_once(one: &TcpStream, other: &TcpStream) {
    let ends = [one, other];
    ends.into_iter().for_each(drop_incoming);
    ends.into_iter().for_each(close_half);
    ends.into_iter().for_each(stop_dropping);
}

/// Closes with a RST instead of a FIN.
pub fn reset(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .expect("SO_LINGER");
}

/// Plays a whole connection with a new listener. The connection is queued before accept(), and the
/// client closes first. Returns the client's port.
pub fn talk(port: u16) -> u16 {
    talk_at((LOOPBACK, port).into())
}

pub fn talk_at(addr: SocketAddr) -> u16 {
    let listener = listen_at(addr, BACKLOG);
    let client = connect_queued_to(addr);
    let client_port = port_of(&client);
    close(client, accept(&listener).stream);
    client_port
}

/// Connects, and closes after the server did. Returns the client's port.
pub fn visit(port: u16) -> u16 {
    let mut client = connect(port);
    receive_end(&mut client);
    port_of(&client)
}

/// Makes this many connections in sequence. Each is accepted and closed by the server. Returns the
/// clients' ports.
pub fn storm(port: u16, clients: usize) -> Vec<u16> {
    let listener = listen(port);
    let (_, accepting) = spawn(move || (0..clients).for_each(|_| drop(accept(&listener))));
    let ports = (0..clients).map(|_| visit(port)).collect();
    join(accepting);
    ports
}

/// Calls setsockopt() for options that socket2 does not know.
pub fn set_option<T>(socket: &impl AsRawFd, level: libc::c_int, name: libc::c_int, value: &T) {
    let size = size_of::<T>() as libc::socklen_t;
    let value = std::ptr::from_ref(value).cast();
    // SAFETY: the kernel reads `size` bytes at `value`.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value, size) };
    let error = io::Error::last_os_error();
    assert_eq!(result, 0, "socket option {name}: {error}");
}
