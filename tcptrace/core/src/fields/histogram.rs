//! What `--depth histogram` tells each second.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Side;

/// Connections at one port that went well: a server's were accepted after they were ESTABLISHED,
/// a client's were established, and they ended in good order. A server's that are open when the
/// trace ends count as well. All others have `connection` lines. One line a port and second in
/// which there were any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Histogram {
    /// When they were counted, in CLOCK_MONOTONIC nanoseconds.
    pub mono_ns: u64,
    /// Since when, in nanoseconds.
    pub interval_ns: u64,
    /// server or client.
    pub side: Side,
    /// Inode of the network namespace.
    pub netns: u32,
    /// The listener's port, or the one that the clients connected to.
    pub port: u16,
    /// How many there were.
    pub went_well: u64,
    /// Of these, ESTABLISHED before accept() was called.
    pub queued: Option<u64>,
    /// Of these, those that accept() was waiting for.
    pub awaited: Option<u64>,
    /// `handshake_ns` of their connection lines. Null when it is known of none.
    pub handshake: Option<Times>,
    /// ESTABLISHED to the return of accept().
    pub accept_queue: Option<Times>,
}

/// Times in nanoseconds, each the end of its bucket, so at most an eighth too long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Times {
    /// The median.
    pub p50_ns: u64,
    /// The 99th percentile.
    pub p99_ns: u64,
    /// The longest, exact.
    pub max_ns: u64,
    /// Pairs: the end of a bucket, and how many fell into it. Empty ones are left out.
    pub buckets: Vec<(u64, u64)>,
}
