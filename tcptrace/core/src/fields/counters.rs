//! The kernel's own counters of full queues, for the summary line.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Counters of a network namespace that has a traced listener, from /proc/net/netstat. They cover
/// all listeners of the namespace, whatever the filters are, and exist on every kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetnsCounters {
    /// Inode of the network namespace.
    pub netns: u32,
    /// How much the counters rose from the first reading within the trace to the last, a lower
    /// bound. Null when there are not two readings, because no process of the namespace was found.
    pub at_least: Option<QueueCounters>,
    /// How much the counters rose between two readings that enclose the trace, an upper bound. Null
    /// when one of these readings is missing: the namespace began or ended meanwhile, or no process
    /// of it was found.
    pub at_most: Option<QueueCounters>,
    /// `conn` of the listener whose accept queue probably overflowed: the only traced listener
    /// whose queue was full whenever ListenOverflows rose. Null when several listeners, or none,
    /// were full each time.
    pub likely_listener: Option<u64>,
}

/// How much some TcpExt counters rose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueueCounters {
    /// ListenOverflows: SYNs and final ACKs dropped at a full accept queue.
    pub listen_overflows: u64,
    /// ListenDrops: SYNs and ACKs that a listener dropped for any reason, a full accept queue included.
    pub listen_drops: u64,
    /// TCPReqQFullDrop: SYNs dropped at a full SYN queue.
    pub syn_queue_drops: u64,
    /// TCPReqQFullDoCookies: SYNs that met a full SYN queue and were answered with a SYN cookie.
    pub syn_queue_cookies: u64,
}
