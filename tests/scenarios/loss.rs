//! A ring buffer that is much too small.

use nix::sys::signal::Signal;
use tests::Lab;
use tests::traffic::*;

#[test]
fn what_is_lost_is_counted_and_what_was_open_is_incomplete() {
    const CLIENTS: usize = 1000;
    const OPEN: usize = 5;
    let lab = Lab::alone();
    let (calm, stormy) = (lab.port(), lab.port());
    let mut tracer = lab.trace_with(&["--ring-size", "4096"]);

    let listener = listen(calm);
    let open: Vec<_> = (0..OPEN)
        .map(|_| (connect_queued(calm), accept(&listener).stream))
        .collect();
    tracer.wait_for(OPEN, "connections to be open", |line| line.is("accept"));

    // A tracer that is stopped takes nothing out of the ring, so loss is certain.
    tracer.process().signal(Signal::SIGSTOP);
    storm(stormy, CLIENTS);
    tracer.process().signal(Signal::SIGCONT);
    tracer.wait_for_line("the loss to be told", |line| line.is("lost"));
    let trace = tracer.stop_lossy();

    // That the balance is right and the `lost` lines agree with it is checked for every trace.
    let states = &trace.summary()["hooks"]["inet_sock_set_state"];
    assert!(states["lost"].as_u64() > Some(CLIENTS as u64), "{states}");
    for (client, _) in &open {
        trace.server_of(port_of(client)).shows(&[
            ("verdict", &"queued"),
            ("state", &"ESTABLISHED"),
            ("complete", &false),
        ]);
    }
}

#[test]
fn after_a_loss_new_connections_are_complete_again() {
    const CLIENTS: usize = 300;
    let lab = Lab::alone();
    let (calm, stormy) = (lab.port(), lab.port());
    let mut tracer = lab.trace_with(&["--ring-size", "4096"]);

    tracer.process().signal(Signal::SIGSTOP);
    storm(stormy, CLIENTS);
    tracer.process().signal(Signal::SIGCONT);
    tracer.wait_for_line("the loss to be told", |line| line.is("lost"));

    let client_port = talk(calm);
    tracer.wait_for(2, "the new connection to end", |line| {
        line.is("connection") && (line["lport"] == calm || line["rport"] == calm)
    });
    let trace = tracer.stop_lossy();

    trace
        .server_of(client_port)
        .shows(&[("verdict", &"queued"), ("complete", &true)]);
}
