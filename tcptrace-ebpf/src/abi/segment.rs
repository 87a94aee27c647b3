//! Records of segments on the wire.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Values of [`Segment::direction`].
pub mod direction {
    /// Sent: this end hands the segment to a device.
    pub const OUT: u8 = 1;
    /// Received: this end gets the segment from a device.
    pub const IN: u8 = 2;
}

/// A TCP segment that passed a network device. Addresses always follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Segment {
    /// `sk_buff.sk`, the sender: a `struct sock` or a structure that begins with a `sock_common`. 0
    /// for a received segment.
    pub sk: u64,
    /// Inode of the device's network namespace.
    pub netns: u32,
    /// `net_device.ifindex`
    pub ifindex: u32,
    pub seq: u32,
    /// The acknowledgment number of the header, even without the ACK bit.
    pub ack: u32,
    /// Bytes of payload.
    pub len: u32,
    /// Ports in host order.
    pub lport: u16,
    pub rport: u16,
    /// The header's window field, not scaled.
    pub window: u16,
    /// The control bits as in the header (RFC 9293 section 3.1).
    pub flags: u8,
    /// [`direction`]
    pub direction: u8,
    /// `skc_state` of `sk`, 0 without one.
    pub sk_state: u8,
    pub sections: u8,
    pub reserved: u16,
}
