//! What a look through the kernel's sockets finds.

use serde::{Deserialize, Serialize};

use super::{Sk, State, Tuple};

/// A socket, or the bucket that is left of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub sk: Sk,
    pub cookie: Option<u64>,
    /// As [`SetState::cgroup`](super::SetState::cgroup); `None` for a bucket.
    pub cgroup: Option<u64>,
    pub netns: u32,
    pub tuple: Tuple,
    /// As [`SetState::scope`](super::SetState::scope).
    pub scope: Option<u32>,
    /// A bucket's is its substate, FIN_WAIT2 or TIME_WAIT.
    pub state: State,
    /// It is a bucket: its socket is gone.
    pub is_bucket: bool,
    /// A process has a descriptor of it.
    pub held: bool,
    /// The user who owns it; `None` for a bucket.
    pub uid: Option<u32>,
    /// The number in that descriptor's `socket:[…]`.
    pub inode: Option<u64>,
    /// `sk_ack_backlog`: connections in a listener's accept queue.
    pub backlog_len: u32,
    /// `sk_max_ack_backlog`: above 0 proves that it is, or was cloned from, a listener.
    pub backlog_max: u32,
}

/// A look through a network namespace is over: what was there all along has been found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Looked {
    pub netns: u32,
    /// When it began, CLOCK_MONOTONIC in nanoseconds.
    pub began_ns: u64,
    /// It is to tell which connections are not as the trace has them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_audit: bool,
    /// It is the one at the end of the trace.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_last: bool,
}
