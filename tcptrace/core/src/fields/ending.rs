//! How a connection ended, and what the kernel says on the way there.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Subject;
use crate::event::{Direction, Retransmitted, State};

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// By FINs: both sides', or this one's, acknowledged, after which the kernel keeps no socket
    /// for what the peer may still say.
    Orderly,
    /// The kernel sent a RST for a reason of its own, such as data for a socket that nobody reads
    /// any more, or want of memory.
    ResetSent,
    /// The peer sent a RST.
    ResetReceived,
    /// Its process ended it with a RST: it closed it with data unread, with SO_LINGER 0, or with
    /// TCP_LINGER2 below 0.
    Aborted,
    /// Its process took the connection from the socket, which lives on: connect() to AF_UNSPEC.
    Disconnected,
    /// Another process killed it (`ss -K`).
    Killed,
    /// Its process closed it in TCP_REPAIR mode: the peer was told nothing.
    Repair,
    /// The peer did not answer any more, or never did.
    Timeout,
    /// The peer, or a host on the way, refused the connection.
    Refused,
    /// The network said that the peer cannot be reached.
    Unreachable,
    /// Its listener closed while it was in the accept queue.
    ClosedInQueue,
    /// The peer reset it while it was in the accept queue.
    ResetInQueue,
    /// Its process closed it before the handshake was finished.
    GivenUp,
    /// connect() failed before a SYN was sent, because no local port was free (EADDRNOTAVAIL).
    NoFreePort,
}

impl Ended {
    /// For people.
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

/// Who sent the first FIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClosedFirst {
    Local,
    Remote,
    /// Each before the other's had come: RFC 9293, section 3.6, figure 13.
    Both,
}

/// Part of the `connection` line: how it ended, and its figures at the end. Null where it was not
/// seen to end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ending {
    /// How it ended; null when the evidence does not decide.
    pub ended: Option<Ended>,
    /// Which side sent the first FIN.
    pub closed_first: Option<ClosedFirst>,
    /// Whether this side's FIN has left: its number was sent, or the peer has acknowledged it; null
    /// while that is not known. A FIN waits behind data that the peer has no room for.
    pub fin_sent: Option<bool>,
    /// How often a client sent its SYN again; null while it is connecting.
    pub syn_retransmits: Option<u32>,
    /// Bytes sent and acknowledged, SYN and FIN not counted (tcp_sock.bytes_acked); null too when
    /// the side is not known.
    pub bytes_acked: Option<u64>,
    /// Bytes received in order, SYN and FIN not counted (tcp_sock.bytes_received).
    pub bytes_received: Option<u64>,
    /// Segments sent by the socket (tcp_sock.segs_out): at a server without the SYN-ACK.
    pub segs_out: Option<u32>,
    /// Segments received by the socket (tcp_sock.segs_in): at a server without the SYN.
    pub segs_in: Option<u32>,
    /// Segments sent again, SYN, SYN-ACK and FIN included (tcp_sock.total_retrans).
    pub retransmits: Option<u32>,
    /// Smoothed round-trip time in nanoseconds (tcp_sock.srtt_us, in eighths of a microsecond);
    /// null when it was never measured.
    pub srtt_ns: Option<u64>,
    /// Congestion window in segments (tcp_sock.snd_cwnd).
    pub snd_cwnd: Option<u32>,
    /// Bytes received that no process has read, FIN not counted.
    pub unread_bytes: Option<u32>,
}

/// A socket sent a segment again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Retransmit {
    /// When, in CLOCK_MONOTONIC nanoseconds.
    pub mono_ns: u64,
    #[serde(flatten)]
    pub subject: Subject,
    /// The state it was in.
    pub state: State,
    /// What was sent again: SYN, SYN_ACK, FIN (with any data before it) or data.
    pub retransmitted: Retransmitted,
    /// Segments that this socket has sent again so far, this one included.
    pub retransmits: u32,
}

/// A RST was sent, or has ended a socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reset {
    /// When, in CLOCK_MONOTONIC nanoseconds.
    pub mono_ns: u64,
    #[serde(flatten)]
    pub subject: Subject,
    /// The state of the socket.
    pub state: Option<State>,
    /// Sent by this host, or received. The kernel says received, too, of data that comes for a
    /// socket that nobody reads any more, in FIN_WAIT1 or FIN_WAIT2, and then sends a RST; with a
    /// sent one behind it, it is left out.
    pub direction: Direction,
    /// Why it was sent, as in the kernel's enum sk_rst_reason (Linux 6.10 and later) without
    /// SK_RST_REASON_.
    pub rst_reason: Option<String>,
}
