//! Segments on the wire.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What [`Segment::direction`] can be.
pub mod direction {
    /// On its way to a device: the own end sent it.
    pub const OUT: u8 = 1;
    /// From a device: the own end is to receive it.
    pub const IN: u8 = 2;
}

/// A TCP segment passed a network device. Always followed by addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Segment {
    /// `sk_buff.sk`: who sent it, a `struct sock` or what begins like one. 0 for a received one.
    pub sk: u64,
    /// Inode of the device's network namespace.
    pub netns: u32,
    /// `net_device.ifindex`
    pub ifindex: u32,
    pub seq: u32,
    /// The header's field, whether the flag says that it means something or not.
    pub ack: u32,
    /// Bytes of payload.
    pub len: u32,
    /// Ports in host order.
    pub lport: u16,
    pub rport: u16,
    /// As in the header: not scaled.
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
