//! The conditions that the kernel programs check: ports, addresses, namespaces, users, cgroups and
//! containers.
//! tcptrace-ebpf/src/filter.rs evaluates them. The conditions that need a socket's owner are in
//! correlate/state/select.rs of tcptrace-core.

mod cgroup;
mod container;
mod netns;
mod network;
mod user;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

pub use cgroup::Cgroup;
pub use container::{ContainerName, ContainerSearch, PodName};
pub use netns::Netns;
pub use network::Network;
pub use user::User;

/// A socket is traced if every given condition holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The local or the remote port is in one of these; empty: any.
    pub ports: Vec<PortRange>,
    /// The local port is in one of these; empty: any.
    pub local_ports: Vec<PortRange>,
    /// The remote port is in one of these; empty: any.
    pub remote_ports: Vec<PortRange>,
    /// The local or the remote address is in one of these; empty: any.
    pub addresses: Vec<Network>,
    /// The local address is in one of these; empty: any.
    pub local_addresses: Vec<Network>,
    /// The remote address is in one of these; empty: any.
    pub remote_addresses: Vec<Network>,
    /// The address family. IPv4-mapped addresses count as IPv4.
    pub family: Option<Family>,
    /// The socket is in one of these network namespaces; empty: any.
    pub netns: Vec<Netns>,
    /// One of these users owns the socket; empty: any.
    pub users: Vec<User>,
    /// The socket belongs to one of these cgroups or to a descendant; empty: any.
    pub cgroups: Vec<Cgroup>,
    /// The socket belongs to one of these containers; empty: any.
    pub containers: Vec<ContainerName>,
    /// The socket belongs to a container of one of these pods; empty: any.
    pub pods: Vec<PodName>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// One port, or `first-last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<PortRange, String> {
        let port = |text: &str| match text.parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err("a port is a number from 1 to 65535, or a range such as 8000-8010"),
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (port(first)?, port(last)?);
        if first > last {
            return Err("a range of ports begins with the smaller one".into());
        }
        Ok(PortRange { first, last })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl Filter {
    /// Returns whether a condition depends on the socket's cgroup.
    pub fn has_cgroups(&self) -> bool {
        !self.cgroups.is_empty() || self.follows_containers()
    }

    /// Returns whether the cgroups of containers that start later belong to the filter.
    pub fn follows_containers(&self) -> bool {
        !(self.containers.is_empty() && self.pods.is_empty())
    }

    /// Returns the conditions by name, as they were given. Empty: everything is traced.
    pub fn describe(&self) -> BTreeMap<&'static str, String> {
        let mut conditions = BTreeMap::new();
        conditions.extend(condition("port", &self.ports));
        conditions.extend(condition("local_port", &self.local_ports));
        conditions.extend(condition("remote_port", &self.remote_ports));
        conditions.extend(condition("address", &self.addresses));
        conditions.extend(condition("local_address", &self.local_addresses));
        conditions.extend(condition("remote_address", &self.remote_addresses));
        conditions.extend(condition("netns", &self.netns));
        conditions.extend(condition("uid", &self.users));
        conditions.extend(condition("cgroup", &self.cgroups));
        conditions.extend(condition("container", &self.containers));
        conditions.extend(condition("pod", &self.pods));
        if let Some(family) = self.family {
            let family = match family {
                Family::V4 => "4",
                Family::V6 => "6",
            };
            conditions.insert("family", family.to_owned());
        }
        conditions
    }
}

/// Returns the name and the values of one condition as they were given, or `None` without values.
fn condition<T: fmt::Display>(name: &'static str, values: &[T]) -> Option<(&'static str, String)> {
    let values: Vec<String> = values.iter().map(T::to_string).collect();
    (!values.is_empty()).then(|| (name, values.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_or_range_is_displayed_as_it_was_given() {
        for text in ["1", "80", "65535", "8000-8010"] {
            assert_eq!(text.parse::<PortRange>().unwrap().to_string(), text);
        }
        assert_eq!("80-80".parse::<PortRange>().unwrap().to_string(), "80");
    }

    #[test]
    fn an_invalid_port_is_refused() {
        for text in [
            "", "0", "65536", "-1", "http", "80-", "-80", "90-80", "8 0", "0-10",
        ] {
            assert!(text.parse::<PortRange>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn conditions_are_described_as_given() {
        let filter = Filter {
            ports: vec!["80".parse().unwrap(), "443-445".parse().unwrap()],
            family: Some(Family::V6),
            users: vec!["root".parse().unwrap(), "12345".parse().unwrap()],
            ..Filter::default()
        };
        let described: Vec<_> = filter.describe().into_iter().collect();
        assert_eq!(
            described,
            [
                ("family", "6".to_owned()),
                ("port", "80,443-445".to_owned()),
                ("uid", "root,12345".to_owned())
            ]
        );
        assert!(Filter::default().describe().is_empty());
    }
}
