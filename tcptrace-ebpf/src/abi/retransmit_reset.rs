//! Records of retransmits and resets.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `tcp:tcp_retransmit_skb`: a full socket has retransmitted a segment. Addresses always follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Retransmit {
    pub sk: u64,
    pub cookie: u64,
    pub netns: u32,
    /// `total_retrans`, including this retransmit.
    pub retransmits: u32,
    pub lport: u16,
    pub rport: u16,
    /// `TCP_*` of include/net/tcp_states.h.
    pub state: u8,
    /// `tcp_skb_cb.tcp_flags`, as in byte 13 of the TCP header (RFC 9293, section 3.1).
    pub tcp_flags: u8,
    pub sections: u8,
    pub reserved: u8,
}

/// `tcp:tcp_send_reset` or `tcp:tcp_receive_reset`: a RST was sent or received. Addresses always
/// follow; the local address is this end's in both directions.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Reset {
    /// A full socket; 0 if the RST answers a segment that matched none.
    pub sk: u64,
    /// The socket's cookie, or 0.
    pub cookie: u64,
    /// Inode of the network namespace, or 0 if unknown.
    pub netns: u32,
    /// `enum sk_rst_reason`, or [`NO_REASON`].
    pub reason: u32,
    pub lport: u16,
    pub rport: u16,
    /// `TCP_*` of include/net/tcp_states.h, 0 without a socket.
    pub state: u8,
    /// 1 for a RST that was sent, 0 for one that was received.
    pub sent: u8,
    pub sections: u8,
    pub reserved: u8,
}

/// [`Reset::reason`] if the kernel gives none.
pub const NO_REASON: u32 = u32::MAX;
