//! The addresses and ports of a connection.

use tcptrace_ebpf::abi::{Addrs4, Addrs6, link_local};

/// Local and remote address. IPv4 addresses are IPv4-mapped (RFC 4291 section 2.5.5.2).
///
/// Both families share one form, because the unused half of an enum would reach the verifier as an
/// uninitialised register.
#[derive(Clone, Copy)]
pub struct Addrs {
    pub is_v4: bool,
    laddr: In6Addr,
    raddr: In6Addr,
}

impl Addrs {
    /// Returns the addresses of an AF_INET socket. Arguments are in network order.
    #[inline(always)]
    pub fn from_v4(laddr: u32, raddr: u32) -> Addrs {
        Addrs {
            is_v4: true,
            laddr: In6Addr::mapping(laddr),
            raddr: In6Addr::mapping(raddr),
        }
    }

    /// Returns the addresses of an AF_INET6 socket. It uses IPv4 if an address is IPv4-mapped.
    #[inline(always)]
    pub fn from_v6(laddr: In6Addr, raddr: In6Addr) -> Addrs {
        Addrs {
            is_v4: laddr.is_v4_mapped() || raddr.is_v4_mapped(),
            laddr,
            raddr,
        }
    }

    /// Returns the addresses of a packet. The IP header has the family.
    #[inline(always)]
    pub fn new(is_v4: bool, laddr: In6Addr, raddr: In6Addr) -> Addrs {
        Addrs {
            is_v4,
            laddr,
            raddr,
        }
    }

    /// Puts the index of the bound device into link-local addresses, see `abi::link_local`.
    #[inline(always)]
    pub fn with_device(self, device: impl FnOnce() -> u32) -> Addrs {
        if !self.laddr.is_link_local() && !self.raddr.is_link_local() {
            return self;
        }
        let device = device();
        Addrs {
            laddr: self.laddr.with_device(device),
            raddr: self.raddr.with_device(device),
            ..self
        }
    }

    #[inline(always)]
    pub fn as_v4(self) -> Addrs4 {
        Addrs4 {
            laddr: self.laddr.last_four(),
            raddr: self.raddr.last_four(),
        }
    }

    #[inline(always)]
    pub fn as_v6(self) -> Addrs6 {
        Addrs6 {
            laddr: self.laddr.bytes(),
            raddr: self.raddr.bytes(),
        }
    }
}

/// The 4-tuple of a connection. Ports are in host order, and 0 until the kernel has set them.
#[derive(Clone, Copy)]
pub struct Tuple {
    pub addrs: Addrs,
    pub lport: u16,
    pub rport: u16,
}

/// `struct in6_addr` in two loads.
#[derive(Clone, Copy)]
pub struct In6Addr([u64; 2]);

impl In6Addr {
    /// Returns the IPv4-mapped address of `v4`, which is in network order.
    #[inline(always)]
    pub fn mapping(v4: u32) -> In6Addr {
        In6Addr([0, (0xffff << 32 | u64::from(u32::from_be(v4))).to_be()])
    }

    #[inline(always)]
    pub fn words(&self) -> [u64; 2] {
        self.0
    }

    /// Returns whether the address is in ::ffff:0:0/96 (RFC 4291 section 2.5.5.2).
    #[inline(always)]
    fn is_v4_mapped(&self) -> bool {
        self.0[0] == 0 && (u64::from_be(self.0[1]) >> 32) == 0xffff
    }

    /// Returns whether the address is in fe80::/64, the only part of fe80::/10 in use (RFC 4291
    /// section 2.5.6).
    #[inline(always)]
    fn is_link_local(&self) -> bool {
        self.0[0] == link_local::NONE.to_be()
    }

    #[inline(always)]
    fn with_device(self, device: u32) -> In6Addr {
        if device == 0 || !self.is_link_local() {
            return self;
        }
        In6Addr([(link_local::MARKED | u64::from(device)).to_be(), self.0[1]])
    }

    #[inline(always)]
    fn last_four(&self) -> [u8; 4] {
        (u64::from_be(self.0[1]) as u32).to_be_bytes()
    }

    #[inline(always)]
    fn bytes(&self) -> [u8; 16] {
        // SAFETY: two u64 are sixteen bytes.
        unsafe { core::mem::transmute(self.0) }
    }
}
