//! Filters by address.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;

const OTHERS: Ipv4Addr = Ipv4Addr::LOCALHOST;
const WANTED: Ipv4Addr = Ipv4Addr::new(127, 1, 2, 3);
const NETWORK: &str = "127.1.0.0/16";

fn is_wanted(line: &Line, field: &str) -> bool {
    line[field] == WANTED.to_string()
}

/// Connects to each address with this filter.
fn talk_to_both(filter: &str, ends: usize, wanted: impl Fn(&Tuple) -> bool) -> Trace {
    let lab = Lab::new();
    let (a, b) = (lab.port(), lab.port());
    let tracer = lab.trace_with(&[filter, NETWORK]);
    talk_at((OTHERS, a).into());
    talk_at((WANTED, b).into());
    sides(tracer, ends, wanted)
}

#[test]
fn an_address_filter_matches_local_and_remote_addresses() {
    let trace = talk_to_both("--address", 2, |tuple| {
        tuple.laddr == WANTED || tuple.raddr == WANTED
    });
    shows_only(&trace, |line| {
        is_wanted(line, "laddr") || is_wanted(line, "raddr")
    });
    trace.server().shows(&[("verdict", &"queued")]);
    trace.client().shows(&[("complete", &true)]);
}

#[test]
fn a_local_address_selects_the_server_side() {
    let trace = talk_to_both("--local-address", 1, |tuple| tuple.laddr == WANTED);
    shows_only(&trace, |line| is_wanted(line, "laddr"));
    trace.server().shows(&[("complete", &true)]);
    assert!(trace.connections("client").is_empty());
}

#[test]
fn a_remote_address_selects_the_client_side() {
    let trace = talk_to_both("--remote-address", 1, |tuple| tuple.raddr == WANTED);
    shows_only(&trace, |line| is_wanted(line, "raddr"));
    trace.client().shows(&[("complete", &true)]);
    assert!(trace.accepts().is_empty());
}

/// An IPv4-mapped address counts as IPv4 for any family of the socket.
#[test]
fn an_ipv6_network_does_not_match_ipv4() {
    let lab = Lab::new();
    let (four, mapped, six) = (lab.port(), lab.port(), lab.port());
    let tracer = lab.trace_with(&["--address", "fd00::/8,::/0"]);
    talk(four);
    talk_at((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), mapped).into());
    talk_at((Ipv6Addr::LOCALHOST, six).into());
    let trace = sides(tracer, 2, |tuple| tuple.laddr.is_ipv6());

    shows_only(&trace, |line| line.text("laddr").contains(':'));
    trace.server().shows(&[("lport", &six)]);
}

#[test]
fn an_ipv4_network_matches_ipv4_mapped_addresses() {
    let lab = Lab::new();
    let (both, six) = (lab.port(), lab.port());
    let tracer = lab.trace_with(&["--address", "127.0.0.0/8"]);
    talk_at((Ipv6Addr::LOCALHOST, six).into());
    let listener = listen_at((Ipv6Addr::UNSPECIFIED, both).into(), 1);
    close(connect_queued(both), accept(&listener).stream);
    let trace = sides(tracer, 2, |tuple| tuple.laddr.is_ipv4());

    shows_only(&trace, |line| line["laddr"] == "127.0.0.1");
    trace.server().shows(&[("lport", &both)]);
}
