//! Many acceptors or connections, at once and in sequence.

use std::collections::HashMap;
use std::sync::Arc;

use tests::Lab;
use tests::task::join;
use tests::trace::NULL;
use tests::traffic::*;

#[test]
fn two_hundred_blocked_acceptors_each_take_one_connection() {
    const THREADS: usize = 200;
    let lab = Lab::alone();
    let port = lab.port();
    let tracer = lab.trace();

    let acceptors = blocked_in_accept(&Arc::new(listen(port)), THREADS);
    let clients: Vec<_> = (0..THREADS).map(|_| connect(port)).collect();
    let took: Vec<_> = acceptors
        .into_iter()
        .map(|(tid, accepting)| (tid, join(accepting).peer.port()))
        .collect();
    drop(clients);
    tracer.wait_for_ends(2 * THREADS);
    let trace = tracer.stop();

    assert_eq!(trace.accepts().len(), THREADS);
    assert!(trace.failed_accepts().is_empty());
    assert_eq!(trace.connections("server").len(), THREADS);
    for (tid, client) in took {
        trace.accept_of(client).shows(&[("tid", &tid)]);
        let server = trace.server_of(client);
        server.shows(&[("verdict", &"awaited")]);
        // A process that another scenario has just forked has copies of all descriptors, and may be
        // the last one to close the connection.
        if server["pid_source"] != "close" {
            server.shows(&[("tid", &tid)]);
        }
    }
}

#[test]
fn acceptors_blocked_at_attach_and_detach_still_accept() {
    const THREADS: usize = 200;
    let lab = Lab::alone();
    let port = lab.port();
    let listener = Arc::new(listen(port));
    let mut acceptors = blocked_in_accept(&listener, THREADS);

    let tracer = lab.trace();
    let clients: Vec<_> = (0..THREADS / 2).map(|_| connect(port)).collect();
    tracer.wait_for(THREADS / 2, "half of them to accept", |line| {
        line.is("accept") && line["accept_error"].is_null()
    });
    // At detach, half of the blocked acceptors called accept() before the hooks were attached, half
    // of them after.
    acceptors.extend(blocked_in_accept(&listener, THREADS / 2));
    let trace = tracer.stop();
    let late_clients: Vec<_> = (0..THREADS).map(|_| connect(port)).collect();
    let mut took: HashMap<u16, u32> = acceptors
        .drain(..)
        .map(|(tid, accepting)| (join(accepting).peer.port(), tid))
        .collect();

    for client in clients.iter().map(port_of) {
        let tid = took.remove(&client).unwrap();
        let accept = trace.accept_of(client);
        accept.shows(&[("tid", &tid), ("called_mono_ns", &NULL)]);
        trace.server_of(client).shows(&[("verdict", &"awaited")]);
    }
    assert!(
        late_clients
            .iter()
            .all(|it| took.contains_key(&port_of(it)))
    );
}

/// The kernel reuses the memory of a closed socket at once. Thousands of connections share a few
/// addresses, and each must still be reported separately.
#[test]
fn three_thousand_sequential_connections_are_each_reported_once() {
    const CLIENTS: usize = 3000;
    let lab = Lab::alone();
    let port = lab.port();
    let tracer = lab.trace();

    let clients = storm(port, CLIENTS);
    tracer.wait_for_ends(2 * CLIENTS);
    // A softirq interrupts init once in some 50000 connections. The comparison with the witness
    // accepts a missing step only then.
    let trace = tracer.stop_allowing_gap();
    let sides = ["server", "client"].map(|side| trace.connections(side));
    assert_eq!(sides.each_ref().map(Vec::len), [CLIENTS, CLIENTS]);
    let all = sides.concat();
    for line in all.iter().filter(|line| line["complete"] == true) {
        line.shows(&[("state", &"CLOSE")]);
    }
    let mut accepted: Vec<u64> = trace.accepts().iter().map(|it| it.num("conn")).collect();
    accepted.sort();
    accepted.dedup();
    assert_eq!(accepted.len(), CLIENTS, "accepts of different connections");
    let mut reported: Vec<u64> = trace
        .connections("server")
        .iter()
        .map(|line| line.num("rport"))
        .collect();
    let mut clients: Vec<u64> = clients.into_iter().map(u64::from).collect();
    reported.sort();
    clients.sort();
    assert_eq!(reported, clients);
    trace.listener_summary(port).shows(&[
        ("connections", &CLIENTS),
        ("accepted", &CLIENTS),
        ("never_accepted", &0),
    ]);
}
