//! A ring buffer, or a table of accept() calls, that is much too small.

use std::sync::Arc;

use nix::sys::signal::Signal;
use tests::Lab;
use tests::task::{cpus, join, join_scoped, pin_to};
use tests::trace::NULL;
use tests::traffic::*;

#[test]
fn lost_events_are_counted_and_open_connections_are_incomplete() {
    const CLIENTS: usize = 1000;
    const OPEN: usize = 5;
    let lab = Lab::alone();
    let (calm, stormy) = (lab.port(), lab.port());
    let mut tracer = lab.trace_with(&["--ring-size", "4096"]);

    let listener = listen(calm);
    // One after the other, because the ring buffer hardly holds the records of two connections.
    let open: Vec<_> = (1..=OPEN)
        .map(|n| {
            let ends = (connect_queued(calm), accept(&listener).stream);
            tracer.wait_for(n, "the connection to be open", |line| line.is("accept"));
            ends
        })
        .collect();

    // A stopped tracer reads nothing from the ring buffer, so events are certainly lost.
    tracer.process().signal(Signal::SIGSTOP);
    storm(stormy, CLIENTS);
    tracer.process().signal(Signal::SIGCONT);
    tracer.wait_for_line("the loss to be reported", |line| line.is("lost"));
    let trace = tracer.stop_lossy();

    let lost = |line: &&tests::Line| line.is("lost");
    for line in trace.lines.iter().filter(lost) {
        line.shows(&[("why", &"ring_buffer_full")]);
    }
    // `stop` checks for every trace that the balance is right and that the `lost` lines agree.
    let states = &trace.summary()["hook_counts"]["inet_sock_set_state"];
    assert!(states["lost"].as_u64() > Some(CLIENTS as u64), "{states}");
    for (client, _) in &open {
        trace.server_at(calm, port_of(client)).shows(&[
            ("verdict", &"queued"),
            ("state", &"ESTABLISHED"),
            ("complete", &false),
        ]);
    }
}

#[test]
fn after_lost_events_new_connections_are_complete_again() {
    const CLIENTS: usize = 300;
    let lab = Lab::alone();
    let (calm, stormy) = (lab.port(), lab.port());
    let mut tracer = lab.trace_with(&["--ring-size", "4096"]);

    tracer.process().signal(Signal::SIGSTOP);
    storm(stormy, CLIENTS);
    tracer.process().signal(Signal::SIGCONT);
    tracer.wait_for_line("the loss to be reported", |line| line.is("lost"));

    let client_port = talk(calm);
    tracer.wait_for(2, "the new connection to end", |line| {
        line.is("connection") && (line["lport"] == calm || line["rport"] == calm)
    });
    let trace = tracer.stop_lossy();

    trace
        .server_at(calm, client_port)
        .shows(&[("verdict", &"queued"), ("complete", &true)]);
}

/// The ring buffer keeps the records of a tracer that does not run.
#[test]
fn a_stopped_tracer_loses_nothing_that_fits_the_ring_buffer() {
    // The records of each connection take 1 to 2 KiB.
    const CONNECTIONS: usize = 60;
    let lab = Lab::alone();
    let port = lab.port();
    let mut tracer = lab.trace_with(&["--ring-size", "256K"]);

    tracer.process().signal(Signal::SIGSTOP);
    std::thread::scope(|scope| {
        let talking = scope.spawn(|| {
            pin_to(cpus()[0]);
            for _ in 0..CONNECTIONS {
                talk(port);
            }
        });
        join_scoped(talking);
    });
    tracer.process().signal(Signal::SIGCONT);
    tracer.wait_for_ends(2 * CONNECTIONS);
    let trace = tracer.stop();

    for side in ["client", "server"] {
        let connections = trace.connections(side);
        assert_eq!(connections.len(), CONNECTIONS);
        for connection in connections {
            connection.shows(&[("state", &"CLOSE"), ("complete", &true)]);
        }
    }
}

/// An accept() call that finds no room in the table of calls is counted as lost. The connection
/// that it returns is still reported, without the time of the call. The call must not be reported
/// as begun before the trace.
#[test]
fn accept_calls_beyond_the_call_table_are_counted_as_lost() {
    const ROOM: usize = 2;
    const THREADS: usize = 12;
    let lab = Lab::alone();
    let port = lab.port();
    let tracer = lab.trace_with(&["--calls", &ROOM.to_string()]);

    let listener = Arc::new(listen(port));
    let acceptors = blocked_in_accept(&listener, THREADS);
    tracer.wait_for_line("the loss to be reported", |line| {
        line.is("lost") && line["hook"] == "inet_csk_accept" && line["why"] == "too_many_calls"
    });
    let clients: Vec<_> = (0..THREADS).map(|_| connect(port)).collect();
    acceptors.into_iter().for_each(|(_, it)| drop(join(it)));
    drop((clients, listener));
    // The table has room again, so the next call is stored.
    let client_port = talk(port);
    tracer.wait_for_ends(2 * THREADS + 2);
    let trace = tracer.stop_lossy();

    let balance = &trace.summary()["hook_counts"]["inet_csk_accept"];
    let lost = balance["lost"].as_u64();
    assert!(lost >= Some((THREADS - ROOM) as u64), "{lost:?}");
    assert_eq!(balance["lost"], balance["lost_calls"], "{balance}");
    let accepts = trace.accepts();
    assert_eq!(accepts.len(), THREADS + 1, "each accept() is reported once");
    let unknown: Vec<_> = accepts
        .iter()
        .filter(|line| line["called_mono_ns"].is_null())
        .collect();
    assert!(unknown.len() >= THREADS - ROOM, "{unknown:?}");
    assert!(
        trace
            .accept_of(client_port)
            .maybe("called_mono_ns")
            .is_some()
    );
    for accept in unknown {
        trace
            .server_of(accept.num("rport") as u16)
            .shows(&[("verdict", &"unknown"), ("accept_called_mono_ns", &NULL)]);
    }
}
