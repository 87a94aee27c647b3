//! Pressure on the ring buffer at each size.

use nix::sys::signal::Signal;
use tests::Lab;
use tests::traffic::*;

/// A storm of `clients` while the tracer is stopped. Returns the lost events.
///
/// Each connection has 10 changes of state, and its listener has 2. The events that were emitted
/// and those that were counted as lost are exactly these.
fn lost_under_pressure(ring_size: &str, clients: usize) -> u64 {
    let lab = Lab::alone();
    let port = lab.port();
    let ports = port.to_string();
    let mut tracer = lab.trace_with(&["--ring-size", ring_size, "-p", &ports]);
    tracer.process().signal(Signal::SIGSTOP);
    storm(port, clients);
    tracer.process().signal(Signal::SIGCONT);
    // The connection is found by its own end, after the loss.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let trace = tracer.stop_lossy();
    let counts = &trace.summary()["hook_counts"];
    let count = |hook: &str, field: &str| counts[hook][field].as_u64().unwrap_or(0);
    let of_states = |field| count("inet_sock_set_state", field);
    assert_eq!(
        of_states("emitted") + of_states("lost"),
        10 * clients as u64 + 2,
        "--ring-size {ring_size}: {}",
        trace.summary()
    );
    let hooks = counts.as_object().expect("hooks");
    let total = |field: &str| -> u64 { hooks.values().filter_map(|it| it[field].as_u64()).sum() };
    assert_eq!(total("unaccounted"), 0, "{ring_size}: {}", trace.summary());
    // A connection that is told complete had all its events, and each was accepted.
    for line in trace.connections("server") {
        if line["complete"] == true {
            line.shows(&[("state", &"CLOSE")]);
            let verdict = line["verdict"].as_str().unwrap_or_default();
            assert!(
                ["queued", "awaited", "overlapped"].contains(&verdict),
                "{line}"
            );
        }
    }
    total("lost")
}

#[test]
fn each_size_counts_exactly_what_it_loses() {
    let mut before = u64::MAX;
    for (size, clients) in [
        ("4096", 500),
        ("8K", 500),
        ("16K", 500),
        ("64K", 500),
        ("256K", 500),
        ("1M", 500),
        ("4M", 500),
        ("16M", 500),
        ("64M", 500),
    ] {
        let lost = lost_under_pressure(size, clients);
        assert!(lost <= before, "{size}: {lost} lost after {before}");
        before = lost;
    }
    assert_eq!(before, 0, "64M hold 500 connections");
}
