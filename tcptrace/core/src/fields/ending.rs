//! The end of a connection, and the retransmits and resets before it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Subject;
use crate::event::{Direction, Retransmitted, State};

/// The way a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// Closed by the FINs of both sides. Or the peer acknowledged this side's FIN, and the kernel
    /// keeps no socket for further data of the peer.
    Orderly,
    /// The kernel sent a RST by itself, for example because of data for a socket that no process
    /// reads any more.
    ResetSent,
    /// The peer sent a RST.
    ResetReceived,
    /// The process ended the connection with a RST: it closed it with unread data, with SO_LINGER
    /// 0, or with TCP_LINGER2 below 0.
    Aborted,
    /// The process disconnected the socket with connect() to AF_UNSPEC and keeps the socket.
    Disconnected,
    /// Another process killed the connection (`ss -K`).
    Killed,
    /// The process closed the socket in TCP_REPAIR mode. No segment was sent to the peer.
    Repair,
    /// The peer stopped answering, or never answered.
    Timeout,
    /// The peer, or a host on the way, refused the connection (ECONNREFUSED).
    Refused,
    /// An ICMP error reported that the peer is unreachable.
    Unreachable,
    /// The listener was closed while the connection was in its accept queue.
    ClosedInQueue,
    /// The peer reset the connection while it was in the accept queue.
    ResetInQueue,
    /// The process closed the socket before the handshake finished.
    GivenUp,
    /// connect() failed before a SYN was sent, because no local port was free (EADDRNOTAVAIL).
    NoFreePort,
}

impl Ended {
    /// Returns the ending as words for the text output.
    pub fn words(self) -> &'static str {
        match self {
            Ended::Orderly => "closed in good order",
            Ended::ResetSent => "reset by this host",
            Ended::ResetReceived => "reset by the peer",
            Ended::Aborted => "aborted by its process",
            Ended::Disconnected => "disconnected by its process",
            Ended::Killed => "killed by another process",
            Ended::Repair => "closed in TCP_REPAIR mode",
            Ended::Timeout => "timed out",
            Ended::Refused => "refused",
            Ended::Unreachable => "unreachable",
            Ended::ClosedInQueue => "closed in the accept queue",
            Ended::ResetInQueue => "reset in the accept queue",
            Ended::GivenUp => "given up by its process",
            Ended::NoFreePort => "no free port",
        }
    }
}

/// The side that sent the first FIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClosedFirst {
    Local,
    Remote,
    /// Both sides sent a FIN before they received the other's: RFC 9293, section 3.6, figure 13.
    Both,
}

/// Part of the `connection` line: how the connection ended, and its counters at the end. The fields
/// are null when the end was not seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ending {
    /// How the connection ended; null when the evidence does not decide.
    pub ended: Option<Ended>,
    /// The side that sent the first FIN.
    pub closed_first: Option<ClosedFirst>,
    /// Whether this side's FIN was sent. A FIN waits behind data that the peer has no room for.
    /// Null while that is not known.
    pub fin_sent: Option<bool>,
    /// Number of SYN retransmissions of a client; null while it is connecting.
    pub syn_retransmits: Option<u32>,
    /// Bytes sent and acknowledged, without SYN and FIN (tcp_sock.bytes_acked). Also null when the
    /// side is not known.
    pub bytes_acked: Option<u64>,
    /// Bytes received in order, without SYN and FIN (tcp_sock.bytes_received).
    pub bytes_received: Option<u64>,
    /// Segments sent by the socket (tcp_sock.segs_out); for a server without the SYN-ACK.
    pub segs_out: Option<u32>,
    /// Segments received by the socket (tcp_sock.segs_in); for a server without the SYN.
    pub segs_in: Option<u32>,
    /// Retransmitted segments, SYN, SYN-ACK and FIN included (tcp_sock.total_retrans).
    pub retransmits: Option<u32>,
    /// Smoothed round-trip time in nanoseconds (tcp_sock.srtt_us, in eighths of a microsecond);
    /// null when it was never measured.
    pub srtt_ns: Option<u64>,
    /// Congestion window in segments (tcp_sock.snd_cwnd).
    pub snd_cwnd: Option<u32>,
    /// Bytes received that no process has read, without the FIN.
    pub unread_bytes: Option<u32>,
}

/// A socket retransmitted a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Retransmit {
    /// Time of the event, in CLOCK_MONOTONIC nanoseconds.
    pub mono_ns: u64,
    #[serde(flatten)]
    pub subject: Subject,
    /// The state of the socket.
    pub state: State,
    /// The retransmitted segment: SYN, SYN_ACK, FIN (with any data before it) or data.
    pub retransmitted: Retransmitted,
    /// Segments that this socket has retransmitted so far, this one included.
    pub retransmits: u32,
}

/// A RST was sent, or a received RST ended a socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reset {
    /// Time of the event, in CLOCK_MONOTONIC nanoseconds.
    pub mono_ns: u64,
    #[serde(flatten)]
    pub subject: Subject,
    /// The state of the socket.
    pub state: Option<State>,
    /// Whether this host sent the RST or received it. In FIN_WAIT1 and FIN_WAIT2 the kernel also
    /// reports a received RST when data arrives for a socket that no process reads. The kernel then
    /// sends a RST. If the trace sees that sent RST, it leaves out the report of a received one.
    pub direction: Direction,
    /// The reason for sending, as in the kernel's enum sk_rst_reason (Linux 6.10 and later) without
    /// SK_RST_REASON_.
    pub rst_reason: Option<String>,
}
