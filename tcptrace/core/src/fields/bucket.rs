//! Lines for sockets older than the trace and for TIME_WAIT buckets.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Source, Subject};
use crate::event::State;

/// A listener or a connection that existed when the trace began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Preexisting {
    /// When the socket was found, in CLOCK_MONOTONIC nanoseconds.
    pub mono_ns: u64,
    #[serde(flatten)]
    pub subject: Subject,
    /// The state of the socket.
    pub state: State,
    /// Connections in a listener's accept queue; null for other sockets.
    pub backlog_len: Option<u32>,
    /// The limit of the accept queue, which holds one connection more than this.
    pub backlog_max: Option<u32>,
}

/// The end of a TIME_WAIT bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BucketEnd {
    /// The bucket's timer expired: 60 seconds in TIME_WAIT, net.ipv4.tcp_fin_timeout in FIN_WAIT2.
    Expired,
    /// A new connection took the ports: a SYN of the peer, or a connect() (tcp_tw_reuse).
    Reused,
    /// A segment ended the bucket: the peer's RST, or data that no process can read any more.
    Reset,
    /// The network namespace ended.
    Purged,
    /// A snapshot of the kernel's sockets no longer has the bucket. How it ended is not known.
    Gone,
}

/// A bucket (`inet_timewait_sock`): the small record in which the kernel keeps a closed connection
/// in FIN_WAIT2 or TIME_WAIT. The line is written once, when the bucket ends or the trace does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TimeWait {
    /// When the bucket ended, or the end of the trace, in CLOCK_MONOTONIC nanoseconds.
    pub mono_ns: u64,
    #[serde(flatten)]
    pub subject: Subject,
    /// The last state seen, FIN_WAIT2 or TIME_WAIT.
    pub state: State,
    /// Time in FIN_WAIT2, with the socket and without, in nanoseconds. Null when the connection was
    /// never in FIN_WAIT2 or still is, and when the entry or the exit was not seen.
    pub fin_wait2_ns: Option<u64>,
    /// Time in TIME_WAIT, in nanoseconds; null as for `fin_wait2_ns`.
    pub time_wait_ns: Option<u64>,
    /// How the bucket ended; null when that was not seen or the trace ended first.
    pub bucket_end: Option<BucketEnd>,
    /// The source of the bucket's last change, such as its end.
    pub source: Source,
}
