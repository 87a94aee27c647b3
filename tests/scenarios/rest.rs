//! What tcptrace's programs keep for the next use.

use std::sync::Arc;

use tests::Lab;
use tests::task::{join, spawn};
use tests::trace::NULL;
use tests::traffic::*;

/// What is remembered of a thread stays for its next call, but only of some threads: those that are
/// gone leave room for others.
#[test]
fn acceptors_that_are_gone_leave_room_for_others() {
    const ROOM: usize = 512;
    const GONE: usize = 200;
    const BLOCKED: usize = 400;
    let lab = Lab::alone();
    let port = lab.port();
    let tracer = lab.trace_with(&["--calls", &ROOM.to_string()]);

    let listener = Arc::new(listen(port));
    for _ in 0..GONE {
        let client = connect_queued(port);
        let listener = listener.clone();
        let (_, acceptor) = spawn(move || accept(&listener));
        reset(client);
        join(acceptor);
    }
    let acceptors = blocked_in_accept(&listener, BLOCKED);
    let clients: Vec<_> = (0..BLOCKED).map(|_| connect(port)).collect();
    acceptors.into_iter().for_each(|(_, it)| drop(join(it)));
    drop(clients);
    tracer.wait_for_ends(2 * (GONE + BLOCKED));
    // Nothing may be lost here.
    let trace = tracer.stop();

    let accepts = trace.accepts();
    assert_eq!(accepts.len(), GONE + BLOCKED);
    let called = |line: &&&tests::Line| line.maybe("called_mono_ns").is_some();
    assert_eq!(accepts.iter().filter(called).count(), GONE + BLOCKED);
}

/// The kernel gives a socket the memory of one that is gone, and its life the place of that one's:
/// nothing of it may be told again.
#[test]
fn a_life_has_nothing_of_the_one_before() {
    const ROUNDS: usize = 20;
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace_with(&["--depth", "connections"]);

    let mut accepted = vec![];
    let mut left = vec![];
    for _ in 0..ROUNDS {
        accepted.push(talk(port));
        // The listener is gone before it calls accept(), and takes its queue with it.
        let listener = listen(port);
        let client = connect_queued(port);
        drop(listener);
        left.push(port_of(&client));
    }
    // A life that ends in the queue is told when its place is needed, or with the trace.
    tracer.wait_for_ends(3 * ROUNDS);
    let trace = tracer.stop_joined();

    for client in accepted {
        let server = trace.server_of(client);
        server.shows(&[("verdict", &"queued"), ("complete", &true)]);
        assert!(server.maybe("accepted_mono_ns").is_some());
    }
    for client in left {
        trace.server_of(client).shows(&[
            ("verdict", &"never_accepted"),
            ("accept_called_mono_ns", &NULL),
            ("accepted_mono_ns", &NULL),
            ("accept_queue_ns", &NULL),
            ("complete", &true),
        ]);
    }
}
