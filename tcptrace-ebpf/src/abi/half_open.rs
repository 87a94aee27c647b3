//! Records of request sockets and of listener queue overflows.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An event of a request socket: a half-open connection, from the SYN to the final ACK
/// (NEW_SYN_RECV).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Request {
    /// Address of the `struct request_sock`.
    pub req: u64,
    /// The listening `struct sock`. At [`request_step::SYNACK_RETRANSMITTED`] of a Fast Open
    /// connection, the child.
    pub sk: u64,
    /// `tcp_request_sock.snt_synack`: the time at which the first SYN-ACK was built,
    /// CLOCK_MONOTONIC in microseconds. 0 before that, and if the SYN-ACK was a cookie.
    pub synack_us: u64,
    pub netns: u32,
    /// `icsk_accept_queue.qlen`: the number of the listener's half-open requests.
    pub syn_queue_len: u32,
    /// `tcp_request_sock.rcv_isn`: the SYN's sequence number.
    pub isn: u32,
    pub reserved: u32,
    /// Host order.
    pub lport: u16,
    /// Host order.
    pub rport: u16,
    /// [`request_step`]
    pub step: u8,
    /// `request_sock.num_retrans`: retransmitted SYN-ACKs before this event.
    pub retransmits: u8,
    /// [`request_flag`] bits.
    pub flags: u8,
    pub sections: u8,
}

/// Values of [`Request::step`].
pub mod request_step {
    /// A SYN created the request.
    pub const BEGUN: u8 = 1;
    /// The final ACK arrived. The kernel is about to create the child socket, on this CPU.
    pub const CLONING: u8 = 2;
    /// The ACK of a SYN cookie arrived. Like `CLONING`, but the kernel made the request from the
    /// ACK.
    pub const CLONING_COOKIE: u8 = 3;
    /// A SYN with data arrived. Like `CLONING`, but the request waits beside its child for the
    /// final ACK.
    pub const CLONING_FAST_OPEN: u8 = 4;
    /// The SYN-ACK is retransmitted.
    pub const SYNACK_RETRANSMITTED: u8 = 5;
    /// The request ends without a child.
    pub const DROPPED: u8 = 6;
}

/// Bits of [`Request::flags`].
pub mod request_flag {
    /// DROPPED by the request's timer: the SYN-ACKs went unanswered, or the listener is gone.
    pub const BY_TIMER: u8 = 1 << 0;
    /// The listener is in LISTEN.
    pub const LISTENING: u8 = 1 << 1;
    /// `rskq_defer_accept` is set: the listener has TCP_DEFER_ACCEPT.
    pub const DEFER_ACCEPT: u8 = 1 << 2;
}

/// A segment that arrived at a full queue of its listener.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Overflow {
    /// The listening `struct sock`.
    pub listener: u64,
    /// The `struct request_sock` of the final ACK; 0 for a SYN.
    pub req: u64,
    pub netns: u32,
    /// Number of entries in the queue.
    pub backlog_len: u32,
    /// `sk_max_ack_backlog`, the limit of both queues. With [`overflow_flag::RESERVE`], three
    /// quarters of `net.ipv4.tcp_max_syn_backlog`.
    pub backlog_max: u32,
    /// Host order.
    pub lport: u16,
    /// Host order.
    pub rport: u16,
    /// The SYN's sequence number; 0 for the final ACK.
    pub isn: u32,
    /// [`overflow_flag`] bits.
    pub flags: u8,
    pub sections: u8,
    pub reserved: u16,
}

/// Bits of [`Overflow::flags`].
pub mod overflow_flag {
    /// The segment is a SYN; without this bit it is the final ACK.
    pub const SYN: u8 = 1 << 0;
    /// The SYN queue is full; without this bit it is the accept queue.
    pub const SYN_QUEUE: u8 = 1 << 1;
    /// `tcp_abort_on_overflow` is set: the kernel answers with a RST.
    pub const ABORTED: u8 = 1 << 2;
    /// The rest of the SYN queue is reserved for peers that the kernel has proven before.
    pub const RESERVE: u8 = 1 << 3;
}
