//! Statements of courses and books about TCP's states, shown or refuted on the running kernel. Each
//! scenario is named for its lesson. 2 MSL is in [`a_full_time_wait`](super::a_full_time_wait).

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::thread::sleep;
use std::time::Duration;

use tests::task::{join, now_ns, spawn};
use tests::trace::NULL;
use tests::traffic::*;
use tests::{Lab, Line, Peer, Trace, eventually};

use super::wire::closing::ended;
use super::wire::connecting::opened;
use super::wire::half_open::begins_with_the_ack;
use super::wire::*;

/// Segments of a handshake.
const HANDSHAKE: usize = 3;

/// Returns the segments at the kernel's end. The scripted peer has no socket, but its packets pass
/// the same device.
fn on_the_wire<'a>(trace: &'a Trace, laddr: &str, lport: u16) -> Vec<&'a Line> {
    let own = trace.own("segment");
    own.filter(|line| line["laddr"] == laddr && line["lport"] == lport)
        .collect()
}

/// Returns the FIN that closes and the segments after it, without retransmissions. The FIN is
/// unanswered for so long that it is sent again.
fn closing_segments(trace: &Trace, port: u16) -> Vec<&Line> {
    let mut segments = on_the_wire(trace, "10.0.0.1", port).split_off(HANDSHAKE);
    segments.dedup_by_key(|line| {
        (
            line["direction"].clone(),
            line["seq"].clone(),
            line["flags"].clone(),
        )
    });
    segments
}

fn describe(segments: &[&Line]) -> Vec<String> {
    let segments = segments.iter().map(|line| {
        let (direction, flags) = (line.text("direction"), line.text("flags"));
        format!("{direction} {flags}")
    });
    segments.collect()
}

/// Returns the number of sent bytes that the peer has not acknowledged.
fn unacknowledged(stream: &TcpStream) -> i32 {
    let mut bytes = 0;
    // SAFETY: TIOCOUTQ (SIOCOUTQ for a socket) writes an int.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &mut bytes) };
    assert_eq!(result, 0, "SIOCOUTQ");
    bytes
}

// Opening

#[test]
fn a_server_that_never_accepts_is_connected_to_and_sent_data() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen(port);
    // connect() returns: the client is connected.
    let mut client = connect(port);
    send_text(&mut client);
    // The server's kernel has the bytes and acknowledges them.
    eventually("the 18 bytes to be acknowledged", || {
        (unacknowledged(&client) == 0).then_some(())
    });
    drop(listener);
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    trace.client().shows(&[
        ("bytes_acked", &18),
        ("bytes_received", &0),
        ("verdict", &NULL),
    ]);
    trace.server().shows(&[
        ("verdict", &"never_accepted"),
        ("ended", &"closed_in_queue"),
        ("bytes_received", &18),
        ("unread_bytes", &18),
        ("accept_called_mono_ns", &NULL),
        ("accepted_mono_ns", &NULL),
    ]);
    assert_eq!(trace.own("accept").count(), 0);
}

/// Refutes that accept() moves the listener from LISTEN to SYN_RCVD and returns with the third
/// segment.
#[test]
fn accept_neither_leads_to_syn_recv_nor_moves_the_listener() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace_with(&["--segments"]);
    let listener = listen(port);
    let clients = [connect_queued(port), connect_queued(port)];
    let third_segments_ns = now_ns();
    tracer.wait_for(4, "all four ends to be ESTABLISHED", |line| {
        line.is("transition") && line["newstate"] == "ESTABLISHED"
    });
    // Until here nobody has called accept().
    let called_ns = now_ns();
    let [first, second] = clients;
    close(first, accept(&listener).stream);
    close(second, accept(&listener).stream);
    tracer.wait_for_ends(4);
    drop(listener);
    let trace = tracer.stop();

    for server in trace.connections("server") {
        assert_eq!(
            trace.path(&server["conn"]),
            "LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE"
        );
        let steps = trace.transitions(&server["conn"]);
        for step in &steps[..2] {
            assert!(step.num("mono_ns") <= third_segments_ns, "{step}");
            step.shows(&[("context", &"softirq")]);
        }
        steps[0].shows(&[("pid_source", &"presumed")]);
        assert!(server.num("accept_called_mono_ns") >= called_ns);
        server.shows(&[("verdict", &"queued")]);
    }
    // The sockets that went through SYN_RECV are not the listener's.
    assert_eq!(trace.path(&trace.listen()["conn"]), "CLOSE LISTEN CLOSE");
    assert_eq!(trace.listens().len(), 1);
}

#[test]
fn three_segments_open_a_connection() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace_with(&["--segments"]);
    let listener = listen(port);
    let client = connect_queued(port);
    let client_port = port_of(&client);
    drop((client, accept(&listener)));
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    let client = on_the_wire(&trace, "127.0.0.1", client_port);
    let server = on_the_wire(&trace, "127.0.0.1", port);
    assert_eq!(
        describe(&client[..HANDSHAKE]),
        ["sent S", "received S.", "sent ."]
    );
    assert_eq!(
        describe(&server[..HANDSHAKE]),
        ["received S", "sent S.", "received ."]
    );
    for side in [client, server] {
        let [syn, syn_ack, ack] = side[..HANDSHAKE] else {
            panic!("{side:#?}");
        };
        let [x, y] = [syn, syn_ack].map(|line| line.num("seq") as u32);
        // A SYN occupies one sequence number, like a byte.
        let [x_plus_1, y_plus_1] = [x, y].map(|it| it.wrapping_add(1));
        syn.shows(&[("ack", &NULL), ("rel_seq", &0), ("len", &0)]);
        syn_ack.shows(&[("ack", &x_plus_1), ("rel_ack", &1), ("len", &0)]);
        ack.shows(&[
            ("seq", &x_plus_1),
            ("ack", &y_plus_1),
            ("rel_seq", &1),
            ("rel_ack", &1),
            ("len", &0),
        ]);
    }
}

#[test]
fn syn_sent_lasts_while_the_syn_is_dropped() {
    let lab = Lab::new();
    let port = lab.port();
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let (called_ns, calling) = call(port);
    let (mut talk, lost) = peer.called(port);
    let again = talk.receive_syn();
    let answered_ns = talk.syn_ack();
    talk.receive_ack();
    let _client = join(calling).unwrap();
    let trace = tracer.stop();

    assert_eq!(again.segment.seq, lost.segment.seq);
    assert!(again.at_ns - lost.at_ns > Duration::from_millis(500).as_nanos() as u64);
    assert_eq!(path(&trace), "CLOSE SYN_SENT ESTABLISHED");
    opened(&trace, [called_ns, lost.at_ns], answered_ns);
}

/// A server's half-open state is the kernel's NEW_SYN_RECV, which no tracepoint prints. The
/// SYN_RECV that follows ends in the same moment.
#[test]
fn the_servers_half_open_state_lasts_while_the_ack_is_withheld() {
    let lab = Lab::new();
    let (own, port) = (lab.port(), lab.port());
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let listener = serve(port);
    let mut talk = peer.talk(own, port);
    let syn_ns = talk.syn();
    talk.receive_syn_ack();
    sleep(A_WHILE);
    let ack_ns = talk.ack();
    until(&tracer, "ESTABLISHED");
    let accepted = accept(&listener);
    let trace = tracer.stop();

    assert_eq!(accepted.peer, (tests::peer::PEER, own).into());
    begins_with_the_ack(&trace, ack_ns, syn_ns[0]);
    let server = trace.server();
    server.shows(&[("verdict", &"queued"), ("rport", &own), ("lport", &port)]);
    if trace.session()["hooks"]["request_sock"].is_null() {
        return;
    }
    let mut steps = trace.own("transition");
    let begins = steps
        .find(|step| step["newstate"] == "NEW_SYN_RECV")
        .expect("NEW_SYN_RECV");
    begins.shows(&[
        ("conn", &server["conn"]),
        ("oldstate", &"LISTEN"),
        ("source", &"request_sock"),
    ]);
    lasted(server.num("half_open_ns"), syn_ns, ack_ns);
}

/// Two SYNs cross (RFC 9293, section 3.5). Then a full socket is in SYN_RECV until the ACK arrives.
#[test]
fn syn_recv_lasts_while_the_ack_is_withheld_when_both_ends_connect() {
    let lab = Lab::new();
    let port = lab.port();
    let peer = Peer::new(&lab);
    let tracer = lab.trace();
    let (called_ns, calling) = call(port);
    let (mut talk, syn) = peer.called(port);
    sleep(A_WHILE);
    let crossed_ns = talk.syn();
    talk.receive_syn_ack();
    sleep(A_WHILE);
    let ack_ns = talk.ack();
    let _client = join(calling).unwrap();
    let trace = tracer.stop();

    assert_eq!(path(&trace), "CLOSE SYN_SENT SYN_RECV ESTABLISHED");
    let since = [called_ns, syn.at_ns];
    lasted(time_in(&trace, "SYN_SENT"), since, crossed_ns);
    lasted(time_in(&trace, "SYN_RECV"), crossed_ns, ack_ns);
    let client = trace.client();
    client.shows(&[("side", &"client"), ("verdict", &NULL), ("complete", &true)]);
    lasted(client.num("handshake_ns"), since, ack_ns);
}

#[test]
fn a_client_without_a_free_port_sends_nothing() {
    let lab = Lab::new();
    let (port, only) = (lab.port(), lab.port());
    let range = "/proc/sys/net/ipv4/ip_local_port_range";
    fs::write(range, format!("{only} {only}")).expect("set the port range");
    let tracer = lab.trace();
    let listener = listen(port);
    let first = connect(port);
    let error = TcpStream::connect((LOOPBACK, port)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
    close(first, accept(&listener).stream);
    tracer.wait_for_ends(3);
    let trace = tracer.stop();

    let clients = trace.connections("client");
    assert_eq!(clients.len(), 2);
    clients[0].shows(&[
        ("ended", &"no_free_port"),
        ("lport", &NULL),
        ("rport", &port),
        ("segs_out", &0),
        ("established_mono_ns", &NULL),
    ]);
    assert_eq!(trace.path(&clients[0]["conn"]), "CLOSE SYN_SENT CLOSE");
    clients[1].shows(&[("ended", &"orderly"), ("lport", &only)]);
}

// Talking and closing

#[test]
fn client_and_server_talk_until_bye() {
    const SAID: [&str; 4] = ["hello\n", "how are you?\n", "I have to go\n", "bye\n"];
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen(port);
    let (_, serving) = spawn(move || {
        let mut stream = accept(&listener).stream;
        let lines = BufReader::new(stream.try_clone().expect("another descriptor"));
        for line in lines.lines() {
            let line = line.expect("a line");
            writeln!(stream, "you said {line}").expect("write");
            if line == "bye" {
                break;
            }
        }
    });
    let mut client = connect(port);
    let mut answers = BufReader::new(client.try_clone().expect("another descriptor"));
    let mut received = String::new();
    for line in SAID {
        client.write_all(line.as_bytes()).expect("write");
        answers.read_line(&mut received).expect("an answer");
    }
    receive_end(&mut client);
    drop((client, answers));
    join(serving);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    let (there, back) = (SAID.concat().len(), received.len());
    assert_eq!(back, there + SAID.len() * "you said ".len());
    trace.client().shows(&[
        ("bytes_acked", &there),
        ("bytes_received", &back),
        ("unread_bytes", &0),
        ("closed_first", &"remote"),
        ("ended", &"orderly"),
    ]);
    trace.server().shows(&[
        ("bytes_acked", &back),
        ("bytes_received", &there),
        ("unread_bytes", &0),
        ("closed_first", &"local"),
        ("ended", &"orderly"),
    ]);
    let states = |side: &Line| trace.path(&side["conn"]);
    assert_eq!(
        states(trace.client()),
        "CLOSE SYN_SENT ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE"
    );
    assert_eq!(
        states(trace.server()),
        "LISTEN SYN_RECV ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE"
    );
}

/// FIN, ACK, FIN, ACK, with a pause between the two halves.
#[test]
fn four_segments_close_a_connection() {
    let lab = Lab::new();
    let peer = Peer::new(&lab);
    let tracer = lab.trace_with(&["--segments"]);
    let (mut talk, server) = accepted(&lab, &peer);
    let port = server.local_addr().unwrap().port();
    let closed_ns = now_ns();
    drop(server);
    let fin = talk.receive_fin();
    sleep(A_WHILE);
    let ack_ns = talk.ack();
    sleep(A_WHILE);
    let fin_ns = talk.fin();
    let last = talk.receive_ack();
    tracer.wait_for_ends(1);
    let trace = tracer.stop();

    assert!(ack_ns < fin_ns && fin_ns[0] <= last.at_ns);
    ended(&trace, "FIN_WAIT1 FIN_WAIT2 CLOSE");
    lasted(time_in(&trace, "FIN_WAIT1"), [closed_ns, fin.at_ns], ack_ns);
    // No process has the socket open, so it ends with the ACK, and not with the peer's FIN.
    caused(entered(&trace, "CLOSE"), ack_ns, fin.at_ns);
    let segments = closing_segments(&trace, port);
    let [ours, its_ack, theirs, our_ack] = segments[..] else {
        panic!("{segments:#?}");
    };
    assert_eq!(
        describe(&segments),
        ["sent F.", "received .", "received F.", "sent ."]
    );
    // A FIN occupies one sequence number, like a byte.
    ours.shows(&[("rel_seq", &1), ("rel_ack", &1)]);
    its_ack.shows(&[("rel_seq", &1), ("rel_ack", &2)]);
    theirs.shows(&[("rel_seq", &1), ("rel_ack", &2)]);
    our_ack.shows(&[("rel_seq", &2), ("rel_ack", &2)]);
}

/// FIN, FIN with ACK, ACK.
#[test]
fn three_segments_close_a_connection_when_fin_and_ack_are_one() {
    let lab = Lab::new();
    let peer = Peer::new(&lab);
    let tracer = lab.trace_with(&["--segments"]);
    let (mut talk, server) = accepted(&lab, &peer);
    let port = server.local_addr().unwrap().port();
    let closed_ns = now_ns();
    drop(server);
    let fin = talk.receive_fin();
    sleep(A_WHILE);
    let fin_ns = talk.fin();
    talk.receive_ack();
    tracer.wait_for_ends(1);
    let trace = tracer.stop();

    // The kernel processes the segment's ACK first, so FIN_WAIT2 exists for a moment.
    ended(&trace, "FIN_WAIT1 FIN_WAIT2 CLOSE");
    lasted(time_in(&trace, "FIN_WAIT1"), [closed_ns, fin.at_ns], fin_ns);
    caused(entered(&trace, "CLOSE"), fin_ns, fin.at_ns);
    let segments = closing_segments(&trace, port);
    assert_eq!(describe(&segments), ["sent F.", "received F.", "sent ."]);
    let [ours, theirs, our_ack] = segments[..] else {
        panic!("{segments:#?}");
    };
    ours.shows(&[("rel_seq", &1), ("rel_ack", &1)]);
    theirs.shows(&[("rel_seq", &1), ("rel_ack", &2)]);
    our_ack.shows(&[("rel_seq", &2), ("rel_ack", &2)]);
}

#[test]
fn a_half_closed_connection_still_carries_data_back() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace();
    let listener = listen(port);
    let mut client = connect(port);
    let mut server = accept(&listener).stream;
    close_half(&client);
    receive_end(&mut server);
    tracer.wait_for(1, "the client to be half-closed", |line| {
        line.is("transition") && line["newstate"] == "FIN_WAIT2"
    });
    send_text(&mut server);
    receive_text(&mut client);
    close(server, client);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    let (client, server) = (trace.client(), trace.server());
    assert_eq!(
        trace.path(&client["conn"]),
        "CLOSE SYN_SENT ESTABLISHED FIN_WAIT1 FIN_WAIT2 CLOSE"
    );
    assert_eq!(
        trace.path(&server["conn"]),
        "LISTEN SYN_RECV ESTABLISHED CLOSE_WAIT LAST_ACK CLOSE"
    );
    client.shows(&[
        ("ended", &"orderly"),
        ("closed_first", &"local"),
        ("bytes_acked", &0),
        ("bytes_received", &TEXT.len()),
    ]);
    server.shows(&[
        ("ended", &"orderly"),
        ("closed_first", &"remote"),
        ("bytes_acked", &TEXT.len()),
        ("bytes_received", &0),
    ]);
}
