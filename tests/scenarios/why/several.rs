//! Several acceptors of one listener, and listeners that share a port.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tests::Lab;
use tests::task::{join, spawn};
use tests::trace::Line;
use tests::traffic::*;

use super::{TRIES, WHY, adds_up, assert_mainly, assert_near, delay, is_known, trace};

/// Both workers are in a handler when the connection comes. The one that is done first accepts it.
#[test]
fn a_connection_behind_two_busy_workers_names_both() {
    let mut tries = (0..TRIES).map(|_| behind_two_busy_workers());
    let late = tries.find(|(line, _)| is_known(line));
    let (line, [quick, slow]) = late.expect("what the acceptor did is known");
    let line = &line;
    line.shows(&[("acceptor_tid", &quick)]);
    assert_mainly(line, "blocked");
    adds_up(line);
    let others = line["other_acceptors"].as_array().expect("a list");
    assert_eq!(others.len(), 1, "{line}");
    assert_eq!(others[0]["tid"], slow);
    let mainly = others[0]["mainly"].as_str().expect("a text");
    assert!(mainly.contains("clock_nanosleep"), "{mainly}");
    let blocked_ns = others[0]["blocked_ns"].as_u64().expect("a number");
    assert_near(
        "the other's block",
        blocked_ns,
        line.num("accept_queue_ns"),
        line,
    );
    assert!(
        line.text("late_because").contains("the other acceptor, "),
        "{line}"
    );
}

/// Returns the line of the late connection, and the threads of both workers.
fn behind_two_busy_workers() -> (Line, [u32; 2]) {
    let lab = Lab::alone();
    let port = lab.port();
    let tracer = trace(&lab, WHY);
    let listener = Arc::new(listen(port));
    let clients = [connect(port), connect(port)];
    let (ready, is_ready) = channel();
    let worker = |handler: Duration| {
        let (listener, ready) = (listener.clone(), ready.clone());
        spawn(move || {
            drop(accept(&listener).stream);
            ready.send(()).expect("a receiver");
            sleep(handler);
            let _ = listener.accept();
        })
    };
    let (quick, quick_thread) = worker(delay());
    let (slow, slow_thread) = worker(2 * delay());
    is_ready.recv().expect("a worker");
    is_ready.recv().expect("a worker");
    let late = connect(port);
    let late_port = port_of(&late);
    join(quick_thread);
    let last = connect(port);
    join(slow_thread);
    drop((clients, late, last));
    tracer.wait_for_ends(8);
    let trace = tracer.stop_lossy();
    (trace.server_of(late_port).clone(), [quick, slow])
}

/// The second listener's thread never calls accept().
#[test]
fn a_listener_that_nobody_accepts_from_has_no_known_acceptor() {
    let lab = Lab::alone();
    let port = lab.port();
    let tracer = trace(&lab, WHY);
    let never = listen_sharing(port);
    let client = connect(port);
    let began = Instant::now();
    let client_port = port_of(&client);
    sleep(delay());
    drop(never);
    let waited = began.elapsed();
    drop(client);
    tracer.wait_for_ends(2);
    let trace = tracer.stop_lossy();
    let line = trace.server_of(client_port);
    line.shows(&[("verdict", &"never_accepted")]);
    let parts = ["running", "runnable", "blocked", "unseen"];
    let sum: u64 = parts
        .iter()
        .map(|part| line.num(&format!("acceptor_{part}_ns")))
        .sum();
    assert_near("the wait", sum, waited.as_nanos() as u64, line);
    assert!(line.text("late_because").contains("accept()"), "{line}");
}
