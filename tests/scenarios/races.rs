//! Races between two CPUs that work on the same connection.

use std::collections::HashMap;
use std::thread;

use tests::task::{cpus, join_scoped, pin_to};
use tests::traffic::*;
use tests::{Lab, Line};

/// The kernel queues a connection a moment before it is ESTABLISHED, so a polling acceptor on
/// another CPU can take it in between. Even then accept() returns only after the handshake:
/// `inet_accept` waits for the lock that the handshake holds.
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
    let tracer = lab.trace();

    let listener = listen(port);
    // The clients' ports, and the times at which accept() returned by the acceptor's own clock.
    let took: Vec<(u16, u64)> = thread::scope(|scope| {
        let acceptor = scope.spawn(|| {
            pin_to(one);
            let take = |_| {
                // Polls without accept(), because each failed accept() is an event.
                wait_until_queued(&listener);
                let accepted = accept(&listener);
                (accepted.peer.port(), accepted.returned_ns)
            };
            (0..CLIENTS).map(take).collect()
        });
        let clients = scope.spawn(|| {
            pin_to(other);
            for _ in 0..CLIENTS {
                visit(port);
            }
        });
        join_scoped(clients);
        join_scoped(acceptor)
    });
    tracer.wait_for_ends(2 * CLIENTS);
    let trace = tracer.stop();

    trace.shows_each_once(CLIENTS);
    assert!(trace.failed_accepts().is_empty());
    // In order, because a client's port may repeat.
    let mut accepts = trace.accepts();
    accepts.sort_by_key(|line| line.num("mono_ns"));
    let connections = trace.connections("server");
    let connections: HashMap<u64, &Line> = connections
        .into_iter()
        .map(|line| (line.num("conn"), line))
        .collect();
    let mut overlapped = 0;
    for (accept, (client, returned_ns)) in accepts.into_iter().zip(took) {
        accept.shows(&[("rport", &client)]);
        let line = connections[&accept.num("conn")];
        let established = line.num("established_mono_ns");
        assert!(
            established <= returned_ns,
            "accept() returned it at {returned_ns}, before the handshake was finished: {line}"
        );

        // Only a hook inside accept() can see that the connection was taken from the queue before
        // it was ESTABLISHED.
        let taken_before = accept.num("mono_ns") < established;
        if taken_before {
            let inside = ["fexit", "kretprobe"].contains(&accept.text("witness"));
            assert!(inside, "{accept}");
            line.shows(&[("verdict", &"overlapped"), ("accept_queue_ns", &0)]);
            overlapped += 1;
        } else {
            let verdict = line.text("verdict");
            assert!(["queued", "awaited"].contains(&verdict), "{line}");
        }
    }
    eprintln!("{overlapped} of {CLIENTS} were taken before they were ESTABLISHED");
}
