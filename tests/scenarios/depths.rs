//! The three depths of tracing, side by side on the same traffic.

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};

use serde_json::Value;
use tests::Lab;
use tests::task::{join, spawn, wait_until_in_accept};
use tests::trace::{Line, Trace};
use tests::traffic::*;
use tests::{Tracer, fast_open};

/// What a connection's line says at any depth that has one.
const SAID: [&str; 22] = [
    "side",
    "family",
    "laddr",
    "lport",
    "raddr",
    "rport",
    "cookie",
    "uid",
    "pid",
    "tid",
    "comm",
    "pid_source",
    "verdict",
    "state",
    "error",
    "ended",
    "closed_first",
    "bytes_acked",
    "bytes_received",
    "segs_out",
    "backlog_max",
    "complete",
];

/// What is still open.
struct Open {
    streams: Vec<TcpStream>,
    deaf: fast_open::Client,
    listener: TcpListener,
}

/// One connection of each fate.
fn every_fate(tracer: &Tracer, port: u16, deaf_port: u16) -> Open {
    let listener = listen(port);
    let late: Vec<_> = (0..3).map(|_| connect_queued(port)).collect();
    let mut open = vec![];
    for mut client in late {
        say(&mut client);
        let mut accepted = accept(&listener);
        hear(&mut accepted.stream);
        close(client, accepted.stream);
    }
    let (acceptor, accepting) = spawn(move || (accept(&listener), listener));
    wait_until_in_accept(acceptor);
    open.push(connect(port));
    let (accepted, listener) = join(accepting);
    open.push(accepted.stream);

    let client = connect_queued(port);
    let gone = port_of(&client);
    reset(client);
    tracer.wait_for(1, "the reset to arrive", |line| {
        line.is("transition") && line["rport"] == gone && line["newstate"] == "CLOSE"
    });
    assert_eq!(accept(&listener).peer.port(), gone);

    fast_open::allow();
    let deaf_listener = fast_open::listen(deaf_port);
    let deaf = fast_open::Client::deaf();
    deaf.say(deaf_port);
    let mut early = accept(&deaf_listener);
    hear(&mut early.stream);
    deaf.hear_again();
    tracer.wait_for(2, "both ends to be ESTABLISHED", |line| {
        let at_port = line.0.get("lport") == Some(&deaf_port.into())
            || line.0.get("rport") == Some(&deaf_port.into());
        line.is("transition") && at_port && line["newstate"] == "ESTABLISHED"
    });
    open.push(early.stream);

    let reset_by_listener = connect_queued(port);
    tracer.wait_for_ends(2 * 3 + 2);
    drop(listener);
    tracer.wait_for_ends(2 * 3 + 2 + 2);
    drop(reset_by_listener);
    Open {
        streams: open,
        deaf,
        listener: deaf_listener,
    }
}

/// The `connection` lines by side and ports.
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
            ["lport", "connections", "accepted", "never_accepted"]
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

#[test]
fn three_depths_agree_on_what_they_all_tell() {
    let lab = Lab::new();
    let (port, deaf_port) = (lab.port(), lab.port());
    let ports = format!("{port},{deaf_port}");
    let at = |depth| lab.trace_with(&["-p", &ports, "--depth", depth]);
    let [events, connected, counted] = ["events", "connections", "histogram"].map(at);

    let Open {
        streams,
        deaf,
        listener,
    } = every_fate(&events, port, deaf_port);
    let events = events.stop();
    let [connected, counted] = [connected, counted].map(Tracer::stop_joined);
    drop((streams, deaf, listener));

    for (trace, depth) in [(&connected, "connections"), (&counted, "histogram")] {
        trace.session().shows(&[("depth", &depth)]);
    }
    let [told, joined] = [&events, &connected].map(connections);
    assert!(told.len() >= 14, "{told:?}");
    assert_eq!(
        told.keys().collect::<Vec<_>>(),
        joined.keys().collect::<Vec<_>>()
    );
    for (name, line) in &told {
        for field in SAID {
            assert_eq!(line[field], joined[name][field], "{field} of {name}");
        }
    }
    // A change of state on its way is the events' alone.
    assert_eq!(connected.own("transition").count(), 3, "of listeners");

    assert_eq!(totals(&events), totals(&connected));
    let told: Vec<String> = counted.own("connection").map(Line::to_string).collect();
    assert_eq!(totals(&events), totals(&counted), "{told:#?}");
    let plain: u64 = counted
        .own("histogram")
        .filter(|line| line["side"] == "server")
        .map(|line| line.num("connections"))
        .sum();
    assert_eq!(
        plain, 5,
        "three late accepts, one that waited, one after a reset"
    );
    let waits: u64 = counted
        .own("histogram")
        .filter_map(|line| line["accept_queue"]["buckets"].as_array())
        .flatten()
        .map(|bucket| bucket[1].as_u64().expect("a count"))
        .sum();
    assert_eq!(waits, plain);
}
