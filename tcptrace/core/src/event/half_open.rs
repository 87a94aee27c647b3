//! Half-open connections, and the listener's queues that they wait in.

use super::{ListenQueue, OverflowSegment, Sk, Tuple};

/// An event of a request socket: a half-open connection (NEW_SYN_RECV), which becomes a child
/// socket with the final ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Address of the `struct request_sock`. The kernel reuses the address, so it does not identify
    /// the request socket.
    pub req: Sk,
    /// Address of the listener; for a Fast Open connection whose SYN-ACK is retransmitted, of the
    /// child socket.
    pub sk: Sk,
    /// Inode of the network namespace.
    pub netns: u32,
    /// The server's address first.
    pub tuple: Tuple,
    pub step: RequestStep,
    /// When the first SYN-ACK was built, CLOCK_MONOTONIC in nanoseconds with a resolution of one
    /// microsecond (`tcp_request_sock.snt_synack`). `None` before that, and for a SYN cookie.
    pub synack_ns: Option<u64>,
    /// SYN-ACK retransmissions so far, including one in this step: `request_sock.num_retrans`.
    pub synack_retransmits: u32,
    /// Number of half-open connections of the listener.
    pub syn_queue_len: u32,
    /// The SYN's sequence number.
    pub isn: u32,
    /// True if the listener has TCP_DEFER_ACCEPT: the connection stays half-open until data comes.
    pub defer_accept: bool,
}

/// A step of a request socket, from its begin to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestStep {
    /// The SYN made the request socket (`inet_csk_reqsk_queue_hash_add`).
    Begun,
    /// The child socket is about to be cloned. The next socket that is cloned on this CPU is this
    /// child socket.
    Cloning(CloneOf),
    /// The SYN-ACK is retransmitted.
    SynackRetransmitted,
    /// The request socket ends without a child socket.
    Dropped {
        /// True if the request socket's own timer dropped it.
        by_timer: bool,
        /// True if the listener still listens.
        listening: bool,
    },
}

/// The origin of a child socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloneOf {
    /// A request socket, when the final ACK arrives.
    Request,
    /// The ACK of a SYN cookie. The kernel kept no request socket.
    Cookie,
    /// A SYN with data: TCP Fast Open (RFC 7413).
    FastOpen,
}

/// A segment met a full queue of its listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow {
    /// Address of the listener.
    pub listener: Sk,
    /// The request socket that a dropped ACK would have completed; `None` for a SYN.
    pub req: Option<Sk>,
    /// The sequence number of a dropped SYN; `None` for an ACK.
    pub isn: Option<u32>,
    /// Inode of the network namespace.
    pub netns: u32,
    /// The server's address first.
    pub tuple: Tuple,
    /// The segment that met the full queue.
    pub segment: OverflowSegment,
    /// The full queue.
    pub queue: ListenQueue,
    /// Number of entries in the full queue.
    pub backlog_len: u32,
    /// The queue's limit; with `reserve` the limit of the part that is open to all peers.
    pub backlog_max: u32,
    /// True if the SYN queue has room only for peers with which this host has had connections
    /// before.
    pub reserve: bool,
    /// True if the kernel sends a RST (`tcp_abort_on_overflow`).
    pub aborted: bool,
}
