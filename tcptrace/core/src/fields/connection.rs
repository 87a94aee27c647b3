//! The `connection` line.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Ending, HalfOpenEnd, ListenerSource, Source, Subject, Verdict};
use crate::event::State;

/// All that is known of a connection, once, at its end or at the end of the trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Connection {
    /// When it ended; the end of the trace for one that was still open.
    pub mono_ns: u64,
    #[serde(flatten)]
    pub subject: Subject,
    /// When the SYN was sent (client) or received (server); null when not known.
    pub syn_mono_ns: Option<u64>,
    /// What that was learnt from: for a server, `request_sock` is exact, and `srtt` an estimate of
    /// when the SYN-ACK was sent, microseconds later.
    pub syn_source: Option<Source>,
    /// When it became ESTABLISHED: for a server, when the kernel finished the handshake.
    pub established_mono_ns: Option<u64>,
    /// When the accept() that took it was called.
    pub accept_called_mono_ns: Option<u64>,
    /// When the accept() that took it returned.
    pub accepted_mono_ns: Option<u64>,
    /// When it entered CLOSE.
    pub closed_mono_ns: Option<u64>,
    /// From the SYN to ESTABLISHED, in nanoseconds; from the SYN-ACK where syn_source is `srtt`.
    pub handshake_ns: Option<u64>,
    /// How long a server's connection was half-open (NEW_SYN_RECV), in nanoseconds: from the SYN to
    /// the ACK that made its socket, or to its end; null when one of these is not known.
    pub half_open_ns: Option<u64>,
    /// How a half-open connection ended that was never finished; null when that was not seen.
    pub half_open_end: Option<HalfOpenEnd>,
    /// How often the server sent its SYN-ACK again; null when not known.
    pub synack_retransmits: Option<u32>,
    /// Whether the SYN-ACK was a SYN cookie, so that the kernel kept nothing of the SYN; null when
    /// not known.
    pub syncookie: Option<bool>,
    /// Whether the listener had TCP_DEFER_ACCEPT, so that the connection stayed half-open until the
    /// first data; null when not known.
    pub defer_accept: Option<bool>,
    /// Half-open requests of the listener ahead of it when its SYN came; null when not known.
    pub syn_queue_ahead: Option<u32>,
    /// How long it waited in the accept queue: max(0, accepted - established), in nanoseconds.
    pub accept_queue_ns: Option<u64>,
    /// Connections that were queued ahead of it in the accept queue when it was put there.
    pub backlog_ahead: Option<u32>,
    /// The limit of that queue, which holds one more than this.
    pub backlog_max: Option<u32>,
    /// For a server's connection the `conn` of the listener that it was made at; null when not known.
    pub listener: Option<u64>,
    /// How that is known: `address` is a guess. Where `listener` is null, the trace has not met the
    /// listener that the kernel named; null when the kernel named none and the address does not
    /// decide either.
    pub listener_source: Option<ListenerSource>,
    /// What the evidence shows about handshake and accept().
    pub verdict: Option<Verdict>,
    /// The verdict in a sentence.
    pub reason: Option<String>,
    /// Whether `reason` follows from the verdict and the times.
    #[serde(skip)]
    pub reason_follows: bool,
    /// The events the verdict rests on, joined with ", ".
    pub evidence: Option<String>,
    /// The last state seen.
    pub state: State,
    /// `conn` of its other end, when that is on this host too (mirrored addresses; across network
    /// namespaces as well, unless they are loopback addresses). Where an address is translated on
    /// the way (NAT) it is not known.
    pub peer_conn: Option<u64>,
    /// When that became ESTABLISHED: for a client, the moment from which connect() can return.
    pub peer_established_mono_ns: Option<u64>,
    /// How often a segment of it, a SYN or the handshake's final ACK, met a full queue of the
    /// listener and was dropped; null when no hook can show that.
    pub overflows: Option<u32>,
    /// When one first did, in CLOCK_MONOTONIC nanoseconds.
    pub first_overflow_mono_ns: Option<u64>,
    /// For a client whose segments met a full queue: what that did to it, in a sentence. Where no
    /// hook sees that, a queue that was full when a SYN was sent in vain is named as its likely
    /// cause. A server's `reason` says it.
    pub explanation: Option<String>,
    /// The state in which the kernel keeps it after its socket is gone, FIN_WAIT2 or TIME_WAIT.
    pub bucket: Option<State>,
    /// The error it ended with (an errno name such as ECONNRESET).
    pub error: Option<Cow<'static, str>>,
    #[serde(flatten)]
    pub ending: Ending,
    /// False when the trace began after the connection did, lost events while it was open, or gave
    /// it up.
    pub complete: bool,
    /// True when it goes on, but was given up because more than 1048576 connections were open: the
    /// one that had been quiet for longest. If an event names it again, it gets another number.
    pub evicted: bool,
}
