//! What the kernel notices about a connection: retransmits and resets.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `tcp:tcp_retransmit_skb`: a full socket has sent a segment again. Always followed by
/// addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Retransmit {
    pub sk: u64,
    pub cookie: u64,
    pub netns: u32,
    /// `total_retrans`, this one included.
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

/// `tcp:tcp_send_reset` or `tcp:tcp_receive_reset`. Always followed by addresses; the own end is
/// the local one, whoever sent the RST.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Reset {
    /// A full socket, or 0: the RST answers a segment that no such socket was there for.
    pub sk: u64,
    /// Its cookie, or 0.
    pub cookie: u64,
    /// 0 when it cannot be told.
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

/// [`Reset::reason`] where the kernel gives none.
pub const NO_REASON: u32 = u32::MAX;
