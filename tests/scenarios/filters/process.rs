//! Filters by process, name and side. They are decided when the owner of the connection is known.

use tests::acceptor::Acceptor;
use tests::task::{join, pid, set_name, spawn};

use super::*;

/// The listening process differs from the accepting process. Lines of a connection are held back
/// until its accept().
#[test]
fn pid_filter_shows_the_whole_connection_of_an_acceptor() {
    const ROUNDS: usize = 3;
    let lab = Lab::new();
    let port = lab.port();
    let listener = listen(port);
    let mut acceptors = [Acceptor::start(&listener), Acceptor::start(&listener)];
    // Not the first acceptor. tcptrace may presume that the first one owns a listener that is older
    // than the trace, and then shows connections that it will probably accept.
    let [_, wanted] = acceptors.each_ref().map(Acceptor::pid);
    let tracer = lab.trace_with(&["--pid", &wanted.to_string()]);
    let mut took = [vec![], vec![]];
    for _ in 0..ROUNDS {
        for (acceptor, ports) in acceptors.iter_mut().zip(&mut took) {
            let client = connect_queued(port);
            assert_eq!(acceptor.accept_one(), port_of(&client));
            ports.push(port_of(&client));
        }
    }
    tracer.wait_for_ends(ROUNDS);
    let trace = tracer.stop_lossy();

    let mut shown: Vec<u16> = vec![];
    for server in trace.connections("server") {
        server.shows(&[
            ("pid", &wanted),
            ("pid_source", &"accept"),
            ("verdict", &"queued"),
            ("complete", &true),
        ]);
        let path = trace.path(&server["conn"]);
        assert!(path.starts_with("LISTEN SYN_RECV ESTABLISHED "), "{path}");
        assert!(path.ends_with(" CLOSE"), "{path}");
        shown.push(server.num("rport") as u16);
    }
    shown.sort();
    took[1].sort();
    assert_eq!(shown, took[1]);
    assert!(trace.connections("client").is_empty());
    assert_eq!(trace.accepts().len(), ROUNDS);
    trace.listener_summary(port).shows(&[
        ("connections", &ROUNDS),
        ("accepted", &ROUNDS),
        ("never_accepted", &0),
    ]);
    trace.summary().shows(&[("dropped_lines", &0)]);
}

#[test]
fn pid_filter_shows_both_ends_of_a_process() {
    let lab = Lab::new();
    let (port, other) = (lab.port(), lab.port());
    let tracer = lab.trace_with(&["--pid", &pid().to_string()]);
    let mut helper = tests::run::helper(&["talk", &other.to_string(), "0"]);
    assert!(helper.status().expect("the helper").success());
    talk(port);
    let trace = sides(tracer, 2, |tuple| {
        tuple.lport == port || tuple.rport == port
    });

    only(&trace, |line| {
        line["lport"] == port || line["rport"] == port
    });
    trace.server().shows(&[("pid", &pid())]);
    trace.client().shows(&[("pid", &pid())]);
}

#[test]
fn comm_filter_matches_a_threads_name() {
    let lab = Lab::new();
    let (port, other) = (lab.port(), lab.port());
    let tracer = lab.trace_with(&["--comm", "the-one-we-want"]);
    talk(other);
    let named = move || {
        set_name(c"the-one-we-want");
        talk(port);
    };
    join(spawn(named).1);
    let trace = sides(tracer, 2, |tuple| {
        tuple.lport == port || tuple.rport == port
    });

    only(&trace, |line| {
        line["lport"] == port || line["rport"] == port
    });
    trace.shows_each_once(1);
}

#[test]
fn side_filter_shows_one_side() {
    for side in ["client", "server", "listener"] {
        let lab = Lab::new();
        let port = lab.port();
        let tracer = lab.trace_with(&["--side", side]);
        talk(port);
        tracer.wait_for(1, "the end of that side", |line| {
            line.is("connection") || line.0.get("newstate") == Some(&"CLOSE".into())
        });
        let trace = tracer.stop_lossy();
        only(&trace, |line| line["side"] == side);
        let sides = ["client", "server"].map(|side| trace.connections(side).len());
        assert_eq!(
            sides,
            ["client", "server"].map(|it| usize::from(it == side))
        );
        assert_eq!(trace.listens().len(), usize::from(side == "listener"));
    }
}

/// `--count` counts only connections that the filters show.
#[test]
fn count_counts_only_shown_connections() {
    let lab = Lab::new();
    let (port, other) = (lab.port(), lab.port());
    let tracer = lab.trace_with(&["--side", "client", "--comm", "counts", "--count", "1"]);
    talk(other);
    let named = move || {
        set_name(c"counts");
        talk(port);
    };
    join(spawn(named).1);
    let trace = tracer.ended_lossy(0);
    trace
        .client()
        .shows(&[("rport", &port), ("state", &"CLOSE")]);
    trace.summary().shows(&[("clients", &1), ("servers", &0)]);
}

/// Asserts that all lines of this namespace satisfy a condition.
fn only(trace: &Trace, wanted: impl Fn(&Line) -> bool) {
    for event in ["preexisting", "transition", "accept", "connection"] {
        for line in trace.own(event) {
            assert!(wanted(line), "should be left out: {line}");
        }
    }
}
