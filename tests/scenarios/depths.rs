//! The three depths of tracing, side by side on the same traffic.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use serde_json::Value;
use tests::task::{join, spawn, wait_until_in_accept};
use tests::trace::{Line, Trace};
use tests::traffic::*;
use tests::{Lab, Peer, Tracer, fast_open};

/// Whether three tracers must agree on a field of a connection. Each tracer numbers connections
/// itself, and the eBPF programs of the three run one after the other, at different times.
fn is_shared(field: &str) -> bool {
    let is_own = ["ts", "conn", "peer_conn", "reason", "explanation"].contains(&field);
    field == "srtt_ns" || !(is_own || field.ends_with("_ns"))
}

/// Sockets that are still open.
struct Open {
    streams: Vec<TcpStream>,
    fast_open_client: fast_open::Client,
    listener: TcpListener,
}

/// Connections that end orderly, per side.
const ORDERLY: u64 = 4;

/// Makes one connection of each kind. The ports are those of a listener, of a Fast Open listener,
/// and of no listener.
fn every_kind(lab: &Lab, tracer: &Tracer, [port, fast_open_port, closed_port]: [u16; 3]) -> Open {
    let peer = Peer::new(lab);
    let listener = listen_at((Ipv4Addr::UNSPECIFIED, port).into(), 512);
    let mut ends = 0;
    let mut ended = |more| {
        ends += more;
        tracer.wait_for_ends(ends);
    };
    let late: Vec<_> = (0..ORDERLY - 1).map(|_| connect_queued(port)).collect();
    let mut open = vec![];
    for mut client in late {
        send_text(&mut client);
        let mut accepted = accept(&listener);
        receive_text(&mut accepted.stream);
        close(client, accepted.stream);
    }
    let (acceptor, accepting) = spawn(move || (accept(&listener), listener));
    wait_until_in_accept(acceptor);
    open.push(connect(port));
    let (accepted, listener) = join(accepting);
    open.push(accepted.stream);

    // Causes a retransmission of data.
    let mut client = connect_queued(port);
    let mut server = accept(&listener).stream;
    drop_incoming(&client);
    send_text(&mut server);
    tracer.wait_for(1, "data to be sent again", |line| {
        line.is("retransmit") && line["retransmitted"] == "data"
    });
    stop_dropping(&client);
    receive_text(&mut client);
    close(client, server);
    ended(2 * ORDERLY as usize);

    // Resets a connection in the accept queue, then accepts it.
    let client = connect_queued(port);
    let gone = port_of(&client);
    reset(client);
    tracer.wait_for(1, "the reset to arrive", |line| {
        line.is("transition") && line["rport"] == gone && line["newstate"] == "CLOSE"
    });
    assert_eq!(accept(&listener).peer.port(), gone);
    ended(2);

    // Resets a connection after accept(), by either side.
    for by_server in [true, false] {
        let client = connect_queued(port);
        let server = accept(&listener).stream;
        reset(if by_server { server } else { client });
        ended(2);
    }

    // Makes a refused client, and a half-open connection, which few kernels show.
    TcpStream::connect((LOOPBACK, closed_port)).expect_err("nobody listens there");
    ended(1);
    let mut talk = peer.talk(4000, port);
    talk.syn();
    talk.receive_syn_ack();
    talk.rst();

    listener.set_nonblocking(true).expect("O_NONBLOCK");
    listener.accept().expect_err("nobody has called");

    fast_open::allow();
    let fast_open_listener = fast_open::listen(fast_open_port);
    let fast_open_client = fast_open::Client::without_syn_ack();
    fast_open_client.send_syn(fast_open_port);
    let mut early = accept(&fast_open_listener);
    receive_text(&mut early.stream);
    fast_open_client.stop_dropping();
    tracer.wait_for(2, "both ends to be ESTABLISHED", |line| {
        let at_port = line.0.get("lport") == Some(&fast_open_port.into())
            || line.0.get("rport") == Some(&fast_open_port.into());
        line.is("transition") && at_port && line["newstate"] == "ESTABLISHED"
    });
    open.push(early.stream);

    // Resets a queued connection by closing its listener.
    let reset_by_listener = connect_queued(port);
    drop(listener);
    ended(2);
    drop(reset_by_listener);
    Open {
        streams: open,
        fast_open_client,
        listener: fast_open_listener,
    }
}

/// Returns the `connection` lines by side and ports.
fn connections(trace: &Trace) -> BTreeMap<String, &Line> {
    let name = |line: &Line| format!("{} {} {}", line["side"], line["lport"], line["rport"]);
    trace
        .own("connection")
        .map(|line| (name(line), line))
        .collect()
}

fn totals(trace: &Trace) -> Value {
    let summary = trace.summary();
    let per_listener: Vec<Value> = summary["listeners"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|it| {
            [
                "lport",
                "connections",
                "accepted",
                "never_accepted",
                "failed_accepts",
                "half_open_failed",
                "overflows",
            ]
            .map(|field| it[field].clone())
            .into()
        })
        .collect();
    serde_json::json!({
        "verdicts": summary["verdicts"],
        "servers": summary["servers"],
        "clients": summary["clients"],
        "incomplete": summary["incomplete"],
        "listeners": per_listener,
    })
}

/// Sums a field of the `histogram` lines of one side.
fn counted(trace: &Trace, side: &str, field: &str) -> u64 {
    let lines = trace.own("histogram").filter(|line| line["side"] == side);
    lines.map(|line| line.num(field)).sum()
}

#[test]
fn three_depths_agree_on_every_kind_of_connection() {
    let lab = Lab::new();
    let ports = [lab.port(), lab.port(), lab.port()];
    let filter = ports.map(|port| port.to_string()).join(",");
    let at = |depth| lab.trace_with(&["-p", &filter, "--depth", depth]);
    let [events, by_connection, counts] = ["events", "connections", "histogram"].map(at);

    let Open {
        streams,
        fast_open_client,
        listener,
    } = every_kind(&lab, &events, ports);
    let events = events.stop();
    let [by_connection, counts] = [by_connection, counts].map(Tracer::stop_with_less_detail);
    drop((streams, fast_open_client, listener));

    for (trace, depth) in [(&by_connection, "connections"), (&counts, "histogram")] {
        let session = trace.session();
        session.shows(&[("depth", &depth)]);
        assert_eq!(session["hooks"], events.session()["hooks"]);
        let kinds: BTreeSet<&str> = trace.lines.iter().map(|line| line.text("event")).collect();
        let mut expected = BTreeSet::from(["accept", "connection", "session", "summary"]);
        expected.extend((depth == "histogram").then_some("histogram"));
        assert_eq!(kinds, expected, "at {depth}");
        let [failed] = trace.failed_accepts()[..] else {
            panic!("{:?}", trace.accepts());
        };
        failed.shows(&[("accept_error", &"EAGAIN")]);
        assert_eq!(totals(&events), totals(trace), "at {depth}");
    }

    let all = connections(&events);
    let [by_connection, wrong] = [&by_connection, &counts].map(connections);
    assert!(all.keys().eq(by_connection.keys()), "{by_connection:?}");
    for (name, line) in by_connection.iter().chain(&wrong) {
        let fields = all[name].0.as_object().expect("an object");
        for (field, value) in fields.iter().filter(|(field, _)| is_shared(field)) {
            assert_eq!(line[field.as_str()], *value, "{field} of {name}");
        }
    }

    // At `histogram`, the four connections that ended orderly and the open one are only counted.
    // The others have `connection` lines.
    assert_eq!(counted(&counts, "server", "queued"), ORDERLY);
    assert_eq!(counted(&counts, "server", "awaited"), 1);
    assert_eq!(counted(&counts, "server", "went_well"), ORDERLY + 1);
    assert_eq!(counted(&counts, "client", "went_well"), ORDERLY);
    assert_eq!(all.len(), wrong.len() + 2 * ORDERLY as usize + 1);
    for line in wrong.values() {
        assert_ne!(line["ended"], "orderly", "{line}");
    }
    let waits: u64 = counts
        .own("histogram")
        .filter_map(|line| line["accept_queue"]["buckets"].as_array())
        .flatten()
        .map(|bucket| bucket[1].as_u64().expect("a count"))
        .sum();
    assert_eq!(waits, ORDERLY + 1);
    // Both ends of connections that a RST ended.
    let reset = |line: &&&Line| line["error"] == "ECONNRESET" && line["side"] == "client";
    assert_eq!(wrong.values().filter(reset).count(), 2, "{wrong:#?}");
}
