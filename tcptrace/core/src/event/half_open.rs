//! Half-open connections, and the queues of a listener that they wait in.

use super::{ListenQueue, OverflowSegment, Sk, Tuple};

/// Something happened to a request socket: a half-open connection (NEW_SYN_RECV), which becomes a
/// child socket with the final ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Address of the `struct request_sock`. Not an identity by itself, like a socket's.
    pub req: Sk,
    /// The listener; of a Fast Open request whose SYN-ACK is sent again, the child.
    pub sk: Sk,
    /// Inode of the network namespace.
    pub netns: u32,
    /// The server's end first.
    pub tuple: Tuple,
    pub step: RequestStep,
    /// When the first SYN-ACK was built, CLOCK_MONOTONIC in nanoseconds, known to the microsecond:
    /// `tcp_request_sock.snt_synack`. `None` before that, and of a SYN cookie.
    pub synack_ns: Option<u64>,
    /// SYN-ACKs that were sent again, this step's included: `request_sock.num_retrans`.
    pub synack_retransmits: u32,
    /// Half-open requests of the listener.
    pub syn_queue_len: u32,
    /// The SYN's sequence number.
    pub isn: u32,
    /// The listener has TCP_DEFER_ACCEPT: the request waits for data.
    pub defer_accept: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestStep {
    /// The SYN made it (`inet_csk_reqsk_queue_hash_add`).
    Begun,
    /// The child is about to be born: the next birth on this CPU is its.
    Cloning(CloneOf),
    /// Its SYN-ACK is sent again.
    SynackRetransmitted,
    /// It ends without a child.
    Dropped {
        /// By its own timer.
        by_timer: bool,
        /// The listener still listens.
        listening: bool,
    },
}

/// What a child is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloneOf {
    /// A half-open request, by the final ACK.
    Request,
    /// The ACK of a SYN cookie: the kernel had kept nothing.
    Cookie,
    /// A SYN with data (RFC 7413).
    FastOpen,
}

/// A segment met a full queue of its listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overflow {
    pub listener: Sk,
    /// The request that an ACK was to complete.
    pub req: Option<Sk>,
    /// A SYN's sequence number.
    pub isn: Option<u32>,
    pub netns: u32,
    /// The server's end first.
    pub tuple: Tuple,
    pub segment: OverflowSegment,
    pub queue: ListenQueue,
    /// How many that queue holds.
    pub backlog_len: u32,
    /// Its limit; of its part for all peers when `reserve`.
    pub backlog_max: u32,
    /// The SYN queue has room, but only for peers that the kernel knows.
    pub reserve: bool,
    /// The peer gets a RST, as `tcp_abort_on_overflow` wants.
    pub aborted: bool,
}
