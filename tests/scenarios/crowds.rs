//! Many at once, and many after another.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tests::task::{cpus, join, join_scoped, pin_to, spawn, wait_until_in_accept};
use tests::trace::NULL;
use tests::traffic::*;
use tests::{Lab, Trace};

#[test]
fn two_hundred_blocked_acceptors_each_take_one_connection() {
    const THREADS: usize = 200;
    let lab = Lab::alone();
    let port = lab.port();
    let tracer = lab.trace();

    let acceptors = blocked_acceptors(port, THREADS);
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
        trace
            .server_of(client)
            .shows(&[("tid", &tid), ("verdict", &"awaited")]);
    }
}

#[test]
fn acceptors_blocked_before_and_after_the_trace_are_left_well() {
    const THREADS: usize = 100;
    let lab = Lab::alone();
    let port = lab.port();
    let mut acceptors = blocked_acceptors(port, THREADS);

    let tracer = lab.trace();
    let clients: Vec<_> = (0..THREADS / 2).map(|_| connect(port)).collect();
    tracer.wait_for(THREADS / 2, "half of them to accept", |line| {
        line.is("accept") && line["error"].is_null()
    });
    let trace = tracer.stop();
    // The other half was blocked in accept() while the hooks were taken away.
    let late_clients: Vec<_> = (0..THREADS / 2).map(|_| connect(port)).collect();
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

/// Threads that sleep in accept() on one listener, with their ids.
fn blocked_acceptors(port: u16, n: usize) -> Vec<(u32, JoinHandle<Accepted>)> {
    let listener = Arc::new(listen(port));
    let acceptors: Vec<_> = (0..n)
        .map(|_| {
            let listener = listener.clone();
            spawn(move || accept(&listener))
        })
        .collect();
    for (tid, _) in &acceptors {
        wait_until_in_accept(*tid);
    }
    acceptors
}

/// The kernel queues a connection a moment before it is ESTABLISHED, so an acceptor that polls on
/// another CPU can take it in between. Even then accept() does not return to its caller before the
/// handshake is finished: `inet_accept` waits for the lock that the handshake holds.
#[test]
fn a_polling_acceptor_never_overtakes_the_handshake() {
    const CLIENTS: usize = 1500;
    let lab = Lab::alone();
    let port = lab.port();
    let cpus = cpus();
    let [one, .., other] = cpus[..] else {
        eprintln!("skipped: a race wants two CPUs, this machine has {cpus:?}");
        return;
    };
    // Every failed accept() of the polling loop is an event; an emulated CPU writes them slowly.
    let tracer = lab.trace_with(&["--ring-size", "256M"]);

    let listener = listen(port);
    listener.set_nonblocking(true).unwrap();
    thread::scope(|scope| {
        let acceptor = scope.spawn(|| {
            pin_to(one);
            (0..CLIENTS).for_each(|_| drop(poll(&listener)));
        });
        let clients = scope.spawn(|| {
            pin_to(other);
            for _ in 0..CLIENTS {
                visit(port);
            }
        });
        join_scoped(acceptor);
        join_scoped(clients);
    });
    tracer.wait_for_ends(2 * CLIENTS);
    let trace = tracer.stop();

    every_connection_is_told_once(&trace, CLIENTS);
    let mut established = HashMap::new();
    for line in trace.connections("server") {
        let verdict = line.text("verdict");
        assert!(
            ["queued", "awaited", "overlapped"].contains(&verdict),
            "{line}"
        );
        established.insert(line.num("conn"), line.num("established_mono_ns"));
    }
    for line in trace.accepts() {
        if line["witness"] == "sys_exit" {
            assert!(
                established[&line.num("conn")] <= line.num("mono_ns"),
                "{line}"
            );
        }
    }
}

/// Calls accept() until it gives something. The pauses are shorter than the moment that the race
/// is about, and long enough not to flood the trace with EAGAIN.
fn poll(listener: &TcpListener) -> std::net::TcpStream {
    const PAUSE: Duration = Duration::from_micros(5);
    loop {
        match listener.accept() {
            Ok((stream, _)) => return stream,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        let paused = Instant::now();
        while paused.elapsed() < PAUSE {
            std::hint::spin_loop();
        }
    }
}

/// The kernel reuses the memory of a closed socket at once: thousands of connections live at a few
/// addresses, and each must still be told as itself.
#[test]
fn three_thousand_connections_one_after_another() {
    const CLIENTS: usize = 3000;
    let lab = Lab::alone();
    let port = lab.port();
    let tracer = lab.trace();

    let clients = storm(port, CLIENTS);
    tracer.wait_for_ends(2 * CLIENTS);
    let trace = tracer.stop();

    every_connection_is_told_once(&trace, CLIENTS);
    let mut told: Vec<u64> = trace
        .connections("server")
        .iter()
        .map(|line| line.num("rport"))
        .collect();
    let mut clients: Vec<u64> = clients.into_iter().map(u64::from).collect();
    told.sort();
    clients.sort();
    assert_eq!(told, clients);
    trace.listener_summary(port).shows(&[
        ("connections", &CLIENTS),
        ("accepted", &CLIENTS),
        ("never_accepted", &0),
    ]);
}

/// And is complete, with an accept of its own.
fn every_connection_is_told_once(trace: &Trace, n: usize) {
    for side in ["server", "client"] {
        let connections = trace.connections(side);
        assert_eq!(connections.len(), n, "{side}");
        for line in connections {
            line.shows(&[("complete", &true), ("state", &"CLOSE")]);
        }
    }
    let mut accepted: Vec<u64> = trace.accepts().iter().map(|it| it.num("conn")).collect();
    accepted.sort();
    accepted.dedup();
    assert_eq!(accepted.len(), n, "accepts of different connections");
}
