//! Counters of full queues that the kernel keeps per network namespace.

use serde::{Deserialize, Serialize};

/// The counters of a network namespace, as read from `/proc/PID/net/netstat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetnsCounters {
    /// Inode of the network namespace.
    pub netns: u32,
    /// The counters since the namespace was made.
    pub queues: QueueCounters,
}

/// Counters of `TcpExt`, the sum over all listeners of a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueCounters {
    /// `ListenOverflows`: SYNs and final ACKs that met a full accept queue
    /// (`tcp_conn_request`, `tcp_v4_syn_recv_sock`).
    pub listen_overflows: u64,
    /// `ListenDrops`: SYNs and ACKs that a listener dropped for any reason.
    pub listen_drops: u64,
    /// `TCPReqQFullDrop`: SYNs that met a full SYN queue and were dropped.
    pub syn_queue_drops: u64,
    /// `TCPReqQFullDoCookies`: SYNs that met a full SYN queue and got a SYN cookie.
    pub syn_queue_cookies: u64,
}

impl QueueCounters {
    /// Returns the rise since an earlier reading.
    pub fn since(&self, earlier: &QueueCounters) -> QueueCounters {
        let rise = |of: fn(&QueueCounters) -> u64| of(self).saturating_sub(of(earlier));
        QueueCounters {
            listen_overflows: rise(|it| it.listen_overflows),
            listen_drops: rise(|it| it.listen_drops),
            syn_queue_drops: rise(|it| it.syn_queue_drops),
            syn_queue_cookies: rise(|it| it.syn_queue_cookies),
        }
    }
}
