//! Address filters in CIDR notation: `10.0.0.0/8`, `2001:db8::/32`, `127.0.0.1`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// A network: all addresses with a common prefix. IPv4-mapped addresses count as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The first address of the network.
    pub addr: IpAddr,
    /// Length of the prefix in bits; 32 or 128 for a single address.
    pub bits: u8,
}

/// Length of the prefix of IPv4-mapped IPv6 addresses (RFC 4291 section 2.5.5.2).
const MAPPING: u8 = 96;

impl Network {
    /// Returns the form of the kernel programs: the first address in network byte order and the
    /// prefix length. IPv4 addresses become IPv4-mapped.
    pub fn as_v6(&self) -> ([u8; 16], u8) {
        match self.addr {
            IpAddr::V4(addr) => (addr.to_ipv6_mapped().octets(), MAPPING + self.bits),
            IpAddr::V6(addr) => (addr.octets(), self.bits),
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Network, String> {
        let (addr, bits) = match text.split_once('/') {
            Some((addr, bits)) => (addr, Some(bits)),
            None => (text, None),
        };
        let wrong =
            "give an address such as 10.1.2.3 or ::1, or a network such as 10.0.0.0/8 or fd00::/8";
        let addr: IpAddr = addr.parse().map_err(|_| wrong)?;
        let most = if addr.is_ipv4() { 32 } else { 128 };
        let bits = match bits.map(str::parse::<u8>) {
            None => most,
            Some(Ok(bits)) if bits <= most => bits,
            Some(_) => return Err(format!("the prefix length after the / is from 0 to {most}")),
        };
        let network = match addr {
            IpAddr::V6(v6) if bits >= MAPPING && v6.to_ipv4_mapped().is_some() => Network {
                addr: v6.to_canonical(),
                bits: bits - MAPPING,
            },
            addr => Network { addr, bits },
        };
        let first = network.first();
        if network.addr != first {
            let bits = network.bits;
            return Err(format!("the network of that address is {first}/{bits}"));
        }
        Ok(network)
    }
}

impl Network {
    /// Returns the first address: the bits after the prefix are 0.
    fn first(&self) -> IpAddr {
        let (addr, bits) = self.as_v6();
        let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
        let first = Ipv6Addr::from(u128::from_be_bytes(addr) & mask);
        match self.addr {
            IpAddr::V4(_) => first.to_canonical(),
            IpAddr::V6(_) => first.into(),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.addr, self.bits) {
            (IpAddr::V4(addr), 32) => write!(f, "{addr}"),
            (IpAddr::V6(addr), 128) => write!(f, "{addr}"),
            (addr, bits) => write!(f, "{addr}/{bits}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_displayed_in_its_shortest_form() {
        for text in [
            "127.0.0.1",
            "10.0.0.0/8",
            "0.0.0.0/0",
            "::1",
            "fd00::/8",
            "::/0",
            "2001:db8::/33",
        ] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        for (text, shown) in [
            ("10.1.2.3/32", "10.1.2.3"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:127.0.0.1", "127.0.0.1"),
        ] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn an_invalid_network_is_refused() {
        for text in [
            "",
            "/",
            "10",
            "10.0.0/8",
            "10.0.0.0/33",
            "10.0.0.0/",
            "::/129",
            "fd00::/-1",
            "lo",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_address_with_host_bits_is_refused_and_the_error_names_its_network() {
        let error = |text: &str| text.parse::<Network>().unwrap_err();
        assert!(error("10.1.2.3/8").contains("10.0.0.0/8"));
        assert!(error("fd00::1/64").contains("fd00::/64"));
    }

    #[test]
    fn an_ipv4_network_becomes_ipv4_mapped_for_the_kernel() {
        let network: Network = "10.0.0.0/8".parse().unwrap();
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 0];
        assert_eq!(network.as_v6(), (mapped, 104));
    }
}
