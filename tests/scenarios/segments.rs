//! `--segments`: the segments that open and close a connection, once at each end.

use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};
use std::sync::mpsc;

use tests::netns::Netns;
use tests::packets::Packets;
use tests::task::{join, spawn};
use tests::trace::NULL;
use tests::traffic::*;
use tests::{Lab, Line, Trace, Tracer, veth};

fn segments(lab: &Lab) -> Tracer {
    lab.trace_with(&["--segments"])
}

/// Formats a line as `sent S 0 -`: direction, flags, relative sequence number and relative
/// acknowledgment number.
fn describe(line: &Line) -> String {
    let number = |name| match line.maybe(name) {
        Some(number) => number.to_string(),
        None => "-".to_owned(),
    };
    let (direction, flags) = (line.text("direction"), line.text("flags"));
    format!(
        "{direction} {flags} {} {}",
        number("rel_seq"),
        number("rel_ack")
    )
}

fn describe_all(trace: &Trace) -> Vec<String> {
    trace.own("segment").map(describe).collect()
}

/// Returns the first segment of the scenario with this description.
#[track_caller]
fn segment<'a>(trace: &'a Trace, like: &str) -> &'a Line {
    let mut own = trace.own("segment");
    own.find(|line| describe(line) == like)
        .unwrap_or_else(|| panic!("no segment {like}"))
}

/// Returns the time at which a connection entered a state.
#[track_caller]
fn entered(trace: &Trace, side: &str, state: &str) -> u64 {
    let conn = &trace.connections(side)[0]["conn"];
    let steps = trace.transitions(conn);
    let step = steps.iter().find(|line| line["newstate"] == state);
    step.expect("the connection entered that state")
        .num("mono_ns")
}

const HANDSHAKE: [&str; 6] = [
    "sent S 0 -",
    "received S 0 -",
    "sent S. 0 1",
    "received S. 0 1",
    "sent . 1 1",
    "received . 1 1",
];

#[test]
fn a_handshake_is_three_segments_each_sent_and_received() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = segments(&lab);
    let packets = Packets::start();
    let listener = listen(port);
    let client = connect(port);
    let client_port = port_of(&client);
    let mut server = accept(&listener).stream;
    // The server withholds its FIN until the ACK of the client's FIN has arrived: four segments,
    // not three.
    close_half(&client);
    receive_end(&mut server);
    tracer.wait_for(2, "the ACK of a FIN", |line| {
        line.is("segment") && line["flags"] == "." && line["rel_ack"] == 2
    });
    drop((server, client));
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    let segments = describe_all(&trace);
    assert_eq!(segments[..6], HANDSHAKE, "{segments:?}");
    assert_eq!(
        segments[6..],
        [
            "sent F. 1 1",
            "received F. 1 1",
            "sent . 1 2",
            "received . 1 2",
            "sent F. 1 2",
            "received F. 1 2",
            "sent . 2 2",
            "received . 2 2",
        ]
    );
    agrees_with(&packets, &trace, port);

    // Segments and states share one clock and one order.
    let at = |like| segment(&trace, like).num("mono_ns");
    let (client, server) = (trace.client(), trace.server());
    assert!(client.num("syn_mono_ns") <= at("sent S 0 -"));
    assert!(at("received S. 0 1") <= entered(&trace, "client", "ESTABLISHED"));
    assert!(at("received . 1 1") <= entered(&trace, "server", "ESTABLISHED"));
    assert!(entered(&trace, "client", "FIN_WAIT1") <= at("sent F. 1 1"));
    assert!(at("received F. 1 1") <= entered(&trace, "server", "CLOSE_WAIT"));
    server.shows(&[("complete", &true)]);
    let is_seen = !trace.session()["hooks"]["request_sock"].is_null();
    if !is_seen {
        server.shows(&[
            ("syn_mono_ns", &at("received S 0 -")),
            ("syn_source", &"segment"),
        ]);
    } else {
        server.shows(&[("syn_source", &"request_sock")]);
        let syn_ns = server.num("syn_mono_ns");
        assert!((at("received S 0 -")..at("sent S. 0 1")).contains(&syn_ns));
    }

    // The sender's end is the source, the receiver's end the destination.
    segment(&trace, "sent S 0 -").shows(&[
        ("conn", &client["conn"]),
        ("side", &"client"),
        ("lport", &client_port),
        ("rport", &port),
        ("ack", &NULL),
        ("len", &0),
        ("ifindex", &1),
    ]);
    segment(&trace, "received S 0 -").shows(&[("lport", &port), ("rport", &client_port)]);
    // The server's segments of the handshake come before its connection begins, but have its
    // connection number. Either the request socket is seen, or the child socket with the same tuple
    // follows at once.
    let born = &trace.transitions(&server["conn"])[0];
    // Under emulation, "at once" may exceed tcptrace's lookahead.
    let at_once = |like, ns: u64| ns - at(like) <= 1_000_000;
    let (syn, ack) = ("received S 0 -", "received . 1 1");
    for (like, is_sure) in [
        (syn, is_seen && at_once(syn, server.num("syn_mono_ns"))),
        ("sent S. 0 1", is_seen),
        (
            ack,
            is_seen || !born["rport"].is_null() && at_once(ack, born.num("mono_ns")),
        ),
    ] {
        let line = segment(&trace, like);
        let conn = &line["conn"];
        assert!(
            *conn == server["conn"] || conn.is_null() && !is_sure,
            "{line}"
        );
    }
    segment(&trace, "received S. 0 1").shows(&[("conn", &client["conn"])]);
    segment(&trace, "received F. 1 1").shows(&[("conn", &server["conn"]), ("side", &"server")]);
}

/// Asserts that the packet socket saw the same segments with SYN, FIN or RST.
#[track_caller]
fn agrees_with(packets: &Packets, trace: &Trace, port: u16) {
    const ACK: u8 = 0x10;
    let witnessed: Vec<_> = packets
        .of_port(port)
        .into_iter()
        .map(|seen| {
            let ack = (seen.flags & ACK != 0).then_some(u64::from(seen.ack));
            (seen.is_sent, seen.source_port, u64::from(seen.seq), ack)
        })
        .collect();
    let traced: Vec<_> = trace
        .own("segment")
        .filter(|line| line["flags"] != ".")
        .map(|line| {
            let is_sent = line["direction"] == "sent";
            let source = line.num(if is_sent { "lport" } else { "rport" });
            (is_sent, source as u16, line.num("seq"), line.maybe("ack"))
        })
        .collect();
    assert!(!witnessed.is_empty());
    assert_eq!(traced, witnessed, "tcptrace (left), packet socket (right)");
}

#[test]
fn a_closed_port_answers_a_syn_with_a_rst_segment() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = segments(&lab);
    let packets = Packets::start();
    TcpStream::connect((LOOPBACK, port)).expect_err("nobody listens");
    tracer.wait_for_ends(1);
    let trace = tracer.stop();

    let segments = describe_all(&trace);
    assert_eq!(
        segments,
        [
            "sent S 0 -",
            "received S 0 -",
            "sent R. - 1",
            "received R. - 1"
        ]
    );
    agrees_with(&packets, &trace, port);
    let client = trace.client();
    segment(&trace, "received R. - 1").shows(&[("conn", &client["conn"])]);
    segment(&trace, "sent R. - 1").shows(&[("conn", &NULL), ("lport", &port), ("seq", &0)]);
    let reset = segment(&trace, "received R. - 1").num("mono_ns");
    assert!(reset <= entered(&trace, "client", "CLOSE"));
}

#[test]
fn a_rst_segment_is_reported_but_data_is_not() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = segments(&lab);
    let listener = listen(port);
    let mut client = connect(port);
    let mut server = accept(&listener).stream;
    for _ in 0..100 {
        send_text(&mut client);
        receive_text(&mut server);
    }
    reset(client);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    let segments = describe_all(&trace);
    assert_eq!(segments[..6], HANDSHAKE);
    let sent = 1 + 100 * TEXT.len();
    assert_eq!(
        segments[6..],
        [format!("sent R. {sent} 1"), format!("received R. {sent} 1")]
    );
    let server = trace.server();
    segment(&trace, &segments[7]).shows(&[("conn", &server["conn"])]);
}

#[test]
fn a_fin_segment_with_data_is_reported() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = segments(&lab);
    let listener = listen(port);
    let mut client = connect(port);
    let server = accept(&listener).stream;
    // TCP_CORK holds the data until the FIN.
    let corked = socket2::SockRef::from(&client);
    corked.set_tcp_cork(true).expect("TCP_CORK");
    client.write_all(TEXT).expect("write");
    drop(client);
    drop(server);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    let fin = segment(&trace, "received FP. 1 1");
    fin.shows(&[("len", &TEXT.len())]);
}

#[test]
fn ipv6_segments_are_reported() {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = segments(&lab);
    talk_at((Ipv6Addr::LOCALHOST, port).into());
    tracer.wait_for_ends(2);
    let trace = tracer.stop();

    let segments = describe_all(&trace);
    assert_eq!(segments[..6], HANDSHAKE);
    assert_eq!(segments.last().expect("an ACK"), "received . 2 2");
    for line in trace.own("segment") {
        line.shows(&[("laddr", &"::1"), ("raddr", &"::1")]);
    }
}

#[test]
fn a_filter_by_local_port_omits_the_other_ends_segments() {
    let lab = Lab::new();
    let (port, other) = (lab.port(), lab.port());
    let tracer = lab.trace_with(&["--segments", "-L", &port.to_string()]);
    talk(other);
    talk(port);
    tracer.wait_for_ends(1);
    let trace = tracer.stop_filtered(|tuple| tuple.lport == port);

    let segments = describe_all(&trace);
    assert_eq!(
        segments[..3],
        ["received S 0 -", "sent S. 0 1", "received . 1 1"]
    );
    assert!(trace.own("segment").all(|line| line["lport"] == port));
    let filtered = trace.summary()["hook_counts"]["segment"]["filtered"].as_u64();
    assert!(filtered > Some(0));
}

#[test]
fn without_the_option_no_segment_is_reported() {
    let lab = Lab::new();
    let port = lab.port();
    let (with, without) = (segments(&lab), lab.trace());
    assert_eq!(with.programs().len(), without.programs().len() + 2);
    talk(port);
    without.wait_for_ends(2);
    with.wait_for_ends(2);
    let (with, without) = (with.stop(), without.stop());

    assert_eq!(describe_all(&with)[..6], HANDSHAKE);
    assert_eq!(without.own("segment").count(), 0);
    assert!(without.session()["hooks"].get("segment").is_none());
    assert_ne!(without.server()["syn_source"], "segment");
}

fn attached_by(method: &str) {
    let lab = Lab::new();
    let port = lab.port();
    let tracer = lab.trace_with(&["--segments", "--state-method", method]);
    talk(port);
    tracer.wait_for_ends(2);
    let trace = tracer.stop();
    assert_eq!(trace.session()["hooks"]["segment"], method);
    assert_eq!(describe_all(&trace)[..6], HANDSHAKE);
}

#[test]
fn segments_are_reported_by_a_btf_tracepoint() {
    attached_by("tp_btf");
}

#[test]
fn segments_are_reported_by_a_raw_tracepoint() {
    attached_by("raw_tp");
}

/// Sends segments through a bridge and a veth pair: two devices in this namespace, one in the
/// other. Skipped if the kernel lacks them, as in the VMs.
#[test]
fn a_forwarded_segment_is_reported_once_per_namespace() {
    const HERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
    const THERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
    let lab = Lab::new();
    let port = lab.port();
    let (sender, receiver) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    let (_, serving) = spawn(move || {
        let netns = Netns::enter();
        let file = File::open("/proc/thread-self/ns/net").expect("/proc is mounted");
        sender.send((netns, file)).expect("the receiver exists");
        if gone.recv().is_err() {
            return;
        }
        veth::configure(veth::FAR, THERE);
        let listener = listen_at((THERE, port).into(), 16);
        sender
            .send((netns, File::open("/dev/null").expect("a file")))
            .expect("the receiver exists");
        receive_end(&mut accept(&listener).stream);
    });
    let (other, file) = receiver.recv().expect("a namespace");
    if !veth::connect(&file) {
        eprintln!("this kernel has no veth or no bridge");
        drop(go);
        return join(serving);
    }
    veth::configure(veth::BRIDGE, HERE);
    let tracer = segments(&lab);
    go.send(()).expect("the other namespace");
    receiver.recv().expect("a listener");
    let client = connect_to((THERE, port).into());
    drop(client);
    join(serving);
    tracer.wait_for_ends(1);
    let trace = tracer.stop_filtered(|tuple| tuple.laddr == HERE);

    assert_eq!(
        describe_all(&trace),
        [
            "sent S 0 -",
            "received S. 0 1",
            "sent . 1 1",
            "sent F. 1 1",
            "received F. 1 2",
            "sent . 2 2"
        ]
    );
    let client = trace.client();
    assert!(
        trace
            .own("segment")
            .all(|line| line["conn"] == client["conn"])
    );
    let there: Vec<String> = trace
        .lines
        .iter()
        .filter(|line| line.is("segment") && line["netns"] == other.inode)
        .map(describe)
        .collect();
    assert_eq!(
        there,
        [
            "received S 0 -",
            "sent S. 0 1",
            "received . 1 1",
            "received F. 1 1",
            "sent F. 1 2",
            "received . 2 2"
        ]
    );
    // Segments are seen at the bridge and at the veth. The kernel side leaves out some of the
    // repetitions.
    assert!(trace.summary().num("repeated_segments") >= 4);
}
