//! The filter options. A socket is traced if every given condition holds.

use clap::Args;

use crate::correlate::Selection;
use crate::event::{Comm, State};
use crate::fields::Side;
use crate::filter::{
    Cgroup, ContainerName, Family, Filter, Netns, Network, PodName, PortRange, User,
};

#[derive(Debug, Args)]
pub struct Filters {
    /// This local or remote port, or a range of them
    #[arg(short, long = "port", value_name = "PORTS", value_delimiter = ',')]
    pub ports: Vec<PortRange>,

    /// This local port
    #[arg(
        short = 'L',
        long = "local-port",
        value_name = "PORTS",
        value_delimiter = ','
    )]
    pub local_ports: Vec<PortRange>,

    /// This remote port
    #[arg(
        short = 'D',
        long = "remote-port",
        value_name = "PORTS",
        value_delimiter = ','
    )]
    pub remote_ports: Vec<PortRange>,

    /// This local or remote address, or a network of them such as 10.0.0.0/8
    #[arg(
        long = "address",
        value_name = "CIDR",
        value_delimiter = ',',
        hide_short_help = true
    )]
    pub addresses: Vec<Network>,

    /// This local address
    #[arg(
        long = "local-address",
        value_name = "CIDR",
        value_delimiter = ',',
        hide_short_help = true
    )]
    pub local_addresses: Vec<Network>,

    /// This remote address
    #[arg(
        long = "remote-address",
        value_name = "CIDR",
        value_delimiter = ',',
        hide_short_help = true
    )]
    pub remote_addresses: Vec<Network>,

    /// IPv4 (IPv4-mapped connections included)
    #[arg(
        short = '4',
        long = "ipv4",
        conflicts_with = "ipv6",
        hide_short_help = true
    )]
    pub ipv4: bool,

    /// IPv6
    #[arg(short = '6', long = "ipv6", hide_short_help = true)]
    pub ipv6: bool,

    /// This network namespace: self, a name of `ip netns`, an inode, or a file /proc/PID/ns/net
    #[arg(
        long,
        value_name = "NETNS",
        value_delimiter = ',',
        hide_short_help = true
    )]
    pub netns: Vec<Netns>,

    /// The user who owns the socket, by name or id
    #[arg(
        long = "uid",
        value_name = "USER",
        value_delimiter = ',',
        hide_short_help = true
    )]
    pub users: Vec<User>,

    /// This cgroup (version 2) and all inside it: a directory of cgroupfs, or an id
    #[arg(
        long = "cgroup",
        value_name = "CGROUP",
        value_delimiter = ',',
        hide_short_help = true
    )]
    pub cgroups: Vec<Cgroup>,

    /// This container: its name, or its id of at least 12 digits
    #[arg(
        long = "container",
        value_name = "NAME|ID",
        value_delimiter = ',',
        conflicts_with = "cgroups",
        hide_short_help = true
    )]
    pub containers: Vec<ContainerName>,

    /// The containers of this Kubernetes pod
    #[arg(
        long = "pod",
        value_name = "NAME[.NAMESPACE]",
        value_delimiter = ',',
        conflicts_with = "cgroups",
        hide_short_help = true
    )]
    pub pods: Vec<PodName>,

    #[command(flatten)]
    pub selecting: Selecting,
}

/// The conditions that need the socket's owner. A replay of a recording can apply them too.
#[derive(Debug, Args)]
pub struct Selecting {
    /// The process that connected, listens or accepted, as `ps` numbers it
    #[arg(
        long = "pid",
        value_name = "PID",
        value_delimiter = ',',
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub pids: Vec<u32>,

    /// The name of that process, or of the thread that made the call
    #[arg(long = "comm", value_name = "NAME", value_delimiter = ',', value_parser = comm)]
    pub comms: Vec<Comm>,

    /// The socket's side: client, server or listener
    #[arg(long = "side", value_name = "SIDE", value_delimiter = ',', value_parser = side, hide_short_help = true)]
    pub sides: Vec<Side>,

    /// Only events in this state, including its beginning and its end, and connections that were in
    /// it
    #[arg(long = "state", value_name = "STATE", value_delimiter = ',', value_parser = state, hide_short_help = true)]
    pub states: Vec<State>,
}

impl Filters {
    /// Returns the conditions that the kernel programs check.
    pub fn filter(&self) -> Filter {
        let family = match (self.ipv4, self.ipv6) {
            (true, _) => Some(Family::V4),
            (_, true) => Some(Family::V6),
            _ => None,
        };
        Filter {
            ports: self.ports.clone(),
            local_ports: self.local_ports.clone(),
            remote_ports: self.remote_ports.clone(),
            addresses: self.addresses.clone(),
            local_addresses: self.local_addresses.clone(),
            remote_addresses: self.remote_addresses.clone(),
            family,
            netns: self.netns.clone(),
            users: self.users.clone(),
            cgroups: self.cgroups.clone(),
            containers: self.containers.clone(),
            pods: self.pods.clone(),
        }
    }

    /// Returns the conditions that the correlator checks, because they need the socket's owner.
    pub fn selection(&self) -> Selection {
        Selection {
            traced_only: !self.users.is_empty() || self.filter().has_cgroups(),
            ..self.selecting.selection()
        }
    }
}

impl Selecting {
    pub fn selection(&self) -> Selection {
        Selection {
            pids: self.pids.clone(),
            comms: self.comms.clone(),
            sides: self.sides.clone(),
            states: self.states.clone(),
            traced_only: false,
        }
    }
}

/// Parses a thread's name. The kernel keeps 15 bytes of it (TASK_COMM_LEN).
fn comm(text: &str) -> Result<Comm, String> {
    match text.len() {
        1..=15 => Ok(Comm::from(text)),
        0 => Err("a thread's name has at least one byte".into()),
        _ => {
            let kept = Comm::from(text);
            Err(format!(
                "the kernel keeps the first 15 bytes of a thread's name: {kept}"
            ))
        }
    }
}

fn side(text: &str) -> Result<Side, String> {
    match text {
        "client" => Ok(Side::Client),
        "server" => Ok(Side::Server),
        "listener" => Ok(Side::Listener),
        _ => Err("a side is client, server or listener".into()),
    }
}

/// Parses a state's name in the kernel's or in `ss`'s spelling, in any case.
fn state(text: &str) -> Result<State, String> {
    let known = State::ALL.into_iter();
    let mut known = known.filter(|&state| state != State::BoundInactive);
    let plain = |name: &str| name.replace(['-', '_'], "").to_ascii_uppercase();
    let named = plain(text);
    let alias = match named.as_str() {
        "ESTAB" => "ESTABLISHED",
        "CLOSED" | "UNCONN" => "CLOSE",
        other => other,
    };
    known
        .find(|state| plain(state.name()) == alias)
        .ok_or_else(|| {
            let names: Vec<&str> = State::ALL[..12].iter().map(|state| state.name()).collect();
            format!("a state is one of {}", names.join(", "))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_accepted_in_the_spelling_of_the_kernel_and_of_ss() {
        for (text, meant) in [
            ("SYN_SENT", State::SynSent),
            ("SYN-SENT", State::SynSent),
            ("syn-sent", State::SynSent),
            ("FIN_WAIT1", State::FinWait1),
            ("FIN-WAIT-1", State::FinWait1),
            ("ESTAB", State::Established),
            ("time_wait", State::TimeWait),
            ("CLOSED", State::Close),
            ("NEW_SYN_RECV", State::NewSynRecv),
        ] {
            assert_eq!(state(text), Ok(meant), "{text}");
        }
        for text in ["", "SYN", "LISTENING", "BOUND_INACTIVE", "FIN_WAIT3"] {
            assert!(state(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_thread_name_longer_than_15_bytes_is_refused_with_the_name_that_fits() {
        assert_eq!(comm("nginx"), Ok(Comm::from("nginx")));
        assert!(comm("fifteen-bytes-x").is_ok());
        let error = comm("systemd-resolved").unwrap_err();
        assert!(error.ends_with(": systemd-resolve"), "{error}");
        assert!(comm("").is_err());
    }
}
