//! An independent witness of segments: a packet socket, as tcpdump uses it, without BPF and
//! tracepoints.

use std::io::ErrorKind;
use std::mem::MaybeUninit;

use socket2::{Domain, Protocol, Socket, Type};

/// A packet socket on every device of the calling thread's namespace.
pub struct Packets(Socket);

/// A captured segment, displayed as `out S` or `in F.`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub is_sent: bool,
    pub source_port: u16,
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
}

impl Packets {
    pub fn start() -> Packets {
        let all = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(all)).expect("a packet socket");
        socket.set_nonblocking(true).expect("O_NONBLOCK");
        Packets(socket)
    }

    /// Returns the segments with SYN, FIN or RST so far that have this port at one end.
    pub fn of_port(&self, port: u16) -> Vec<Seen> {
        let mut seen = vec![];
        let mut packet = [MaybeUninit::<u8>::uninit(); 256];
        loop {
            let (len, from) = match self.0.recv_from(&mut packet) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return seen,
                Err(error) => panic!("receive a packet: {error}"),
            };
            // SAFETY: the kernel has written `len` bytes, and a sockaddr_ll.
            let (bytes, from) = unsafe {
                (
                    std::slice::from_raw_parts(packet.as_ptr().cast::<u8>(), len),
                    &*from.as_ptr().cast::<libc::sockaddr_ll>(),
                )
            };
            seen.extend(parse(bytes, port).map(|it| Seen {
                is_sent: from.sll_pkttype == libc::PACKET_OUTGOING,
                ..it
            }));
        }
    }
}

fn parse(ip: &[u8], port: u16) -> Option<Seen> {
    const FIN_SYN_RST: u8 = 0x07;
    let (protocol, tcp) = match ip.first()? >> 4 {
        4 => (ip.get(9)?, ip.get(usize::from(ip[0] & 0xf) * 4..)?),
        6 => (ip.get(6)?, ip.get(40..)?),
        _ => return None,
    };
    let (head, _) = tcp.split_first_chunk::<20>()?;
    let half = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let word = |at: usize| u32::from(half(at)) << 16 | u32::from(half(at + 2));
    let seen = Seen {
        is_sent: false,
        source_port: half(0),
        flags: head[13],
        seq: word(4),
        ack: word(8),
    };
    let is_wanted =
        *protocol == 6 && seen.flags & FIN_SYN_RST != 0 && [half(0), half(2)].contains(&port);
    is_wanted.then_some(seen)
}
