//! What tells how a connection ends: its figures, its retransmits, its resets.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Sk, State, Tuple};

/// A `tcp_sock`'s own figures, as the kernel counts: SYN and FIN are a byte each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Sent and acknowledged, with the FIN, and with the SYN of a client.
    pub bytes_acked: u64,
    /// Received in order, with the peer's FIN.
    pub bytes_received: u64,
    pub segs_in: u32,
    pub segs_out: u32,
    /// Segments with payload, those that were dropped as well.
    pub data_segs_in: u32,
    /// Segments sent again, SYN included.
    pub retransmits: u32,
    /// Congestion window, segments.
    pub snd_cwnd: u32,
    /// Not acknowledged by the peer, the FIN included.
    pub unacked: u32,
    /// Received and not read, the peer's FIN included.
    pub unread: u32,
    /// Nobody will read what comes now: the process has closed that direction, or the socket.
    pub rcv_shutdown: bool,
    /// TCP_LINGER2 below 0: it does not wait for the peer's FIN, it sends a RST.
    pub no_fin_wait2: bool,
    /// The process will send nothing more: shutdown() or close().
    pub snd_shutdown: bool,
    /// Something that was to be sent, at least the FIN, has not left yet.
    pub unsent: bool,
    /// What the process was doing, where a process changed the state.
    pub call: Option<Call>,
}

impl Stats {
    /// Whether both directions are shut down: close() does that before anything else, connect() and
    /// `tcp_abort` do not.
    pub fn is_shut(&self) -> bool {
        self.snd_shutdown && self.rcv_shutdown
    }
}

/// The system call that a process was in, as far as it tells why a socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Call {
    /// close() and the like, or the end of the process.
    Close,
    Connect,
    Shutdown,
    /// sendmsg() and the like: netlink is spoken to by these.
    Send,
}

/// `tcp:tcp_retransmit_skb`: a socket has sent a segment again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retransmit {
    pub sk: Sk,
    pub cookie: Option<u64>,
    pub netns: u32,
    pub tuple: Tuple,
    pub state: State,
    pub what: Retransmitted,
    /// Segments that the socket has sent again so far, this one included.
    pub retransmits: u32,
}

/// What was sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Retransmitted {
    /// A connecting client's first segment.
    #[serde(rename = "SYN")]
    Syn,
    /// The answer to a SYN, by a full socket: TCP Fast Open, or both sides connecting at once.
    #[serde(rename = "SYN_ACK")]
    SynAck,
    /// A segment with the FIN, which may have data before it.
    #[serde(rename = "FIN")]
    Fin,
    #[serde(rename = "data")]
    Data,
}

impl Retransmitted {
    /// From the flags of the segment's TCP header (RFC 9293, section 3.1).
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

    /// As in JSON.
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
    /// `None` when the segment that was answered met no full socket.
    pub sk: Option<Sk>,
    pub cookie: Option<u64>,
    pub netns: u32,
    /// The own end first, whoever sent the RST.
    pub tuple: Tuple,
    /// `None` when there was no socket at all.
    pub state: Option<State>,
    pub direction: Direction,
    /// Number in the kernel's `enum sk_rst_reason`.
    pub reason: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Sent,
    Received,
}
