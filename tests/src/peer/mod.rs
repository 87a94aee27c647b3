//! A TCP endpoint that sends what a script says, segment by segment. It can withhold an ACK, lose a
//! SYN, or close at the same moment as the kernel. It records what the kernel sends, and when.
//!
//! It is a packet socket on the loopback interface, to which [`PEER`] is routed. No interface has
//! that address, so the kernel drops packets for it and never answers for the peer. Packets from
//! the packet socket arrive as from a network. A TUN device would do the same, but many kernels
//! have it only as a module.

mod segment;
mod talk;

use std::io::IoSliceMut;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use etherparse::icmpv4::DestUnreachableHeader;
use etherparse::{Icmpv4Type, PacketBuilder};
use nix::errno::Errno;
use nix::sys::socket::sockopt::ReceiveTimestampns;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use crate::task::now_ns;
use crate::{Lab, eventually};

pub use segment::Segment;
pub use talk::Talk;

/// The kernel's address towards the peer.
pub const KERNEL: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The peer's address.
pub const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// The index of a namespace's first interface.
const LOOPBACK_INDEX: i32 = 1;

/// The scripted peer of all connections of a namespace. Prints the segments on the wire when the
/// scenario fails.
pub struct Peer {
    wire: Arc<Wire>,
}

struct Wire {
    socket: Socket,
    log: Mutex<Vec<WireEvent>>,
}

/// A segment that the kernel sent.
#[derive(Clone, Debug)]
pub struct Received {
    /// CLOCK_MONOTONIC when the packet socket received it, not when the script read it.
    pub at_ns: u64,
    pub segment: Segment,
    packet: Vec<u8>,
}

/// CLOCK_MONOTONIC before and after a send. The kernel processes the segment in between, unless a
/// process holds the socket or softirqs are deferred.
pub type SendTimes = [u64; 2];

/// A segment on the wire, from either side.
enum WireEvent {
    Sent(u64, Segment),
    Received(Received),
}

impl Peer {
    /// Creates the peer in the lab's namespace and starts to receive.
    pub fn new(_lab: &Lab) -> Peer {
        route_peer_to_loopback();
        let socket = packet_socket();
        // The timeout lets the reader check whether the peer still exists.
        let now_and_then = Some(Duration::from_millis(50));
        socket.set_read_timeout(now_and_then).expect("SO_RCVTIMEO");
        setsockopt(&socket, ReceiveTimestampns, &true).expect("SO_TIMESTAMPNS");
        let wire = Arc::new(Wire {
            socket,
            log: Mutex::default(),
        });
        let weak = Arc::downgrade(&wire);
        std::thread::spawn(move || read(&weak));
        Peer { wire }
    }

    /// Begins a conversation between two ports. Sends nothing yet.
    pub fn talk(&self, own: u16, kernel: u16) -> Talk<'_> {
        Talk::new(self, own, kernel)
    }

    /// Connects to a listener of the kernel with a whole handshake.
    pub fn connect(&self, own: u16, kernel: u16) -> Talk<'_> {
        let mut talk = self.talk(own, kernel);
        talk.syn();
        talk.receive_syn_ack();
        talk.ack();
        talk
    }

    /// Waits for the kernel's SYN to this port. Does not answer it yet.
    pub fn called(&self, own: u16) -> (Talk<'_>, Received) {
        let kernel = eventually("a SYN from the kernel", || {
            let mut received = self.received().into_iter().map(|it| it.segment);
            received.find(|it| it.to == own && it.syn).map(|it| it.from)
        });
        let mut talk = self.talk(own, kernel);
        let syn = talk.receive_syn();
        (talk, syn)
    }

    /// Answers a connect() of the kernel with a whole handshake.
    pub fn answer(&self, own: u16) -> Talk<'_> {
        let (mut talk, _) = self.called(own);
        talk.syn_ack();
        talk.receive_ack();
        talk
    }

    /// Sends a segment. Returns the times before and after.
    pub fn send(&self, segment: &Segment) -> SendTimes {
        self.log().push(WireEvent::Sent(now_ns(), segment.clone()));
        self.transmit(&segment.packet(PEER, KERNEL))
    }

    /// Answers a segment with ICMP "host unreachable", as a router would.
    pub fn unreachable(&self, received: &Received) -> SendTimes {
        const BEGINNING: usize = 28;
        let kind = Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Host);
        let mut packet = Vec::new();
        PacketBuilder::ipv4(PEER.octets(), KERNEL.octets(), segment::TTL)
            .icmpv4(kind)
            .write(&mut packet, &received.packet[..BEGINNING])
            .expect("a Vec takes everything");
        self.transmit(&packet)
    }

    /// Returns all segments that the kernel has sent to the peer so far.
    pub fn received(&self) -> Vec<Received> {
        let passed = self.log();
        let received = passed.iter().filter_map(|it| match it {
            WireEvent::Received(received) => Some(received.clone()),
            WireEvent::Sent(..) => None,
        });
        received.collect()
    }

    fn transmit(&self, packet: &[u8]) -> SendTimes {
        let before = now_ns();
        let sent = self.wire.socket.send(packet).expect("send a packet");
        assert_eq!(sent, packet.len());
        [before, now_ns()]
    }

    fn log(&self) -> MutexGuard<'_, Vec<WireEvent>> {
        self.wire.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("On the wire:");
            for passed in self.log().iter() {
                match passed {
                    WireEvent::Sent(at, segment) => eprintln!("{at} peer   {segment}"),
                    WireEvent::Received(it) => eprintln!("{} kernel {}", it.at_ns, it.segment),
                }
            }
        }
    }
}

/// Reads until the peer is dropped.
fn read(wire: &Weak<Wire>) {
    let mut buffer = vec![0; 1 << 16];
    while let Some(wire) = wire.upgrade() {
        let (at_ns, packet) = match receive(&wire.socket, &mut buffer) {
            Ok(packet) => packet,
            Err(Errno::EAGAIN) => continue,
            Err(error) => panic!("read packets: {error}"),
        };
        // The socket also receives the peer's own packets, and all others on the interface.
        if let Some(segment) = Segment::parse(packet, PEER) {
            let mut log = wire.log.lock().unwrap_or_else(PoisonError::into_inner);
            log.push(WireEvent::Received(Received {
                at_ns,
                segment,
                packet: packet.to_vec(),
            }));
        }
    }
}

/// Returns the next packet and its time of arrival.
fn receive<'a>(socket: &Socket, buffer: &'a mut [u8]) -> nix::Result<(u64, &'a [u8])> {
    let mut slices = [IoSliceMut::new(buffer)];
    let mut control = nix::cmsg_space!(TimeSpec);
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut control),
        MsgFlags::empty(),
    )?;
    let stamp = message.cmsgs()?.find_map(|it| match it {
        ControlMessageOwned::ScmTimestampns(stamp) => Some(Duration::from(stamp)),
        _ => None,
    });
    // The kernel stamps with the wall clock, so the packet's age is converted.
    let now = clock_gettime(ClockId::CLOCK_REALTIME).map(Duration::from)?;
    let ago = now.saturating_sub(stamp.expect("a packet with a time stamp"));
    let at_ns = now_ns() - ago.as_nanos() as u64;
    let length = message.bytes;
    Ok((at_ns, &buffer[..length]))
}

/// Creates a socket that sends and receives whole IPv4 packets on the loopback interface.
fn packet_socket() -> Socket {
    let ipv4 = (libc::ETH_P_IP as u16).to_be();
    let protocol = Protocol::from(i32::from(ipv4));
    let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol)).expect("a packet socket");
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is a socket address, valid when it is all zero.
    let loopback = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    loopback.sll_family = libc::AF_PACKET as u16;
    loopback.sll_protocol = ipv4;
    loopback.sll_ifindex = LOOPBACK_INDEX;
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: family and length say that it is a sockaddr_ll, and it is.
    let address = unsafe { SockAddr::new(storage, length) };
    socket.bind(&address).expect("bind a packet socket");
    socket
}

/// Does `ip address add KERNEL/32 dev lo` and `ip route add PEER dev lo`.
///
/// The netmask matters: the kernel owns all addresses of a loopback interface's network.
fn route_peer_to_loopback() {
    const ALL_ONES: Ipv4Addr = Ipv4Addr::BROADCAST;
    // Uses an alias, because lo's first address is 127.0.0.1.
    for (request, address) in [
        (libc::SIOCSIFADDR, KERNEL),
        (libc::SIOCSIFNETMASK, ALL_ONES),
    ] {
        // SAFETY: all zero is a valid ifreq.
        let mut alias: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in alias.ifr_name.iter_mut().zip(b"lo:peer\0") {
            *to = *from as libc::c_char;
        }
        alias.ifr_ifru.ifru_addr = sockaddr(address);
        // SAFETY: both requests take an ifreq with an address.
        unsafe { configure(request, &alias) };
    }
    // SAFETY: all zero is a valid rtentry.
    let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
    route.rt_dst = sockaddr(PEER);
    route.rt_genmask = sockaddr(ALL_ONES);
    route.rt_flags = libc::RTF_UP | libc::RTF_HOST;
    route.rt_dev = c"lo".as_ptr().cast_mut();
    // SAFETY: the request takes an rtentry, whose name of a device is only read.
    unsafe { configure(libc::SIOCADDRT, &route) };
}

/// Calls an ioctl on an IPv4 socket of the namespace.
///
/// # Safety
///
/// `argument` must have the type that the request takes.
unsafe fn configure<T>(request: libc::c_ulong, argument: &T) {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
    // SAFETY: as the caller promised; the argument outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), request as _, argument) };
    let error = std::io::Error::last_os_error();
    assert_eq!(result, 0, "configure lo, {request:#x}: {error}");
}

fn sockaddr(address: Ipv4Addr) -> libc::sockaddr {
    let address = SockAddr::from(SocketAddr::from((address, 0)));
    // SAFETY: an IPv4 address fits into a sockaddr exactly.
    unsafe { address.as_ptr().cast::<libc::sockaddr>().read() }
}
