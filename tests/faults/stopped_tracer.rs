//! A tracer that is stopped and cannot read the ring buffer. It counts the lost events, and
//! everything else is complete.

use std::time::Duration;

use nix::sys::signal::Signal;
use tests::Lab;
use tests::task::{join, spawn};
use tests::trace::NULL;
use tests::traffic::*;

const CLIENTS: usize = 2000;

/// How long the tracer is stopped at a time, and how long it runs in between.
const STOPPED: Duration = Duration::from_millis(150);
const RUNS: Duration = Duration::from_millis(20);

/// A connection without an event for one second is compared with the kernel's sockets at the end of
/// the trace. If the kernel hid its end (`tests::known_gap`), it is then reported incomplete.
const AUDITED_AFTER: Duration = Duration::from_millis(1100);

/// Stops the tracer repeatedly under a load of short connections, each of which is accepted.
fn stopped_under_load(ring_size: &str) -> u64 {
    let lab = Lab::alone();
    let port = lab.port();
    let mut tracer = lab.trace_with(&["--ring-size", ring_size]);

    let (_, load) = spawn(move || storm(port, CLIENTS));
    while !load.is_finished() {
        tracer.process().signal(Signal::SIGSTOP);
        std::thread::sleep(STOPPED);
        tracer.process().signal(Signal::SIGCONT);
        std::thread::sleep(RUNS);
    }
    join(load);
    std::thread::sleep(AUDITED_AFTER);
    // `stop` checks for every trace that seen = filtered + emitted + lost and that the `lost` lines
    // agree.
    let trace = tracer.stop_lossy();

    let hooks = trace.summary()["hook_counts"]
        .as_object()
        .expect("an object");
    let total = |field: &str| -> u64 { hooks.values().filter_map(|it| it[field].as_u64()).sum() };
    let mut complete = 0;
    for side in ["server", "client"] {
        for line in trace.connections(side) {
            if line["complete"] != true {
                continue;
            }
            complete += 1;
            line.shows(&[("state", &"CLOSE")]);
            let verdict = line["verdict"].as_str().unwrap_or_default();
            assert!(
                side == "client" || ["queued", "awaited", "overlapped"].contains(&verdict),
                "each was accepted: {line}"
            );
        }
    }
    assert_eq!(total("unaccounted"), 0, "{}", trace.summary());
    let lost = total("lost");
    if lost == 0 {
        for side in ["server", "client"] {
            assert_eq!(trace.connections(side).len(), CLIENTS, "{side}");
        }
        // A softirq that interrupts init may hide a step, see `tests::known_gap`.
        assert!(complete >= 2 * CLIENTS - 8, "{complete} are complete");
    }
    lost
}

#[test]
fn a_stopped_tracer_counts_all_lost_events_with_a_small_buffer() {
    assert!(
        stopped_under_load("256K") > 0,
        "the small buffer must lose events"
    );
}

#[test]
fn a_stopped_tracer_counts_all_lost_events_with_the_default_buffer() {
    stopped_under_load("4M");
}

/// The per-CPU buffers fill up, and further records go to the ring buffer.
#[test]
fn a_stopped_tracer_loses_nothing_with_a_large_buffer() {
    assert_eq!(stopped_under_load("64M"), 0);
}

/// The events of the ends of these connections are lost, so only a socket snapshot shows that the
/// sockets are gone.
#[test]
fn connections_whose_last_events_were_lost_are_reported_gone_and_incomplete() {
    const CLIENTS: usize = 300;
    let lab = Lab::alone();
    let (calm, stormy) = (lab.port(), lab.port());
    let mut tracer = lab.trace_with(&["--ring-size", "4096"]);
    let listener = listen(calm);
    let client = connect_queued(calm);
    let server = accept(&listener).stream;
    let client_port = port_of(&client);
    tracer.wait_for(1, "the connection to be open", |line| line.is("accept"));

    tracer.process().signal(Signal::SIGSTOP);
    storm(stormy, CLIENTS);
    close(client, server);
    tracer.process().signal(Signal::SIGCONT);
    tracer.wait_for(2, "both ends to be reported gone", |line| {
        line.is("connection") && (line["lport"] == calm || line["rport"] == calm)
    });
    // An existing connection stays open.
    let client = connect_queued(calm);
    let server = accept(&listener).stream;
    let trace = tracer.stop_lossy();
    drop((client, server));

    let gone = trace.server_at(calm, client_port);
    gone.shows(&[
        ("state", &"ESTABLISHED"),
        ("verdict", &"queued"),
        ("closed_mono_ns", &NULL),
        ("complete", &false),
    ]);
}
