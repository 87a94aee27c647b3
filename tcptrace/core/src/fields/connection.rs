//! The `connection` line.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Ending, HalfOpenEnd, Late, ListenerSource, Source, Subject, Verdict};
use crate::event::State;

/// A connection as a whole. The line is written once, at its end or at the end of the trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Connection {
    /// When the connection ended, or the end of the trace if it was still open, in CLOCK_MONOTONIC
    /// nanoseconds.
    pub mono_ns: u64,
    #[serde(flatten)]
    pub subject: Subject,
    /// When the SYN was sent (client) or received (server); null when not known.
    pub syn_mono_ns: Option<u64>,
    /// The source of `syn_mono_ns`. For a server `request_sock` is exact; `srtt` is an estimate of
    /// when the SYN-ACK was sent, microseconds later.
    pub syn_source: Option<Source>,
    /// When the connection became ESTABLISHED: for a server, when the kernel finished the handshake.
    pub established_mono_ns: Option<u64>,
    /// When the accept() that returned the connection was called.
    pub accept_called_mono_ns: Option<u64>,
    /// When accept() returned the connection.
    pub accepted_mono_ns: Option<u64>,
    /// When the socket entered CLOSE.
    pub closed_mono_ns: Option<u64>,
    /// Time from the SYN to ESTABLISHED, in nanoseconds; from the SYN-ACK if syn_source is `srtt`.
    pub handshake_ns: Option<u64>,
    /// Time that a server's connection was half-open (NEW_SYN_RECV), in nanoseconds. It lasts from
    /// the SYN until the final ACK makes the child socket, or until the request socket is freed.
    /// Null when the begin or the end is not known.
    pub half_open_ns: Option<u64>,
    /// How a half-open connection ended whose handshake never finished; null when not seen.
    pub half_open_end: Option<HalfOpenEnd>,
    /// Number of SYN-ACK retransmissions; null when not known.
    pub synack_retransmits: Option<u32>,
    /// Whether the SYN-ACK was a SYN cookie, so that the kernel kept no state for the SYN; null
    /// when not known.
    pub syncookie: Option<bool>,
    /// Whether the listener had TCP_DEFER_ACCEPT. The connection then stays half-open until the
    /// first data. Null when not known.
    pub defer_accept: Option<bool>,
    /// Number of the listener's other half-open connections when the SYN was received; null when
    /// not known.
    pub syn_queue_ahead: Option<u32>,
    /// Wait in the accept queue: max(0, accepted - established), in nanoseconds.
    pub accept_queue_ns: Option<u64>,
    /// Number of connections that were ahead in the accept queue when this connection was queued.
    pub backlog_ahead: Option<u32>,
    /// The limit of the accept queue, which holds one connection more than this.
    pub backlog_max: Option<u32>,
    /// For a server's connection, the `conn` of its listener; null when not known.
    pub listener: Option<u64>,
    /// The evidence for `listener`; `address` is a guess. When `listener` is null and this field is
    /// not, the kernel named a listener that the trace does not know. Null when the kernel named no
    /// listener and the address does not decide.
    pub listener_source: Option<ListenerSource>,
    /// The order of handshake and accept() that the evidence shows.
    pub verdict: Option<Verdict>,
    /// The verdict as a sentence.
    pub reason: Option<String>,
    /// Whether `reason` follows from the verdict and the times alone.
    #[serde(skip)]
    pub reason_follows: bool,
    /// Explains the wait in the accept queue; absent unless the wait was longer than
    /// the time of `--why`.
    #[serde(flatten)]
    pub late: Option<Box<Late>>,
    /// The events that the verdict rests on, joined with ", ".
    pub evidence: Option<String>,
    /// The last state seen.
    pub state: State,
    /// `conn` of the peer's socket, when the peer is on this host. The peer's socket is found by
    /// mirrored addresses, also in another network namespace unless the addresses are loopback
    /// addresses. Not known if NAT translates an address on the way.
    pub peer_conn: Option<u64>,
    /// When the peer's socket became ESTABLISHED. If the peer is the client, its connect() can
    /// return from this moment.
    pub peer_established_mono_ns: Option<u64>,
    /// How many segments of the handshake (SYN or final ACK) met a full queue of the listener and
    /// were dropped. Null when no hook can show that.
    pub overflows: Option<u32>,
    /// When the first of the segments in `overflows` was dropped, in CLOCK_MONOTONIC nanoseconds.
    pub first_overflow_mono_ns: Option<u64>,
    /// For a client whose segments met a full queue of the listener: the effect on the client, as a
    /// sentence. If no hook sees drops, the sentence names a queue that was full when a SYN got no
    /// answer as the likely cause. A server's explanation is in `reason`.
    pub explanation: Option<String>,
    /// The state in which the kernel keeps the connection without its socket, FIN_WAIT2 or
    /// TIME_WAIT.
    pub bucket: Option<State>,
    /// The error that the connection ended with, as an errno name such as ECONNRESET.
    pub error: Option<Cow<'static, str>>,
    #[serde(flatten)]
    pub ending: Ending,
    /// False when the connection is older than the trace, events were lost while it was open, or
    /// the trace gave it up (`evicted`).
    pub complete: bool,
    /// True when the trace gave the connection up while it was open: more than 1048576 were open,
    /// and this one had been idle for longest. If a later event names the connection, it gets a new
    /// `conn`.
    pub evicted: bool,
}
