//! Request sockets and the queues of a listener.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A request socket: a half-open connection, from the SYN to the final ACK (NEW_SYN_RECV).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Request {
    /// Address of the `struct request_sock`.
    pub req: u64,
    /// The listening `struct sock`; at [`request_step::SYNACK_RETRANSMITTED`] of a Fast Open
    /// connection the child.
    pub sk: u64,
    /// `tcp_request_sock.snt_synack`: when the first SYN-ACK was built, CLOCK_MONOTONIC in
    /// microseconds; 0 when it was not, or when the SYN-ACK was a cookie.
    pub synack_us: u64,
    pub netns: u32,
    /// `icsk_accept_queue.qlen`: half-open requests of the listener.
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
    /// `request_sock.num_retrans`: SYN-ACKs that were sent again before this.
    pub retransmits: u8,
    /// [`request_flag`] bits.
    pub flags: u8,
    pub sections: u8,
}

/// What happens to a request socket: [`Request::step`].
pub mod request_step {
    /// The SYN made it.
    pub const BEGUN: u8 = 1;
    /// The final ACK came; the kernel is about to make the child socket, on this CPU.
    pub const CLONING: u8 = 2;
    /// The ACK of a SYN cookie came; as above, of a request that did not exist before.
    pub const CLONING_COOKIE: u8 = 3;
    /// A SYN with data came; as above, of a request that waits beside its child.
    pub const CLONING_FAST_OPEN: u8 = 4;
    /// Its SYN-ACK is sent again.
    pub const SYNACK_RETRANSMITTED: u8 = 5;
    /// It ends without a child.
    pub const DROPPED: u8 = 6;
}

/// Bits of [`Request::flags`].
pub mod request_flag {
    /// DROPPED by its own timer: the SYN-ACKs went unanswered, or the listener is gone.
    pub const BY_TIMER: u8 = 1 << 0;
    /// The listener is in LISTEN.
    pub const LISTENING: u8 = 1 << 1;
    /// `rskq_defer_accept` is set: the listener has TCP_DEFER_ACCEPT.
    pub const DEFER_ACCEPT: u8 = 1 << 2;
}

/// A segment met a full queue of its listener.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Overflow {
    /// The listening `struct sock`.
    pub listener: u64,
    /// The `struct request_sock` that the ACK was to complete; 0 for a SYN.
    pub req: u64,
    pub netns: u32,
    /// How many the queue holds.
    pub backlog_len: u32,
    /// `sk_max_ack_backlog`, the limit of both queues; with [`overflow_flag::RESERVE`] three
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
    /// The segment is the SYN; else it is the final ACK.
    pub const SYN: u8 = 1 << 0;
    /// The SYN queue is full; else it is the accept queue.
    pub const SYN_QUEUE: u8 = 1 << 1;
    /// `tcp_abort_on_overflow`: the peer gets a RST.
    pub const ABORTED: u8 = 1 << 2;
    /// The SYN queue has room, but only for peers that the kernel knows.
    pub const RESERVE: u8 = 1 << 3;
}
