//! Events at the end of a connection: its counters, retransmits and resets.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Sk, State, Tuple};

/// Counters of a `tcp_sock` as the kernel keeps them. SYN and FIN count as one byte each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Bytes sent and acknowledged, including the FIN, and the SYN of a client.
    pub bytes_acked: u64,
    /// Bytes received in order, including the peer's FIN.
    pub bytes_received: u64,
    /// Segments received (`tcp_sock.segs_in`).
    pub segs_in: u32,
    /// Segments sent (`tcp_sock.segs_out`).
    pub segs_out: u32,
    /// Segments received with payload, dropped ones included.
    pub data_segs_in: u32,
    /// Retransmitted segments, SYN included.
    pub retransmits: u32,
    /// Congestion window in segments.
    pub snd_cwnd: u32,
    /// Bytes sent and not acknowledged, the FIN included.
    pub unacked: u32,
    /// Bytes received and not read, the peer's FIN included.
    pub unread: u32,
    /// True if the process has shut down reading or closed the socket, so new data has no reader.
    pub rcv_shutdown: bool,
    /// True with TCP_LINGER2 below 0: the socket sends a RST and does not wait for the peer's FIN.
    pub no_fin_wait2: bool,
    /// True if the process has shut down writing or closed the socket.
    pub snd_shutdown: bool,
    /// True if queued bytes, at least the FIN, were not sent yet.
    pub unsent: bool,
    /// The system call of the process that changed the state, if a process did.
    pub call: Option<Call>,
}

impl Stats {
    /// Returns whether both directions are shut down. close() does that first; connect() and
    /// `tcp_abort` do not.
    pub fn is_shut(&self) -> bool {
        self.snd_shutdown && self.rcv_shutdown
    }
}

/// A system call that explains why a socket closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call {
    /// close() and similar calls, or the end of the process.
    Close,
    Connect,
    Shutdown,
    /// sendmsg() and similar calls, which netlink uses.
    Send,
}

/// `tcp:tcp_retransmit_skb`: a socket retransmitted a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retransmit {
    /// Address of the socket.
    pub sk: Sk,
    /// The socket cookie; `None` when unknown.
    pub cookie: Option<u64>,
    /// Inode of the network namespace.
    pub netns: u32,
    pub tuple: Tuple,
    /// The state of the socket.
    pub state: State,
    /// The kind of the retransmitted segment.
    pub what: Retransmitted,
    /// Segments that the socket has retransmitted so far, this one included.
    pub retransmits: u32,
}

/// The kind of a retransmitted segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Retransmitted {
    /// A connecting client's first segment.
    #[serde(rename = "SYN")]
    Syn,
    /// The answer to a SYN, sent by a full socket: with TCP Fast Open, or when both sides connect
    /// at the same time.
    #[serde(rename = "SYN_ACK")]
    SynAck,
    /// A segment with the FIN, possibly with data before it.
    #[serde(rename = "FIN")]
    Fin,
    #[serde(rename = "data")]
    Data,
}

impl Retransmitted {
    /// Returns the kind of a segment with these header flags (RFC 9293, section 3.1).
    pub fn from_tcp_flags(flags: u8) -> Retransmitted {
        const FIN: u8 = 0x01;
        const SYN: u8 = 0x02;
        const ACK: u8 = 0x10;
        match flags {
            _ if flags & (SYN | ACK) == SYN | ACK => Retransmitted::SynAck,
            _ if flags & SYN != 0 => Retransmitted::Syn,
            _ if flags & FIN != 0 => Retransmitted::Fin,
            _ => Retransmitted::Data,
        }
    }

    /// Returns the value's name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Retransmitted::Syn => "SYN",
            Retransmitted::SynAck => "SYN_ACK",
            Retransmitted::Fin => "FIN",
            Retransmitted::Data => "data",
        }
    }
}

/// `tcp:tcp_send_reset` or `tcp:tcp_receive_reset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// The socket; `None` if no full socket received the segment that the RST answers.
    pub sk: Option<Sk>,
    /// The socket cookie; `None` when unknown.
    pub cookie: Option<u64>,
    /// Inode of the network namespace.
    pub netns: u32,
    /// The local address first, whichever side sent the RST.
    pub tuple: Tuple,
    /// The state of the socket; `None` if there was no socket.
    pub state: Option<State>,
    pub direction: Direction,
    /// Number in the kernel's `enum sk_rst_reason`.
    pub reason: Option<u32>,
}

/// The direction of a segment, seen from this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Sent,
    Received,
}
