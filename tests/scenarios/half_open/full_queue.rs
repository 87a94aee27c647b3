//! Half-open connections and full queues: which SYN or ACK is dropped, and to which connection the
//! drop is assigned.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::SockRef;
use tests::peer::KERNEL;
use tests::task::now_ns;
use tests::trace::NULL;
use tests::traffic::*;
use tests::{Lab, Peer, Tracer, eventually};

use super::{
    begin_to_connect, half_open_steps, listen_deferred, port_of_socket, sees_overflows,
    sees_requests, sysctl,
};

/// listen(1) holds one connection more than its limit, so two fill its accept queue.
fn full_queue(tracer: &Tracer, addr: SocketAddr) -> (TcpListener, [TcpStream; 2]) {
    let listener = listen_at(addr, 1);
    let clients = [connect_to(addr), connect_to(addr)];
    tracer.wait_for(2, "two connections in the queue", |line| {
        line.is("transition") && line["side"] == "server" && line["newstate"] == "ESTABLISHED"
    });
    (listener, clients)
}

fn syn_meets_a_full_accept_queue(address: IpAddr) {
    let lab = Lab::new();
    let port = lab.port();
    let addr = SocketAddr::new(address, port);
    let tracer = lab.trace();
    let (listener, clients) = full_queue(&tracer, addr);
    let third = begin_to_connect(addr);
    let third_port = port_of_socket(&third);
    // The SYN is sent again after a second.
    tracer.wait_for(1, "the SYN to be sent again", |line| {
        line.is("retransmit") && line["lport"] == third_port
    });
    drop((third, clients, listener));
    tracer.wait_for_ends(5);
    let trace = tracer.stop();

    assert_eq!(trace.connections("server").len(), 2);
    let summary = trace.listener_summary(port);
    summary.shows(&[("backlog_max", &1)]);
    let overflows: Vec<_> = trace.own("overflow").collect();
    if !sees_overflows(&trace) {
        assert!(overflows.is_empty());
        summary.shows(&[("overflows", &NULL)]);
        return;
    }
    assert!(!overflows.is_empty(), "an overflow line");
    summary.shows(&[("overflows", &overflows.len())]);
    for line in overflows {
        line.shows(&[
            ("conn", &NULL),
            ("listener", &trace.listen()["conn"]),
            ("dropped", &"syn"),
            ("queue", &"accept"),
            ("lport", &port),
            ("raddr", &address.to_string()),
            ("rport", &third_port),
            ("queue_len", &2),
            ("queue_max", &1),
        ]);
    }
    let mut clients = trace.connections("client");
    clients.retain(|line| line["lport"] == third_port);
    let n = trace.own("overflow").count();
    clients[0].shows(&[("overflows", &n), ("ended", &"given_up")]);
    let explanation = clients[0].text("explanation");
    let listener = trace.listen().num("conn");
    let met = format!("its SYN met a full accept queue of #{listener} (2 queued, limit 1)");
    assert!(
        explanation.starts_with(&met) && explanation.contains("SYN_SENT lasted"),
        "{explanation}"
    );
}

/// A client whose SYN is dropped, and whose repeated SYN is answered.
#[test]
fn an_answered_syn_reports_its_earlier_overflow() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let addr = SocketAddr::new(LOOPBACK, port);
    let (listener, clients) = full_queue(&tracer, addr);
    let third = begin_to_connect(addr);
    let third_port = port_of_socket(&third);
    let accepted = accept(&listener);
    tracer.wait_for(1, "the third connection to be ESTABLISHED", |line| {
        line.is("transition")
            && line["side"] == "server"
            && line["newstate"] == "ESTABLISHED"
            && line["rport"] == third_port
    });
    drop((third, clients, accepted, listener));
    tracer.wait_for_ends(6);
    let trace = tracer.stop();

    let server = trace.server_of(third_port);
    let mut clients = trace.connections("client");
    clients.retain(|line| line["lport"] == third_port);
    if !sees_overflows(&trace) {
        for line in [server, clients[0]] {
            line.shows(&[("overflows", &NULL), ("first_overflow_mono_ns", &NULL)]);
        }
        let likely = clients[0].text("explanation");
        assert!(
            likely.starts_with("its SYN likely met a full accept queue of #"),
            "{likely}"
        );
        assert!(likely.contains("(2 queued, limit 1) once"), "{likely}");
        return;
    }
    let first = trace.own("overflow").next().expect("an overflow line");
    for line in [server, clients[0]] {
        line.shows(&[("first_overflow_mono_ns", &first["mono_ns"])]);
        assert!(line.num("overflows") >= 1, "{line}");
    }
    let waited = clients[0].num("handshake_ns");
    assert!(waited >= 900_000_000, "{waited}");
    assert!(
        server
            .text("reason")
            .contains("earlier, but met a full accept queue (2 queued, limit 1)"),
        "{server}"
    );
    let explanation = clients[0].text("explanation");
    assert!(
        explanation.contains("so SYN_SENT lasted 1."),
        "{explanation}"
    );
}

#[test]
fn a_syn_dropped_at_a_full_accept_queue_is_reported() {
    syn_meets_a_full_accept_queue(LOOPBACK);
}

#[test]
fn a_syn_dropped_at_a_full_accept_queue_is_reported_over_ipv6() {
    syn_meets_a_full_accept_queue(Ipv6Addr::LOCALHOST.into());
}

/// Without SYN cookies the backlog limits the number of a listener's request sockets. Some kernels
/// allow one more.
#[test]
fn a_syn_dropped_at_a_full_syn_queue_is_reported() {
    const BACKLOG: i32 = 2;
    let lab = Lab::new();
    sysctl("tcp_syncookies", "0");
    let port = lab.port();
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let listener = listen_at((KERNEL, port).into(), BACKLOG);
    // Each half-open connection waits for an ACK that never comes.
    let half_open: Vec<u16> = (0..BACKLOG)
        .map(|_| {
            let mut talk = peer.talk(lab.port(), port);
            talk.syn();
            talk.receive_syn_ack();
            talk.own()
        })
        .collect();
    peer.talk(lab.port(), port).syn();
    let mut dropped = peer.talk(lab.port(), port);
    let syn_ns = dropped.syn()[0];
    dropped.receive_nothing_for(Duration::from_millis(300));
    let silent_ns = now_ns();
    drop(listener);
    let trace = tracer.stop();

    assert!(dropped.received().is_empty());
    let mut overflows: Vec<_> = trace.own("overflow").collect();
    overflows.retain(|line| line["rport"] == dropped.own());
    if sees_overflows(&trace) {
        let [line] = overflows[..] else {
            panic!("{overflows:#?}");
        };
        line.shows(&[
            ("conn", &NULL),
            ("listener", &trace.listen()["conn"]),
            ("dropped", &"syn"),
            ("queue", &"syn"),
            ("lport", &port),
            ("queue_max", &BACKLOG),
        ]);
        assert!(line.num("queue_len") >= BACKLOG as u64, "{line}");
        assert!((syn_ns..silent_ns).contains(&line.num("mono_ns")));
    } else {
        assert!(overflows.is_empty());
    }
    if !sees_requests(&trace) {
        return;
    }
    for (ahead, own) in half_open.into_iter().enumerate() {
        trace.server_of(own).shows(&[
            ("verdict", &"unfinished"),
            ("syn_queue_ahead", &ahead),
            ("established_mono_ns", &NULL),
        ]);
    }
}

/// Lets a final ACK arrive at a full accept queue. The connection waits half-open for its data
/// (TCP_DEFER_ACCEPT) while others fill the queue.
fn ack_meets_a_full_queue(abort: bool) {
    let lab = Lab::new();
    if abort {
        sysctl("tcp_abort_on_overflow", "1");
    }
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen_deferred(port);
    // A second listen() changes the limit.
    // SAFETY: a listening descriptor.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 1) }, 0);
    let mut late = connect(port);
    let late_port = port_of(&late);
    let mut early = [connect(port), connect(port)];
    early.iter_mut().for_each(send_text);
    tracer.wait_for(2, "two connections in the queue", |line| {
        line.is("transition") && line["side"] == "server" && line["newstate"] == "ESTABLISHED"
    });
    send_text(&mut late);
    if abort {
        eventually("the RST", || SockRef::from(&late).take_error().ok()?);
    }
    std::thread::sleep(Duration::from_millis(50));
    drop((late, early));
    let closed = now_ns();
    drop(listener);
    std::thread::sleep(Duration::from_millis(50));
    let trace = tracer.stop();

    let overflows: Vec<_> = trace.own("overflow").collect();
    if !sees_overflows(&trace) {
        assert!(overflows.is_empty());
        return;
    }
    let first = overflows.first().expect("an overflow line");
    first.shows(&[
        ("dropped", &"ack"),
        ("queue", &"accept"),
        ("rport", &late_port),
        ("queue_len", &2),
        ("queue_max", &1),
        ("aborted", &abort),
        ("listener", &trace.listen()["conn"]),
    ]);
    assert!(first.num("mono_ns") < closed);
    let mut client = trace.connections("client");
    client.retain(|line| line["lport"] == late_port);
    let unfinished = trace.server_of(late_port);
    client[0].shows(&[("overflows", &overflows.len())]);
    assert!(
        client[0]
            .text("explanation")
            .starts_with("its final ACK met a full accept queue of #"),
        "{}",
        client[0]
    );
    unfinished.shows(&[
        ("overflows", &overflows.len()),
        ("first_overflow_mono_ns", &first["mono_ns"]),
        ("peer_conn", &client[0]["conn"]),
        ("conn", &first["conn"]),
        ("verdict", &"unfinished"),
        ("established_mono_ns", &NULL),
        ("syn_source", &"request_sock"),
        ("complete", &true),
    ]);
    assert!(
        unfinished.text("reason").contains("accept queue"),
        "{unfinished}"
    );
    if abort {
        unfinished.shows(&[("half_open_end", &"overflow"), ("state", &"CLOSE")]);
        let summary = trace.listener_summary(port);
        summary.shows(&[("half_open_failed", &1), ("overflows", &overflows.len())]);
        let last = half_open_steps(&trace);
        let last = last
            .iter()
            .rfind(|line| line["conn"] == unfinished["conn"])
            .expect("its end");
        last.shows(&[("oldstate", &"NEW_SYN_RECV"), ("newstate", &"CLOSE")]);
        assert!(last.num("in_state_ns") == unfinished.num("half_open_ns"));
    }
}

#[test]
fn an_ack_dropped_at_a_full_accept_queue_is_reported() {
    ack_meets_a_full_queue(false);
}

#[test]
fn an_overflow_aborts_the_connection_with_tcp_abort_on_overflow() {
    ack_meets_a_full_queue(true);
}
