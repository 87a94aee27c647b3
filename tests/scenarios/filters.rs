//! Filters. The kernel side applies them where it can.

mod address;
mod owner;
mod process;
mod state;

use std::net::{Ipv4Addr, Ipv6Addr};

use tests::traffic::*;
use tests::witness::Tuple;
use tests::{Lab, Line, Trace, Tracer};

/// Asserts that all lines of this namespace satisfy a condition.
fn shows_only(trace: &Trace, wanted: impl Fn(&Line) -> bool) {
    assert_ne!(trace.session()["filters"], serde_json::json!({}));
    for event in ["transition", "accept", "connection"] {
        for line in trace.own(event) {
            assert!(wanted(line), "should be filtered: {line}");
        }
    }
    let hooks = &trace.summary()["hook_counts"];
    let filtered = hooks["inet_sock_set_state"]["filtered"].as_u64();
    assert!(filtered > Some(0), "{hooks}");
}

fn sides(tracer: Tracer, ends: usize, filter: impl Fn(&Tuple) -> bool) -> Trace {
    tracer.wait_for_ends(ends);
    tracer.stop_filtered(filter)
}

#[test]
fn a_port_filter_matches_local_and_remote_ports() {
    let lab = Lab::new();
    let (port, other) = (lab.port(), lab.port());
    let tracer = lab.trace_with(&["-p", &port.to_string()]);
    talk(other);
    talk(port);
    talk(other);
    let trace = sides(tracer, 2, |tuple| {
        tuple.lport == port || tuple.rport == port
    });

    shows_only(&trace, |line| {
        line["lport"] == port || line["rport"] == port
    });
    trace.server().shows(&[("verdict", &"queued")]);
    trace.client().shows(&[("rport", &port)]);
}

#[test]
fn ports_can_be_listed_and_repeated() {
    let lab = Lab::new();
    let (a, b, c, other) = (lab.port(), lab.port(), lab.port(), lab.port());
    let tracer = lab.trace_with(&["-p", &format!("{a},{b}"), "--port", &c.to_string()]);
    for port in [other, a, b, c] {
        talk(port);
    }
    let wanted = [a, b, c];
    let trace = sides(tracer, 6, |tuple| {
        wanted.contains(&tuple.lport) || wanted.contains(&tuple.rport)
    });

    shows_only(&trace, |line| {
        wanted
            .iter()
            .any(|port| line["lport"] == *port || line["rport"] == *port)
    });
    assert_eq!(trace.connections("server").len(), 3);
}

#[test]
fn a_local_port_selects_the_server_side() {
    let lab = Lab::new();
    let (port, other) = (lab.port(), lab.port());
    let tracer = lab.trace_with(&["-L", &port.to_string()]);
    talk(other);
    talk(port);
    let trace = sides(tracer, 1, |tuple| tuple.lport == port);

    shows_only(&trace, |line| line["lport"] == port);
    trace
        .server()
        .shows(&[("verdict", &"queued"), ("complete", &true)]);
    assert!(trace.connections("client").is_empty());
}

#[test]
fn a_remote_port_selects_the_client_side() {
    let lab = Lab::new();
    let (port, other) = (lab.port(), lab.port());
    let tracer = lab.trace_with(&["-D", &port.to_string()]);
    talk(other);
    talk(port);
    let trace = sides(tracer, 1, |tuple| tuple.rport == port);

    shows_only(&trace, |line| line["rport"] == port);
    trace.client().shows(&[("complete", &true)]);
    assert!(trace.connections("server").is_empty());
    assert!(trace.accepts().is_empty());
}

#[test]
fn minus_4_leaves_out_ipv6() {
    let lab = Lab::new();
    let (four, six) = (lab.port(), lab.port());
    let tracer = lab.trace_with(&["-4"]);
    talk_at((Ipv6Addr::LOCALHOST, six).into());
    talk_at((Ipv4Addr::LOCALHOST, four).into());
    let trace = sides(tracer, 2, |tuple| tuple.laddr.is_ipv4());

    shows_only(&trace, |line| line.text("laddr").contains('.'));
    trace
        .server()
        .shows(&[("lport", &four), ("verdict", &"queued")]);
}

#[test]
fn minus_6_leaves_out_ipv4() {
    let lab = Lab::new();
    let (four, six) = (lab.port(), lab.port());
    let tracer = lab.trace_with(&["-6"]);
    talk_at((Ipv4Addr::LOCALHOST, four).into());
    talk_at((Ipv6Addr::LOCALHOST, six).into());
    let trace = sides(tracer, 2, |tuple| tuple.laddr.is_ipv6());

    shows_only(&trace, |line| line.text("laddr").contains(':'));
    trace
        .server()
        .shows(&[("lport", &six), ("verdict", &"queued")]);
}
