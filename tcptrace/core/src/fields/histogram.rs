//! The `histogram` line of `--depth histogram`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{LateTimes, Side};

/// The connections at one port that went well during an interval. A client's connection went well
/// if it was ESTABLISHED and ended in good order. A server's must also have been accepted after it
/// was ESTABLISHED. A server's connections that are open when the trace ends count as well. All
/// others have `connection` lines. There is one line per port and second with any such connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Histogram {
    /// End of the interval, in CLOCK_MONOTONIC nanoseconds.
    pub mono_ns: u64,
    /// Length of the interval, in nanoseconds.
    pub interval_ns: u64,
    /// server or client.
    pub side: Side,
    /// Inode of the network namespace.
    pub netns: u32,
    /// The listener's port, or the port that the clients connected to.
    pub port: u16,
    /// Number of connections that went well.
    pub went_well: u64,
    /// Those with the verdict `queued`: ESTABLISHED before accept() was called.
    pub queued: Option<u64>,
    /// Those with the verdict `awaited`: accept() was already waiting.
    pub awaited: Option<u64>,
    /// Distribution of `handshake_ns` (see `connection`); null when no connection has a known time.
    pub handshake: Option<Times>,
    /// Distribution of the time from ESTABLISHED to the return of accept().
    pub accept_queue: Option<Times>,
    /// The long waits of these connections by reason; absent without `--why`, and for clients.
    #[serde(flatten)]
    pub late: Option<LateTimes>,
}

/// A distribution of times in nanoseconds. Each value is the upper end of its histogram bucket, so
/// at most an eighth too large.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Times {
    /// The median.
    pub p50_ns: u64,
    /// The 99th percentile.
    pub p99_ns: u64,
    /// The longest time, exact.
    pub max_ns: u64,
    /// Pairs of a histogram bucket's upper end and its count. Empty buckets are left out.
    pub buckets: Vec<(u64, u64)>,
}
