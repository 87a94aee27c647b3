//! What the kernel itself counts of full queues.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The counters in /proc/net/netstat of a network namespace that has a traced listener. They count
/// for all listeners of the namespace, whatever the filters say, and on every kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetnsCounters {
    /// Inode of the network namespace.
    pub netns: u32,
    /// The rise from the first reading in the trace to the last one; null when there are no two,
    /// because no process of the namespace was found.
    pub at_least: Option<QueueCounters>,
    /// The rise between two readings that enclose the trace; null when there are none, because the
    /// namespace began or ended meanwhile, or no process of it was found.
    pub at_most: Option<QueueCounters>,
    /// `conn` of the listener whose accept queue is likely to be the one that overflowed: no other
    /// traced one was seen full whenever ListenOverflows rose. Null when several were, or none.
    pub likely_listener: Option<u64>,
}

/// How much some counters of TcpExt rose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueueCounters {
    /// ListenOverflows: SYNs and final ACKs dropped at a full accept queue.
    pub listen_overflows: u64,
    /// ListenDrops: SYNs and ACKs that a listener dropped, for any reason, that one included.
    pub listen_drops: u64,
    /// TCPReqQFullDrop: SYNs dropped at a full SYN queue.
    pub syn_queue_drops: u64,
    /// TCPReqQFullDoCookies: SYNs that met a full SYN queue and were answered with a SYN cookie.
    pub syn_queue_cookies: u64,
}
