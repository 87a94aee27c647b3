//! Client and server on one host.

use tests::Lab;
use tests::traffic::*;

#[test]
fn both_ends_on_one_host_refer_to_each_other() {
    let lab = Lab::new();
    let tracer = lab.trace();
    talk(lab.port());
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    let (client, server) = (trace.client(), trace.server());
    client.shows(&[("peer_conn", &server["conn"])]);
    server.shows(&[("peer_conn", &client["conn"])]);
    // connect() returned before the server's socket was ESTABLISHED and before accept().
    let connected = client.num("established_mono_ns");
    assert!(client.num("syn_mono_ns") < connected);
    assert!(connected < server.num("established_mono_ns"));
    trace.accept().shows(&[("conn", &server["conn"])]);
}
