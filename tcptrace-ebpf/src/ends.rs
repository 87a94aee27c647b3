//! Who talks to whom, as the filter looks at it and as records tell it.

use tcptrace_ebpf::abi::{Addrs4, Addrs6};

/// Both ends' addresses, IPv4 ones IPv4-mapped (RFC 4291 section 2.5.5.2).
///
/// One form for both families, not an enum: the unused half of one would reach the verifier as
/// an uninitialised register.
#[derive(Clone, Copy)]
pub struct Addrs {
    pub is_v4: bool,
    laddr: In6Addr,
    raddr: In6Addr,
}

impl Addrs {
    /// Of an AF_INET socket, in network order.
    #[inline(always)]
    pub fn of_v4(laddr: u32, raddr: u32) -> Addrs {
        Addrs {
            is_v4: true,
            laddr: In6Addr::mapping(laddr),
            raddr: In6Addr::mapping(raddr),
        }
    }

    /// Of an AF_INET6 socket, which speaks IPv4 where an address is IPv4-mapped.
    #[inline(always)]
    pub fn of_v6(laddr: In6Addr, raddr: In6Addr) -> Addrs {
        Addrs {
            is_v4: laddr.is_v4_mapped() || raddr.is_v4_mapped(),
            laddr,
            raddr,
        }
    }

    /// From a packet's addresses, which say their family themselves.
    #[inline(always)]
    pub fn new(is_v4: bool, laddr: In6Addr, raddr: In6Addr) -> Addrs {
        Addrs {
            is_v4,
            laddr,
            raddr,
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

/// What the filter looks at. Ports in host order, 0 while the kernel has not set them.
#[derive(Clone, Copy)]
pub struct Ends {
    pub addrs: Addrs,
    pub lport: u16,
    pub rport: u16,
}

/// `struct in6_addr` in two loads.
#[derive(Clone, Copy)]
pub struct In6Addr([u64; 2]);

impl In6Addr {
    /// `v4` is in network order, as the kernel keeps it.
    #[inline(always)]
    pub fn mapping(v4: u32) -> In6Addr {
        In6Addr([0, (0xffff << 32 | u64::from(u32::from_be(v4))).to_be()])
    }

    #[inline(always)]
    pub fn words(&self) -> [u64; 2] {
        self.0
    }

    /// ::ffff:0:0/96, RFC 4291 section 2.5.5.2.
    #[inline(always)]
    fn is_v4_mapped(&self) -> bool {
        self.0[0] == 0 && (u64::from_be(self.0[1]) >> 32) == 0xffff
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
