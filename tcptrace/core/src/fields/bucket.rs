//! What lives longer than its socket, or longer than the trace.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Source, Subject};
use crate::event::State;

/// A listener or a connection that is older than the trace, at its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Preexisting {
    /// When it was found, in CLOCK_MONOTONIC nanoseconds.
    pub mono_ns: u64,
    #[serde(flatten)]
    pub subject: Subject,
    /// The state it was in.
    pub state: State,
    /// Connections in a listener's accept queue.
    pub backlog_len: Option<u32>,
    /// The limit of that queue, which holds one more than this.
    pub backlog_max: Option<u32>,
}

/// How a bucket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BucketEnd {
    /// Its time was over: 60 seconds in TIME_WAIT, net.ipv4.tcp_fin_timeout in FIN_WAIT2.
    Expired,
    /// A new connection took its ports: a SYN of the peer, or a connect() (tcp_tw_reuse).
    Reused,
    /// A segment put an end to it: the peer's RST, or data that nobody could take any more.
    Reset,
    /// Its network namespace ended.
    Purged,
    /// A look through the kernel's sockets did not find it any more: how it ended is not known.
    Gone,
}

/// What the kernel kept of a connection after its socket, in FIN_WAIT2 and TIME_WAIT: once, at its
/// end or at the end of the trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TimeWait {
    /// When it ended; the end of the trace when it did not.
    pub mono_ns: u64,
    #[serde(flatten)]
    pub subject: Subject,
    /// The last state seen, FIN_WAIT2 or TIME_WAIT.
    pub state: State,
    /// How long the connection was in FIN_WAIT2, with its socket and without, in nanoseconds; null
    /// when it was not, when that is not over, and when its beginning or end was not seen.
    pub fin_wait2_ns: Option<u64>,
    /// How long it was in TIME_WAIT, in nanoseconds; null as above.
    pub time_wait_ns: Option<u64>,
    /// How it ended; null when it had not when the trace did, or that was not seen.
    pub bucket_end: Option<BucketEnd>,
    /// What its last step was learnt from.
    pub source: Source,
}
