//! Several acceptors: the listener and the process that took a connection.

use std::collections::HashMap;
use std::os::fd::AsRawFd;

use socket2::SockRef;
use tests::acceptor::Acceptor;
use tests::task::{become_user, join, spawn};
use tests::trace::NULL;
use tests::traffic::*;
use tests::{Lab, Trace};

#[test]
fn each_accept_names_its_own_listener_of_a_shared_port() {
    const CLIENTS: usize = 40;
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();

    let listeners = [listen_sharing(port), listen_sharing(port)];
    let cookies = listeners
        .each_ref()
        .map(|listener| SockRef::from(listener).cookie().unwrap());
    let clients: Vec<_> = (0..CLIENTS).map(|_| connect(port)).collect();
    // The kernel chose a listener for each client, so every queue is emptied.
    let mut took = HashMap::new();
    for (n, listener) in listeners.iter().enumerate() {
        listener.set_nonblocking(true).unwrap();
        while let Ok((_, peer)) = listener.accept() {
            took.insert(peer.port(), n);
        }
    }
    assert_eq!(took.len(), CLIENTS);
    drop(clients);
    tracer.wait_for_ends(2 * CLIENTS);
    let trace = tracer.stop();

    let listens = trace.listens();
    for (listen, cookie) in listens.iter().zip(cookies) {
        // Some kernels offer the socket cookie only to some types of eBPF programs.
        assert!(listen.maybe("cookie").is_none_or(|it| it == cookie));
    }
    assert_ne!(listens[0]["conn"], listens[1]["conn"]);
    for (client, n) in took {
        trace
            .accept_of(client)
            .shows(&[("listener", &listens[n]["conn"])]);
    }
    assert!(
        trace.failed_accepts().len() == 2,
        "one EAGAIN for each listener"
    );
}

#[test]
fn accepts_on_a_shared_listener_name_their_process() {
    const ROUNDS: usize = 3;
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();

    let listener = listen(port);
    let mut acceptors = [Acceptor::start(&listener), Acceptor::start(&listener)];
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        for acceptor in &mut acceptors {
            let client = connect(port);
            assert_eq!(acceptor.accept_one(), port_of(&client));
            took.push((port_of(&client), acceptor.pid()));
        }
    }
    tracer.wait_for_ends(2 * took.len());
    let trace = tracer.stop();

    for (client, pid) in took {
        for line in [trace.accept_of(client), trace.server_of(client)] {
            line.shows(&[("pid", &pid), ("tid", &pid), ("comm", &"tests-helper")]);
        }
        trace.server_of(client).shows(&[("pid_source", &"accept")]);
        let listener = &trace.listen()["conn"];
        trace.accept_of(client).shows(&[("listener", listener)]);
    }
}

/// A server that started as root and dropped its rights is reported with its user.
#[test]
fn a_socket_belongs_to_the_user_who_made_it() {
    const USER: u32 = 12_345;
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let user = move || {
        become_user(USER);
        listen(port)
    };
    let listener = join(spawn(user).1);
    let client = connect(port);
    let accepted = port_of(&client);
    close(client, accept(&listener).stream);
    let client = connect_queued(port);
    let queued = port_of(&client);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();
    drop(client);

    trace.listen().shows(&[("uid", &USER)]);
    for client in trace.connections("client") {
        client.shows(&[("uid", &0)]);
    }
    trace.server_of(queued).shows(&[("uid", &USER)]);
    // From accept() on, the connection has the acceptor's uid.
    trace.server_of(accepted).shows(&[("uid", &0)]);
}

/// Whether the trace sees the argument of listen(), which needs Linux 5.15.
fn sees_requested_backlog(trace: &Trace) -> bool {
    !trace.session().text("kernel").starts_with("5.10.")
}

#[test]
fn the_requested_backlog_is_reported_even_if_it_is_clipped() {
    const SOMAXCONN: u32 = 16;
    let lab = Lab::new();
    std::fs::write("/proc/sys/net/core/somaxconn", SOMAXCONN.to_string()).expect("a sysctl");
    let tracer = lab.trace();
    let asked = [
        (4, 4, false),
        (16, 16, false),
        (1000, 16, true),
        (-1, 16, true),
    ];
    let ports = asked.map(|(backlog, ..)| {
        let port = lab.port();
        drop(listen_at((LOOPBACK, port).into(), backlog));
        port
    });
    tracer.wait_for(asked.len(), "the listeners to close", |line| {
        line.is("transition") && line["oldstate"] == "LISTEN"
    });
    let trace = tracer.stop();

    let known = sees_requested_backlog(&trace);
    for ((listen, port), (backlog, in_force, clipped)) in
        trace.listens().into_iter().zip(ports).zip(asked)
    {
        for line in [listen, &trace.listener_summary(port)] {
            line.shows(&[
                ("backlog_max", &in_force),
                ("somaxconn", &SOMAXCONN),
                ("backlog_asked", &known.then_some(backlog)),
                ("backlog_clipped", &known.then_some(clipped)),
            ]);
        }
    }
    let closed = trace
        .own("transition")
        .find(|line| line["oldstate"] == "LISTEN")
        .expect("the end of a listener");
    closed.shows(&[("backlog_max", &NULL), ("somaxconn", &NULL)]);
}

/// A second listen() changes the limit without a state change, so its argument is not seen.
#[test]
fn a_second_listen_changes_only_the_queue_limit() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen_at((LOOPBACK, port).into(), 4);
    // SAFETY: a listening descriptor.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 9) }, 0);
    let client = connect(port);
    close(client, accept(&listener).stream);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    let listen = trace.listen();
    assert!(listen.maybe("backlog_asked").is_none_or(|asked| asked == 4));
    let summary = trace.listener_summary(port);
    summary.shows(&[("backlog_max", &9), ("backlog_asked", &NULL)]);
}
