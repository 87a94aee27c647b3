//! The attach methods of the hook on state changes. tcptrace takes the first one that the kernel
//! accepts. All methods must report the same state changes.

use tests::Lab;
use tests::traffic::*;

fn attached_by(method: &str) {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace_with(&["--state-method", method]);
    let client_port = talk(port);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    let hooks = &trace.session()["hooks"];
    assert_eq!(hooks["inet_sock_set_state"], method);
    let server = trace.server_of(client_port);
    server.shows(&[("verdict", &"queued"), ("complete", &true)]);
    trace
        .client()
        .shows(&[("lport", &client_port), ("complete", &true)]);
}

#[test]
fn state_changes_are_reported_by_a_btf_tracepoint() {
    attached_by("tp_btf");
}

#[test]
fn state_changes_are_reported_by_a_raw_tracepoint() {
    attached_by("raw_tp");
}

#[test]
fn state_changes_are_reported_by_a_classic_tracepoint() {
    attached_by("tracepoint");
}
