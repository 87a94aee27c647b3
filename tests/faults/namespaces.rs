//! Namespaces that end while they are traced.

use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;
use tests::netns::Netns;
use tests::programs::Programs;
use tests::run::{Running, tcptrace_trace};
use tests::task::{join, spawn};
use tests::tracer::await_session;
use tests::traffic::*;
use tests::{Lab, Trace, invariants};

use crate::{ended, ends_with_its_summary};

/// Plays connections in a new namespace, which ends with the thread: with an open listener, a
/// waiting connection, and buckets in TIME_WAIT.
fn in_a_short_namespace(port: u16) -> Netns {
    let (_, played) = spawn(move || {
        let netns = Netns::enter();
        talk(port);
        let listener = listen(port);
        let waits = connect_queued(port);
        drop((listener, waits));
        netns
    });
    join(played)
}

/// Snapshots of all namespaces run meanwhile.
#[test]
fn namespaces_that_end_while_they_are_traced_are_complete() {
    const NAMESPACES: usize = 30;
    let lab = Lab::new();
    let port = lab.port();
    let ports = port.to_string();
    let running = Running::start(tcptrace_trace(&["-o", "json", "-p", &ports]));
    await_session(&running);
    let programs = Programs::of(running.pid());
    let namespaces: Vec<Netns> = (0..NAMESPACES)
        .map(|n| {
            sleep(Duration::from_millis(n as u64 % 4 * 50));
            in_a_short_namespace(port)
        })
        .collect();
    sleep(Duration::from_millis(1500));
    running.signal(Signal::SIGINT);
    let ended = ended(running, &programs);
    ends_with_its_summary(&ended);
    let trace = Trace::read(&ended.stdout, lab.netns);
    invariants::check(&trace);
    trace.summary().shows(&[
        ("servers", &(2 * NAMESPACES as u64)),
        ("clients", &(2 * NAMESPACES as u64)),
    ]);
    for netns in namespaces {
        let own = |event| {
            let lines = trace.lines.iter();
            lines.filter(move |it| it.is(event) && it["netns"] == netns.inode)
        };
        // The kernel may give the number of an ended namespace to the next one.
        assert!(own("connection").count() >= 4, "{netns:?}");
    }
}

/// A filter by a namespace stays valid after its end: nothing else is shown.
#[test]
fn a_filter_by_a_namespace_that_ends_shows_only_that_one() {
    let lab = Lab::new();
    let port = lab.port();
    let (ready, entered) = std::sync::mpsc::channel();
    let (go, start) = std::sync::mpsc::channel::<()>();
    let (_, playing) = spawn(move || {
        let netns = Netns::enter();
        ready.send(netns).expect("the test waits");
        start.recv().expect("the test runs");
        talk(port);
    });
    let netns = entered.recv().expect("a namespace");
    let inode = netns.inode.to_string();
    let running = Running::start(tcptrace_trace(&["-o", "json", "--netns", &inode]));
    await_session(&running);
    let programs = Programs::of(running.pid());
    go.send(()).expect("it waits");
    join(playing);
    talk(port);
    sleep(Duration::from_millis(1200));
    running.signal(Signal::SIGINT);
    let ended = ended(running, &programs);
    ends_with_its_summary(&ended);
    let trace = Trace::read(&ended.stdout, netns);
    invariants::check(&trace);
    assert_eq!(trace.connections("server").len(), 1);
    trace.summary().shows(&[("servers", &1), ("clients", &1)]);
    drop(lab);
}
