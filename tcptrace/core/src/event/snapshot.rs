//! Socket snapshots: the sockets that the kernel's iterator over TCP sockets returns.

use serde::{Deserialize, Serialize};

use super::{Sk, State, Tuple};

/// A socket, or a TIME_WAIT bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotEntry {
    /// Address of the socket.
    pub sk: Sk,
    /// The socket cookie; `None` when unknown.
    pub cookie: Option<u64>,
    /// As [`SetState::cgroup`](super::SetState::cgroup); `None` for a bucket.
    pub cgroup: Option<u64>,
    /// Inode of the network namespace.
    pub netns: u32,
    pub tuple: Tuple,
    /// As [`SetState::scope`](super::SetState::scope).
    pub scope: Option<u32>,
    /// The state; for a bucket its substate, FIN_WAIT2 or TIME_WAIT.
    pub state: State,
    /// True for a bucket, whose socket is gone.
    pub is_bucket: bool,
    /// True if a process has a descriptor of the socket.
    pub held: bool,
    /// User id of the socket's owner; `None` for a bucket.
    pub uid: Option<u32>,
    /// The inode number in the descriptor's `socket:[…]` link.
    pub inode: Option<u64>,
    /// `sk_ack_backlog`: connections in a listener's accept queue.
    pub backlog_len: u32,
    /// `sk_max_ack_backlog`: above 0 proves that the socket is, or was cloned from, a listener.
    pub backlog_max: u32,
}

/// The end of a snapshot of one network namespace. Every socket that existed during the whole
/// snapshot has been reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotEnd {
    /// Inode of the network namespace.
    pub netns: u32,
    /// When the snapshot began, CLOCK_MONOTONIC in nanoseconds.
    pub began_ns: u64,
    /// True if the snapshot is compared with the connections of the trace, to find differences.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_audit: bool,
    /// True for the snapshot at the end of the trace.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_last: bool,
}
