//! Verdicts, listeners and connection numbers in the setups of real servers.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use io_uring::squeue::Flags;
use nix::sys::signal::Signal;
use tests::peer::{KERNEL, Peer, Segment, Talk};
use tests::run::{self, Running};
use tests::traffic::{reset as reset_now, *};
use tests::{Lab, Trace, fast_open};

use crate::io_uring::{accept_from, completed, ring, submit};
use crate::mptcp::mptcp;

/// Returns the summary's entry of one of several listeners on a port.
fn row_of(trace: &Trace, conn: &serde_json::Value) -> serde_json::Value {
    let rows = trace.summary()["listeners"].as_array().expect("a list");
    let mut rows = rows.iter().filter(|row| row["conn"] == *conn);
    rows.next().expect("the listener is in the summary").clone()
}

fn rows(trace: &Trace) -> usize {
    let rows = trace.summary()["listeners"].as_array().expect("a list");
    let inode = trace.netns.inode;
    rows.iter().filter(|row| row["netns"] == inode).count()
}

/// MPTCP closes its own socket, and leaves no mark of that at the TCP socket.
#[test]
fn a_served_mptcp_connection_ends_orderly() {
    let lab = Lab::new();
    let here = SocketAddr::from((LOOPBACK, lab.port()));
    let Some(listener) = mptcp() else { return };
    let tracer = lab.trace();
    listener.bind(&here.into()).unwrap();
    listener.listen(4).unwrap();
    let listener = TcpListener::from(listener);
    let socket = mptcp().expect("one more");
    socket.connect(&here.into()).expect("connect");
    let mut client = TcpStream::from(socket);
    let mut served = accept(&listener).stream;
    send_text(&mut client);
    receive_text(&mut served);
    drop(client);
    sleep(Duration::from_millis(200));
    drop(served);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();
    let server = trace.server();
    server.shows(&[
        ("ended", &"orderly"),
        ("closed_first", &"remote"),
        ("listener", &trace.listen()["conn"]),
        ("listener_source", &"accept"),
        ("complete", &true),
    ]);
    assert_ne!(server["verdict"], "violated");
}

/// accept() of an MPTCP socket locks the MPTCP socket only. Another CPU may still make the TCP
/// socket ESTABLISHED, so accept() may return to a polling acceptor before that.
#[test]
fn a_polling_mptcp_acceptor_gets_no_violated_verdict() {
    const CLIENTS: usize = 300;
    // The polling acceptor's calls that find no connection are events, too. There are so many that
    // other scenarios would lose events.
    let lab = Lab::alone();
    let here = SocketAddr::from((LOOPBACK, lab.port()));
    let Some(listener) = mptcp() else { return };
    let tracer = lab.trace();
    listener.bind(&here.into()).unwrap();
    listener.listen(64).unwrap();
    let listener = TcpListener::from(listener);
    listener.set_nonblocking(true).unwrap();
    let (_, acceptor) = tests::task::spawn(move || {
        let mut accepted = 0;
        while accepted < CLIENTS {
            match listener.accept() {
                Ok(_) => accepted += 1,
                Err(_) => std::hint::spin_loop(),
            }
        }
    });
    for _ in 0..CLIENTS {
        let socket = mptcp().expect("one more");
        socket.connect(&here.into()).expect("connect");
    }
    tests::task::join(acceptor);
    let trace = tracer.stop();
    let servers = trace.connections("server");
    assert_eq!(servers.len(), CLIENTS);
    for line in servers {
        let verdict = line.text("verdict");
        assert!(
            ["queued", "awaited", "overlapped"].contains(&verdict),
            "{line}"
        );
    }
}

/// Makes a Fast Open child socket in SYN_RECV from a SYN with data.
fn fast_open_child<'a>(peer: &'a Peer, lab: &Lab, port: u16) -> Talk<'a> {
    let mut talk = peer.talk(lab.port(), port);
    let syn = Segment {
        syn: true,
        ack: None,
        data: TEXT.to_vec(),
        ..talk.segment()
    };
    talk.send(syn);
    talk.receive("a SYN-ACK", |it| it.syn);
    talk
}

/// A child socket that ends before accept() is no longer marked as one by Fast Open.
#[test]
fn a_fast_open_child_that_fails_in_the_queue_is_accepted_by_fast_open() {
    for by_icmp in [false, true] {
        let lab = Lab::new();
        fast_open::allow();
        let peer = Peer::new(&lab);
        let port = lab.port();
        let tracer = lab.trace();
        let listener = fast_open::listen_at((KERNEL, port).into());
        let talk = fast_open_child(&peer, &lab, port);
        if by_icmp {
            let received = talk.received();
            let syn_ack = received
                .iter()
                .find(|it| it.segment.syn)
                .expect("a SYN-ACK");
            peer.unreachable(syn_ack);
        } else {
            let end = talk.segment();
            // The segment follows the SYN and its data.
            talk.send(Segment {
                rst: true,
                seq: end.seq + 1 + TEXT.len() as u32,
                ..end
            });
        }
        tracer.wait_for(1, "the child to fail", |line| {
            line.is("transition") && line["oldstate"] == "SYN_RECV" && line["newstate"] == "CLOSE"
        });
        drop(accept(&listener).stream);
        tracer.wait_for_ends(1);
        let trace = tracer.stop();
        let ended = if by_icmp {
            "unreachable"
        } else {
            "reset_in_queue"
        };
        trace.server().shows(&[
            ("verdict", &"fast_open"),
            ("ended", &ended),
            ("complete", &true),
        ]);
        let row = trace.listener_summary(port);
        row.shows(&[("connections", &1), ("accepted", &1)]);
    }
}

/// The server answers and closes before the final ACK, so its socket is never ESTABLISHED.
#[test]
fn a_fast_open_connection_closed_before_the_ack_counts_as_a_connection() {
    let lab = Lab::new();
    fast_open::allow();
    let peer = Peer::new(&lab);
    let port = lab.port();
    let tracer = lab.trace();
    let listener = fast_open::listen_at((KERNEL, port).into());
    let mut talk = fast_open_child(&peer, &lab, port);
    let mut accepted = accept(&listener).stream;
    receive_text(&mut accepted);
    drop(accepted);
    talk.receive_fin();
    let end = talk.segment();
    talk.send(Segment {
        rst: true,
        seq: end.seq + 1 + TEXT.len() as u32,
        ..end
    });
    tracer.wait_for_ends(1);
    let trace = tracer.stop();
    let server = trace.server();
    server.shows(&[
        ("verdict", &"fast_open"),
        ("established_mono_ns", &None::<u64>),
    ]);
    let row = trace.listener_summary(port);
    row.shows(&[("connections", &1), ("accepted", &1)]);
    fast_open::shows_birth(&trace, server);
}

/// No system call shows an accept() by io_uring, but the socket has a descriptor.
#[test]
fn a_connection_accepted_by_io_uring_is_not_never_accepted() {
    let lab = Lab::new();
    let port = lab.port();
    let Some(mut ring) = ring() else { return };
    let tracer = lab.trace();
    let listener = listen(port);
    let mut served = connect_queued(port);
    submit(&mut ring, &accept_from(&listener, Flags::empty()));
    let mut accepted = completed(&mut ring);
    send_text(&mut served);
    receive_text(&mut accepted);
    let queued = connect_queued(port);
    tracer.wait_for(4, "all ends to be ESTABLISHED", |line| {
        line.is("transition") && line["newstate"] == "ESTABLISHED"
    });
    let trace = tracer.stop();
    let verdict = match trace.accept_attach_method() {
        "syscall" => "unknown",
        _ => "queued",
    };
    let of = |client: &TcpStream| trace.server_of(port_of(client)).clone();
    of(&served).shows(&[("verdict", &verdict), ("complete", &true)]);
    of(&queued).shows(&[("verdict", &"never_accepted")]);
}

#[test]
fn a_connection_reset_before_io_uring_accepts_it_is_not_never_accepted() {
    let lab = Lab::new();
    let port = lab.port();
    let Some(mut ring) = ring() else { return };
    let tracer = lab.trace();
    let listener = listen(port);
    let reset = connect_queued(port);
    let taken = port_of(&reset);
    reset_now(reset);
    tracer.wait_for(1, "the queued end to be reset", |line| {
        line.is("transition") && line["side"] == "server" && line["newstate"] == "CLOSE"
    });
    submit(&mut ring, &accept_from(&listener, Flags::empty()));
    drop(completed(&mut ring));
    let reset = connect_queued(port);
    let left = port_of(&reset);
    reset_now(reset);
    tracer.wait_for(2, "the other connection to be reset", |line| {
        line.is("transition") && line["side"] == "server" && line["newstate"] == "CLOSE"
    });
    let trace = tracer.stop();
    let (one, other) = (trace.server_of(taken), trace.server_of(left));
    if trace.accept_attach_method() != "syscall" {
        one.shows(&[("verdict", &"queued")]);
        return other.shows(&[("verdict", &"never_accepted")]);
    }
    one.shows(&[("verdict", &"unknown")]);
    // The queue's length proves the verdict only if nothing else can be in the queue.
    let verdict = other.text("verdict");
    assert!(["unknown", "never_accepted"].contains(&verdict), "{other}");
}

/// Two processes share a port. One is killed, and its queued connections are reset.
#[test]
fn connections_queued_at_a_killed_worker_are_reported_at_once() {
    const CLIENTS: usize = 16;
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let good = listen_sharing(port);
    let mut stuck = run::helper(&["listen-sharing", &port.to_string()]);
    stuck.stdin(Stdio::piped());
    let stuck = Running::start(stuck);
    stuck
        .stdout()
        .wait_until("the helper to listen", |lines| lines.first().map(drop));
    let clients: Vec<_> = (0..CLIENTS).map(|_| connect_queued(port)).collect();
    good.set_nonblocking(true).unwrap();
    let mut served = vec![];
    while let Ok((stream, _)) = good.accept() {
        served.push(stream);
    }
    let victims = CLIENTS - served.len();
    stuck.signal(Signal::SIGKILL);
    let ends = tracer.wait_for(victims, "the queued connections to be reported", |line| {
        line.is("connection") && line["side"] == "server"
    });
    for line in &ends {
        line.shows(&[
            ("verdict", &"never_accepted"),
            ("listener_source", &"clone"),
        ]);
    }
    drop((served, clients));
    let trace = tracer.stop();
    let listens = trace.listens();
    let count = |conn, field| row_of(&trace, conn)[field].as_u64().unwrap() as usize;
    let (good, stuck) = (&listens[0]["conn"], &listens[1]["conn"]);
    assert_eq!(rows(&trace), 2);
    assert_eq!(count(good, "accepted"), CLIENTS - victims);
    assert_eq!(count(good, "never_accepted"), 0);
    assert_eq!(count(stuck, "connections"), victims);
    assert_eq!(count(stuck, "never_accepted"), victims);
    for line in ends {
        line.shows(&[("listener", stuck)]);
    }
}

/// TPROXY gives a connection to a listener on another port than its destination.
#[test]
fn a_tproxy_connection_belongs_to_the_listener_that_got_it() {
    let lab = Lab::new();
    let [asked, given] = [lab.port(), lab.port()];
    for rule in [
        "add table ip t".to_owned(),
        "add chain ip t p { type filter hook prerouting priority -150; }".to_owned(),
        format!("add rule ip t p tcp dport {asked} tproxy to :{given} accept"),
    ] {
        let Ok(nft) = Command::new("nft").args(rule.split(' ')).output() else {
            return eprintln!("skipped: nft is not installed");
        };
        let error = String::from_utf8_lossy(&nft.stderr);
        if error.contains("No such file or directory") {
            return eprintln!("skipped: this kernel has no nft_tproxy");
        }
        assert!(nft.status.success(), "nft {rule}: {error}");
    }
    let tracer = lab.trace();
    let direct = listen(asked);
    let transparent = listen_transparent(given);
    let taken = connect_queued(asked);
    drop(accept(&transparent));
    let left = connect_queued(asked);
    tracer.wait_for(2, "both to be ESTABLISHED", |line| {
        line.is("transition") && line["side"] == "server" && line["newstate"] == "ESTABLISHED"
    });
    let trace = tracer.stop();
    let listens = trace.listens();
    let given_to = &listens[1]["conn"];
    assert_eq!(listens[1]["lport"], given);
    assert_eq!(rows(&trace), 2, "exactly two listeners");
    trace.server_of(port_of(&taken)).shows(&[
        ("verdict", &"queued"),
        ("listener", given_to),
        ("listener_source", &"accept"),
    ]);
    trace.server_of(port_of(&left)).shows(&[
        ("verdict", &"never_accepted"),
        ("listener", given_to),
        ("listener_source", &"clone"),
    ]);
    for (listener, connections, accepted) in [(given_to, 2, 1), (&listens[0]["conn"], 0, 0)] {
        let row = row_of(&trace, listener);
        assert_eq!(row["connections"], connections, "{row}");
        assert_eq!(row["accepted"], accepted, "{row}");
    }
    drop(direct);
}

/// `ss -K` closes a listener twice.
#[test]
fn a_listener_that_is_killed_is_no_connection() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let _listener = listen(port);
    let at = format!(":{port}");
    let killed = Command::new("ss")
        .args(["-K", "state", "listening", "sport", "=", &at])
        .output();
    if !killed.is_ok_and(|it| String::from_utf8_lossy(&it.stdout).contains(&at)) {
        return eprintln!("skipped: ss -K cannot kill here");
    }
    tracer.wait_for(1, "the listener to close", |line| {
        line.is("transition") && line["oldstate"] == "LISTEN"
    });
    let trace = tracer.stop();
    assert!(trace.own("connection").next().is_none());
    assert_eq!(rows(&trace), 1);
    let closed = trace
        .own("transition")
        .find(|it| it["oldstate"] == "LISTEN");
    let closed = closed.expect("the end of the listener");
    closed.is_caused_by("killed", "tcp_abort");
    closed.shows(&[("side", &"listener"), ("comm", &"ss")]);
}

/// A listener that is shut down was not killed from outside.
#[test]
fn a_listener_that_is_shut_down_is_not_killed() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen(port);
    let socket = socket2::SockRef::from(&listener);
    socket.shutdown(Shutdown::Both).expect("shutdown");
    tracer.wait_for(1, "the listener to close", |line| {
        line.is("transition") && line["oldstate"] == "LISTEN"
    });
    let trace = tracer.stop();
    let closed = trace
        .own("transition")
        .find(|it| it["oldstate"] == "LISTEN");
    assert_ne!(closed.expect("its end")["cause"], "killed");
}

/// The final ACK is lost and the SYN-ACK sent again. The late ACK belongs to the same connection.
#[test]
fn a_late_ack_has_the_connection_number_of_its_connection() {
    let lab = Lab::new();
    let peer = Peer::new(&lab);
    let port = lab.port();
    let tracer = lab.trace_with(&["--segments"]);
    let listener = listen_at((KERNEL, port).into(), 4);
    let mut talk = peer.talk(lab.port(), port);
    talk.syn();
    talk.receive_syn_ack();
    talk.receive_syn_ack();
    talk.ack();
    let accepted = accept(&listener).stream;
    drop(accepted);
    talk.receive_fin();
    talk.rst();
    tracer.wait_for_ends(1);
    let trace = tracer.stop();
    let server = trace.server();
    let is_ack =
        |line: &&tests::trace::Line| line["flags"] == "." && line["direction"] == "received";
    let acks: Vec<_> = trace.own("segment").filter(is_ack).collect();
    assert!(!acks.is_empty());
    for ack in acks {
        ack.shows(&[("conn", &server["conn"])]);
    }
}
