//! Listeners and connections that are older than the trace. They are shown at its start, and
//! continued.

use tests::task::pid;
use tests::trace::NULL;
use tests::traffic::*;
use tests::{Lab, Line, Tracer};

/// Waits for the socket snapshot at the start: `n` lines about this port.
fn wait_for_old(tracer: &Tracer, n: usize, port: u16) -> Vec<Line> {
    tracer.wait_for(n, "the preexisting sockets", |line| {
        line.is("preexisting") && (line["lport"] == port || line["rport"] == port)
    })
}

#[test]
fn the_first_accept_on_a_preexisting_listener_is_complete() {
    let lab = Lab::new();
    let port = lab.port();
    let listener = listen(port);

    let tracer = lab.trace();
    let old = wait_for_old(&tracer, 1, port);
    let client = connect(port);
    let server = accept(&listener).stream;
    close(client, server);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    old[0].shows(&[
        ("side", &"listener"),
        ("state", &"LISTEN"),
        ("laddr", &"127.0.0.1"),
        ("raddr", &NULL),
        ("backlog_len", &0),
        ("backlog_max", &512),
        ("pid", &pid()),
        ("tid", &NULL),
        ("pid_source", &"snapshot"),
    ]);
    trace.accept().shows(&[("listener", &old[0]["conn"])]);
    trace
        .server()
        .shows(&[("verdict", &"queued"), ("complete", &true)]);
    assert_eq!(trace.listener_summary(port)["conn"], old[0]["conn"]);
}

#[test]
fn a_preexisting_queued_connection_is_counted_and_identified_at_accept() {
    let lab = Lab::new();
    let port = lab.port();
    let listener = listen(port);
    let client = connect(port);

    let tracer = lab.trace();
    let old = wait_for_old(&tracer, 3, port);
    let accepted = accept(&listener);
    tracer.wait_for(1, "the accept", |line| line.is("accept"));
    let trace = tracer.stop();

    let of = |side: &str| {
        let mut lines = old.iter().filter(|line| line["side"] == side);
        let only = lines.next().expect("a line of that side");
        assert!(lines.next().is_none());
        only
    };
    of("listener").shows(&[("backlog_len", &1)]);
    of("server").shows(&[
        ("state", &"ESTABLISHED"),
        ("rport", &port_of(&client)),
        ("pid", &NULL),
        ("backlog_len", &NULL),
    ]);
    trace.accept().shows(&[
        ("conn", &of("server")["conn"]),
        ("listener", &of("listener")["conn"]),
    ]);
    trace.server().shows(&[("complete", &false)]);
    drop(accepted);
}

#[test]
fn a_preexisting_connection_keeps_its_connection_number() {
    let lab = Lab::new();
    let port = lab.port();
    let listener = listen(port);
    let client = connect(port);
    let server = accept(&listener).stream;
    let client_port = port_of(&client);

    let tracer = lab.trace();
    let old = wait_for_old(&tracer, 3, port);
    close(client, server);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    let ends: Vec<&Line> = trace.own("connection").collect();
    assert_eq!(ends.len(), 2);
    for end in ends {
        let mut same = old.iter().filter(|line| line["conn"] == end["conn"]);
        let begun = same.next().expect("it was shown at the start");
        begun.shows(&[("state", &"ESTABLISHED"), ("lport", &end["lport"])]);
        // Only a server's socket shows its side.
        let side = match begun["lport"] == client_port {
            true => NULL,
            false => "server".into(),
        };
        assert_eq!(begun["side"], side);
        end.shows(&[("complete", &false), ("established_mono_ns", &NULL)]);
    }
}

#[test]
fn an_idle_preexisting_connection_has_only_its_first_line() {
    let lab = Lab::new();
    let port = lab.port();
    let listener = listen(port);
    let client = connect(port);
    let server = accept(&listener).stream;

    let tracer = lab.trace();
    wait_for_old(&tracer, 3, port);
    let trace = tracer.stop();
    assert_eq!(trace.own("connection").count(), 0);
    drop((client, server, listener));
}

#[test]
fn filters_apply_to_preexisting_sockets() {
    let lab = Lab::new();
    let (port, other) = (lab.port(), lab.port());
    let (_listener, _other) = (listen(port), listen(other));
    let tracer = lab.trace_with(&["-p", &port.to_string()]);
    wait_for_old(&tracer, 1, port);
    let trace = tracer.stop_filtered(|tuple| tuple.lport == port || tuple.rport == port);
    let ports: Vec<_> = trace
        .own("preexisting")
        .map(|line| &line["lport"])
        .collect();
    assert_eq!(ports, [port]);
}

#[test]
fn sockets_in_a_namespace_of_a_single_thread_are_found() {
    // The tracer starts in the machine's own namespace.
    let (started, start) = std::sync::mpsc::channel();
    let (listening, port) = std::sync::mpsc::channel();
    let other = std::thread::spawn(move || {
        let lab = Lab::new();
        let listener = listen(lab.port());
        let own = listener.local_addr().expect("an address").port();
        listening.send((own, lab.netns.inode)).expect("a tracer");
        start.recv().expect("the end of the trace");
        drop(listener);
    });
    let (port, netns) = port.recv().expect("a listener");
    let lab = Lab::new();
    let mut tracer = lab.trace();
    tracer
        .process()
        .stdout()
        .wait_until("the old listener", |lines| {
            let mut lines = lines.iter().map(|line| Line::parse(line));
            lines
                .any(|line| {
                    line.is("preexisting") && line["lport"] == port && line["netns"] == netns
                })
                .then_some(())
        });
    tracer.stop();
    started.send(()).expect("the other thread");
    other.join().expect("the other thread");
}
