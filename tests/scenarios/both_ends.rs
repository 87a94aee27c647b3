//! Client and server on one host.

use tests::Lab;
use tests::traffic::*;

#[test]
fn both_ends_know_each_other() {
    let lab = Lab::new();
    let tracer = lab.trace();
    talk(lab.port());
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    let (client, server) = (trace.client(), trace.server());
    client.shows(&[
        ("peer_conn", &server["conn"]),
        ("peer_established_mono_ns", &server["established_mono_ns"]),
    ]);
    server.shows(&[
        ("peer_conn", &client["conn"]),
        ("peer_established_mono_ns", &client["established_mono_ns"]),
    ]);
    // connect() could return before the server had its connection, let alone accept()ed it.
    let connected = server.num("peer_established_mono_ns");
    assert!(connected < server.num("established_mono_ns"));

    // All that in one line, when accept() returns.
    let accept = trace.accept();
    accept.shows(&[
        ("peer_conn", &client["conn"]),
        ("peer_syn_mono_ns", &client["syn_mono_ns"]),
        ("peer_established_mono_ns", &connected),
        ("established_mono_ns", &server["established_mono_ns"]),
    ]);
    assert!(accept.num("peer_syn_mono_ns") < connected);
}

#[test]
fn what_came_first_at_both_ends_is_told_under_the_accept() {
    let lab = Lab::new();
    let port = lab.port();
    let words = ["--color", "never", "--port", &port.to_string()];
    let tracer = lab.trace_text(&words);
    talk(port);
    let text = tracer.stop_text();
    let both = text
        .lines()
        .find_map(|line| line.split_once("both ends: "))
        .unwrap_or_else(|| panic!("no such line in {text}"))
        .1;
    let steps: Vec<&str> = both.split(", ").map(|it| it.trim()).collect();
    let order = [
        "connect() called 0",
        "client #",
        "server ESTABLISHED +",
        "accept() called +",
        "returned +",
    ];
    assert_eq!(steps.len(), order.len(), "{both}");
    for (step, begins) in steps.iter().zip(order) {
        assert!(step.starts_with(begins), "{both}");
    }
}
