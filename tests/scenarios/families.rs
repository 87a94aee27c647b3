//! IPv6, and IPv4 on a listener that accepts both.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tests::traffic::*;
use tests::{Lab, Line};

const DUAL: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
const BACKLOG: i32 = 16;

#[test]
fn ipv6_is_shown_as_ipv6() {
    let lab = Lab::new();
    let here = SocketAddr::from((Ipv6Addr::LOCALHOST, lab.port()));
    let tracer = lab.trace();
    let listener = listen_at(here, BACKLOG);
    close(connect_queued_to(here), accept(&listener).stream);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    for line in [trace.server(), trace.client(), trace.accept()] {
        line.shows(&[("laddr", &"::1"), ("raddr", &"::1")]);
    }
    trace.listen().shows(&[("laddr", &"::1")]);
    trace.server().shows(&[("verdict", &"queued")]);
}

#[test]
fn ipv4_on_an_ipv6_listener_is_shown_as_ipv4() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen_at((DUAL, port).into(), BACKLOG);
    let accepted = {
        let client = connect_queued_to((Ipv4Addr::LOCALHOST, port).into());
        let accepted = accept(&listener);
        close(client, accepted.stream);
        accepted.peer
    };
    let SocketAddr::V6(peer) = accepted else {
        panic!("the server sees a mapped address: {accepted}");
    };
    assert_eq!(peer.ip().to_ipv4_mapped(), Some(Ipv4Addr::LOCALHOST));
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    let as_ipv4 = |line: &Line| {
        line.shows(&[("laddr", &"127.0.0.1"), ("raddr", &"127.0.0.1")]);
    };
    as_ipv4(trace.server());
    as_ipv4(trace.client());
    as_ipv4(trace.accept_of(peer.port()));
    trace.server().shows(&[("verdict", &"queued")]);
    trace.listen().shows(&[("laddr", &"::")]);
    trace
        .accept()
        .shows(&[("listener", &trace.listen()["conn"])]);
}

#[test]
fn minus_4_takes_ipv4_on_an_ipv6_listener() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace_with(&["-4"]);
    let listener = listen_at((DUAL, port).into(), BACKLOG);
    let client = connect_queued(port);
    let client_port = port_of(&client);
    close(client, accept(&listener).stream);
    let v6 = connect_queued_to((Ipv6Addr::LOCALHOST, port).into());
    close(v6, accept(&listener).stream);
    tracer.wait_for_ends(2);
    let trace = tracer.stop_filtered(|tuple| tuple.laddr.is_ipv4());

    assert_eq!(trace.connections("client").len(), 1);
    trace
        .server()
        .shows(&[("rport", &client_port), ("verdict", &"queued")]);
}
