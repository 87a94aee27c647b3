//! Reader of `struct sk_buff`: a packet and its TCP header.

use core::marker::PhantomData;

use aya_ebpf::Global;

use crate::globals::*;
use crate::kernel::memory::{Memory, Probed};
use crate::kernel::tuple::{Addrs, In6Addr, Tuple};

/// include/uapi/linux/if_ether.h
const ETH_P_IP: u16 = 0x0800;
const ETH_P_8021Q: u16 = 0x8100;
const ETH_P_IPV6: u16 = 0x86dd;
const ETH_P_8021AD: u16 = 0x88a8;

/// include/uapi/linux/in.h, include/uapi/linux/in6.h
const IPPROTO_HOPOPTS: u8 = 0;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_ROUTING: u8 = 43;
const IPPROTO_FRAGMENT: u8 = 44;
const IPPROTO_DSTOPTS: u8 = 60;

/// Maximum number of IPv6 extension headers before the TCP header.
const EXTENSION_HEADERS: u32 = 4;

/// Control bits, RFC 9293 section 3.1.
pub const FIN: u8 = 1 << 0;
pub const SYN: u8 = 1 << 1;
pub const RST: u8 = 1 << 2;
pub const ACK: u8 = 1 << 4;

/// The IPv4 header without options, RFC 791 section 3.1, in network order.
#[repr(C)]
#[derive(Clone, Copy)]
struct Ipv4 {
    version_ihl: u8,
    tos: u8,
    total_length: u16,
    id: u16,
    flags_fragment: u16,
    ttl: u8,
    protocol: u8,
    checksum: u16,
    source: u32,
    destination: u32,
}

/// The IPv6 header, RFC 8200 section 3, in network order.
#[repr(C)]
#[derive(Clone, Copy)]
struct Ipv6 {
    version_class_label: u32,
    payload_length: u16,
    next_header: u8,
    hop_limit: u8,
    source: In6Addr,
    destination: In6Addr,
}

/// The beginning of an IPv6 extension header, RFC 8200 section 4.
#[repr(C)]
#[derive(Clone, Copy)]
struct Extension {
    next_header: u8,
    /// Length in units of eight bytes, without the first eight. A fragment header has no length.
    length: u8,
    fragment_offset: u16,
}

/// The TCP header without its options, RFC 9293 section 3.1, in network order.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Tcp {
    pub sport: u16,
    pub dport: u16,
    pub seq: u32,
    pub ack: u32,
    data_offset: u8,
    pub flags: u8,
    pub window: u16,
    checksum: u16,
    urgent: u16,
}

/// A TCP segment and its IP addresses.
pub struct Packet {
    is_v4: bool,
    pub source: In6Addr,
    pub destination: In6Addr,
    pub tcp: Tcp,
    /// Length from the TCP header to the end, in bytes.
    len: u32,
}

impl Packet {
    /// Returns the number of bytes behind the TCP header.
    #[inline(always)]
    pub fn payload_len(&self) -> u32 {
        let header = u32::from(self.tcp.data_offset >> 4) * 4;
        self.len.saturating_sub(header)
    }

    /// Returns the addresses as the sender sees them: the source is local.
    #[inline(always)]
    pub fn addrs_at_sender(&self) -> Addrs {
        Addrs::new(self.is_v4, self.source, self.destination)
    }

    /// Returns the addresses as the receiver sees them: the destination is local.
    #[inline(always)]
    pub fn addrs_at_receiver(&self) -> Addrs {
        Addrs::new(self.is_v4, self.destination, self.source)
    }
}

/// A `struct sk_buff`, read by `M`.
pub struct Skb<M> {
    ptr: *const u8,
    memory: PhantomData<M>,
}

impl<M: Memory> Skb<M> {
    #[inline(always)]
    pub fn new(ptr: *const u8) -> Self {
        Skb {
            ptr,
            memory: PhantomData,
        }
    }

    #[inline(always)]
    fn get<T: Copy>(&self, offset: &Global<u32>) -> T {
        // SAFETY: `ptr` is a sk_buff, and every caller names an offset into one.
        unsafe { M::read(self.ptr, offset) }
    }

    /// Reads a pointer that is used with the helper only. The verifier requires a null check of a
    /// pointer that was loaded directly.
    #[inline(always)]
    fn get_address(&self, offset: &Global<u32>) -> *const u8 {
        // SAFETY: as above.
        unsafe { Probed::read(self.ptr, offset) }
    }

    /// Returns the `struct net_device` that the packet arrived at or leaves through.
    #[inline(always)]
    pub fn dev(&self) -> *const u8 {
        self.get_address(&SKB_DEV)
    }

    /// Returns the sending `struct sock`. It is a request_sock for a SYN-ACK, and null for a
    /// forwarded packet.
    #[inline(always)]
    pub fn sk(&self) -> *const u8 {
        self.get_address(&SKB_SK)
    }

    /// Returns the TCP segment in the packet, or `None`. Fragments other than the first have no TCP
    /// header.
    ///
    /// At `net_dev_start_xmit` the network header is set. At `netif_receive_skb` it is not: `data`
    /// points to it, or to a VLAN tag that the device has left in place.
    #[inline(always)]
    pub fn packet(&self, is_sent: bool) -> Option<Packet> {
        let data: *const u8 = self.get(&SKB_DATA);
        let mut protocol = u16::from_be(self.get(&SKB_PROTOCOL));
        let mut ip = data;
        if is_sent {
            ip = self.header(&SKB_NETWORK_HEADER);
        }
        if matches!(protocol, ETH_P_8021Q | ETH_P_8021AD) {
            if !is_sent {
                ip = ip.wrapping_add(4);
            }
            // SAFETY: the EtherType of the tagged payload is right before its header; the helper
            // checks the address.
            protocol = u16::from_be(unsafe { Probed::read_at(ip.wrapping_sub(2).cast()) });
        }
        let len_from = |ip: *const u8| {
            // `len` does not include bytes before `data`.
            let before = (ip as u64).wrapping_sub(data as u64) as u32;
            self.get::<u32>(&SKB_LEN).wrapping_sub(before)
        };
        match protocol {
            ETH_P_IP => ipv4(ip, len_from(ip)),
            ETH_P_IPV6 => ipv6(ip, len_from(ip)),
            _ => None,
        }
    }

    /// Returns the TCP header of a segment that has reached TCP, where both header offsets are set.
    #[inline(always)]
    pub fn tcp_header(&self) -> Tcp {
        // SAFETY: the helper checks the address.
        unsafe { Probed::read_at(self.header(&SKB_TRANSPORT_HEADER)) }
    }

    /// Returns the tuple of such a segment; the receiver's end is local.
    #[inline(always)]
    pub fn receivers_tuple(&self) -> Tuple {
        let at = self.header(&SKB_NETWORK_HEADER);
        let tcp = self.tcp_header();
        // SAFETY: as above.
        let addrs = unsafe {
            if Probed::read_at::<u8>(at) >> 4 == 4 {
                let Ipv4 {
                    source,
                    destination,
                    ..
                } = Probed::read_at(at);
                Addrs::new(
                    true,
                    In6Addr::mapping(destination),
                    In6Addr::mapping(source),
                )
            } else {
                let Ipv6 {
                    source,
                    destination,
                    ..
                } = Probed::read_at(at);
                Addrs::new(false, destination, source)
            }
        };
        Tuple {
            addrs,
            lport: u16::from_be(tcp.dport),
            rport: u16::from_be(tcp.sport),
        }
    }

    /// Returns the address of one of the packet's headers.
    #[inline(always)]
    fn header(&self, offset: &Global<u32>) -> *const u8 {
        let head: *const u8 = self.get(&SKB_HEAD);
        head.wrapping_add(self.get::<u16>(offset).into())
    }
}

/// Returns the `struct net` of a `struct net_device`.
#[inline(always)]
pub fn netns_of(dev: *const u8) -> *const u8 {
    // SAFETY: a packet's device; the helper checks the address.
    unsafe { Probed::read(dev, &DEV_NET) }
}

/// Parses an IPv4 packet. `len` is its length in bytes, including the padding of a short frame.
#[inline(always)]
fn ipv4(at: *const u8, len: u32) -> Option<Packet> {
    // SAFETY: the helper checks the address.
    let ip: Ipv4 = unsafe { Probed::read_at(at) };
    let is_later_fragment = u16::from_be(ip.flags_fragment) & 0x1fff != 0;
    if ip.version_ihl >> 4 != 4 || ip.protocol != IPPROTO_TCP || is_later_fragment {
        return None;
    }
    let header = u32::from(ip.version_ihl & 0xf) * 4;
    let total = match u16::from_be(ip.total_length) {
        // The packet is longer than the field can hold (BIG TCP, Linux 6.3).
        0 => len,
        total => total.into(),
    };
    Some(Packet {
        is_v4: true,
        source: In6Addr::mapping(ip.source),
        destination: In6Addr::mapping(ip.destination),
        // SAFETY: as above.
        tcp: unsafe { Probed::read_at(at.wrapping_add(header as usize)) },
        len: total.saturating_sub(header),
    })
}

#[inline(always)]
fn ipv6(at: *const u8, len: u32) -> Option<Packet> {
    // SAFETY: the helper checks the address.
    let ip: Ipv6 = unsafe { Probed::read_at(at) };
    let mut next = ip.next_header;
    let mut header = size_of::<Ipv6>() as u32;
    for _ in 0..EXTENSION_HEADERS {
        if !matches!(
            next,
            IPPROTO_HOPOPTS | IPPROTO_ROUTING | IPPROTO_FRAGMENT | IPPROTO_DSTOPTS
        ) {
            break;
        }
        // SAFETY: as above.
        let extension: Extension = unsafe { Probed::read_at(at.wrapping_add(header as usize)) };
        if next != IPPROTO_FRAGMENT {
            header += (u32::from(extension.length) + 1) * 8;
        } else if u16::from_be(extension.fragment_offset) & 0xfff8 != 0 {
            return None;
        } else {
            header += 8;
        }
        next = extension.next_header;
    }
    if next != IPPROTO_TCP {
        return None;
    }
    let total = match u16::from_be(ip.payload_length) {
        // The packet is longer than the field can hold (RFC 2675).
        0 => len,
        payload => u32::from(payload) + size_of::<Ipv6>() as u32,
    };
    Some(Packet {
        is_v4: false,
        source: ip.source,
        destination: ip.destination,
        // SAFETY: as above.
        tcp: unsafe { Probed::read_at(at.wrapping_add(header as usize)) },
        len: total.saturating_sub(header),
    })
}
