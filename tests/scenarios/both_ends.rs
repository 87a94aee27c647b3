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
