//! Filters by state.

use super::*;

#[test]
fn state_filter_shows_entry_exit_and_connections_of_a_state() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace_with(&["--state", "close-wait,LAST_ACK"]);
    talk(port);
    tracer.wait_for_ends(1);
    let trace = tracer.stop_lossy();

    let server = trace.server();
    assert_eq!(
        trace.path(&server["conn"]),
        "ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE"
    );
    server.shows(&[("verdict", &"queued"), ("complete", &true)]);
    // The client was never in this state, and accept() was earlier.
    assert!(trace.connections("client").is_empty());
    assert!(trace.accepts().is_empty() && trace.listens().is_empty());
}
