//! Connections as parts and as spans, decoded again.

use prost::Message;
use tcptrace_core::span::Part;

use super::*;
use crate::event::Comm;
use crate::fields::{Ended, Ending, HalfOpenEnd, Verdict};
use crate::sink::samples::{self, NOW};

const MS: u64 = 1_000_000;
const SLOW: u64 = 100 * MS;
const CLOCK_NS: u64 = 1_700_000_000_000_000_000;
const IDS: Ids = Ids { seed: [1, 2, 3] };

fn parts(spans: &Spans) -> Vec<(Part, u64, u64)> {
    let parts = spans.parts.iter();
    parts.map(|it| (it.part, it.start_ns, it.end_ns)).collect()
}

/// A connection that was in good order and fast.
fn fine() -> Connection {
    Connection {
        syn_mono_ns: Some(NOW - 50 * MS),
        established_mono_ns: Some(NOW - 49 * MS),
        accepted_mono_ns: Some(NOW - 48 * MS),
        ..samples::connection()
    }
}

#[test]
fn a_late_connection_is_divided_at_the_observed_times() {
    let line = Connection {
        syn_mono_ns: Some(NOW - 5104 * MS),
        ..samples::connection()
    };
    let (established, accepted) = (NOW - 5103 * MS, NOW - 100 * MS);
    let found = spans(&line, Some(NOW - MS), SLOW).unwrap();
    assert!(!found.is_failure && !found.is_open);
    assert_eq!((found.start_ns, found.end_ns), (NOW - 5104 * MS, NOW));
    assert_eq!(
        parts(&found),
        [
            (Part::Handshake, NOW - 5104 * MS, established),
            (Part::AcceptQueueWait, established, accepted),
            (Part::Established, established, NOW - MS),
            (Part::Close, NOW - MS, NOW),
        ]
    );
}

#[test]
fn a_part_that_was_not_observed_has_no_span() {
    let found = spans(&samples::connection(), None, SLOW).unwrap();
    let (established, accepted) = (NOW - 5103 * MS, NOW - 100 * MS);
    assert_eq!(found.start_ns, established);
    assert_eq!(
        parts(&found),
        [(Part::AcceptQueueWait, established, accepted)]
    );
    // No time before the end is known.
    assert_eq!(spans(&samples::unknown(), None, SLOW), None);
}

#[test]
fn only_waits_longer_than_the_limit_are_slow() {
    assert_eq!(spans(&fine(), Some(NOW - 2 * MS), SLOW), None);
    for (established, accepted, is_slow) in [
        (NOW - 150 * MS, NOW - 50 * MS, false),
        (NOW - 150 * MS, NOW - 50 * MS + 1, true),
        // ESTABLISHED for long, but accepted at once.
        (NOW - 5000 * MS, NOW - 5000 * MS, false),
        // accept() returned first.
        (NOW - 10 * MS, NOW - 5000 * MS, false),
    ] {
        let line = Connection {
            syn_mono_ns: None,
            established_mono_ns: Some(established),
            accepted_mono_ns: Some(accepted),
            ..samples::connection()
        };
        let found = spans(&line, Some(NOW - MS), SLOW);
        assert_eq!(found.is_some(), is_slow, "{established} {accepted}");
    }
    let client = Connection {
        syn_mono_ns: Some(NOW - 1000 * MS - SLOW - 1),
        established_mono_ns: Some(NOW - 1000 * MS),
        ..samples::client()
    };
    assert!(spans(&client, None, SLOW).is_some());
    assert!(spans(&samples::client(), None, SLOW).is_none());
}

fn ended(ended: Ended) -> Connection {
    Connection {
        ending: Ending {
            ended: Some(ended),
            ..samples::ending()
        },
        ..fine()
    }
}

#[test]
fn a_connection_that_ended_in_another_way_than_in_good_order_is_a_failure() {
    for (line, is_failure) in [
        (fine(), false),
        (ended(Ended::ResetReceived), true),
        (ended(Ended::Aborted), true),
        (
            Connection {
                error: Some("ETIMEDOUT".into()),
                ..fine()
            },
            true,
        ),
        (
            Connection {
                verdict: Some(Verdict::NeverAccepted),
                ..fine()
            },
            true,
        ),
        (
            Connection {
                verdict: Some(Verdict::Unknown),
                complete: false,
                ..fine()
            },
            false,
        ),
    ] {
        let found = spans(&line, None, u64::MAX);
        assert_eq!(
            found.is_some_and(|it| it.is_failure),
            is_failure,
            "{line:?}"
        );
    }
}

#[test]
fn a_connection_that_nobody_accepted_waits_until_its_end() {
    let queued = Connection {
        accepted_mono_ns: None,
        accept_queue_ns: None,
        verdict: Some(Verdict::NeverAccepted),
        ..fine()
    };
    let found = spans(&queued, None, u64::MAX).unwrap();
    assert!(found.is_failure);
    let wait = (Part::AcceptQueueWait, NOW - 49 * MS, NOW);
    assert_eq!(parts(&found)[1..], [wait]);
    // It is still in the queue at the end of the trace.
    let open = Connection {
        closed_mono_ns: None,
        state: State::Established,
        ending: Ending::default(),
        ..queued
    };
    assert_eq!(spans(&open, None, SLOW), None);
    let found = spans(&open, None, 10 * MS).unwrap();
    assert!(found.is_open && !found.is_failure);
    assert_eq!(parts(&found)[1..], [wait]);
}

#[test]
fn a_handshake_that_failed_lasts_until_the_end() {
    let line = Connection {
        mono_ns: NOW,
        syn_mono_ns: Some(NOW - 5_000 * MS),
        established_mono_ns: None,
        accepted_mono_ns: None,
        closed_mono_ns: None,
        state: State::NewSynRecv,
        half_open_end: Some(HalfOpenEnd::Timeout),
        verdict: Some(Verdict::Unfinished),
        ending: Ending::default(),
        ..samples::connection()
    };
    let found = spans(&line, None, SLOW).unwrap();
    assert!(found.is_failure && !found.is_open);
    assert_eq!(parts(&found), [(Part::Handshake, NOW - 5_000 * MS, NOW)]);
    // It has not ended yet.
    let open = Connection {
        half_open_end: None,
        ..line
    };
    let found = spans(&open, None, SLOW);
    assert_eq!(found, None);
}

fn text(attributes: &[KeyValue]) -> Vec<String> {
    let text = attributes.iter().map(|it| {
        let value = match it.value.clone().unwrap().value.unwrap() {
            Value::String(value) => value,
            Value::Int(value) => value.to_string(),
            Value::Bool(value) => value.to_string(),
            Value::Double(value) => value.to_string(),
        };
        format!("{}={value}", it.key)
    });
    text.collect()
}

fn decoded(line: &Connection, left_ns: Option<u64>) -> Vec<Span> {
    let found = spans(line, left_ns, SLOW).unwrap();
    let encoded = encode(line, &found, &Clock::with_offset(CLOCK_NS), &IDS);
    let bytes = request(&Resource::default(), encoded).encode_to_vec();
    let mut request = ExportTraceServiceRequest::decode(&*bytes).unwrap();
    let mut scope = request.resource_spans.remove(0).scope_spans.remove(0);
    assert_eq!(scope.scope.take().unwrap().name, "tcptrace");
    scope.spans
}

#[test]
fn a_server_span_has_the_names_of_the_semantic_conventions() {
    let mut line = samples::connection();
    line.subject.process = Some(Comm::from("nginx"));
    line.subject
        .set_container(&tcptrace_core::container::Container {
            id: "c0ffee".into(),
            name: Some("web".into()),
            image: Some("nginx:1".into()),
            pod: Some("web-1".into()),
            namespace: Some("shop".into()),
        });
    let all = decoded(&line, None);
    let [root, wait] = &all[..] else {
        panic!("{all:#?}");
    };
    assert_eq!((root.name.as_str(), root.kind), ("tcp connection", SERVER));
    assert_eq!(
        (wait.name.as_str(), wait.kind),
        ("accept_queue_wait", INTERNAL)
    );
    assert_eq!(root.end_time_unix_nano, CLOCK_NS + NOW);
    assert_eq!(
        wait.end_time_unix_nano - wait.start_time_unix_nano,
        5003 * MS
    );
    assert_eq!(wait.start_time_unix_nano, CLOCK_NS + NOW - 5103 * MS);
    assert_eq!(root.status, None);
    assert_eq!(root.events[0].name, "tcptrace.accept");
    assert_eq!(root.events[0].time_unix_nano, wait.end_time_unix_nano);
    let found = text(&root.attributes);
    for expected in [
        "network.transport=tcp",
        "network.type=ipv4",
        "network.local.address=127.0.0.1",
        "network.local.port=7878",
        "network.peer.address=127.0.0.1",
        "network.peer.port=39709",
        "server.address=127.0.0.1",
        "server.port=7878",
        "network.connection.state=closed",
        "process.pid=4711",
        "process.executable.name=nginx",
        "container.id=c0ffee",
        "container.name=web",
        "container.image.name=nginx:1",
        "k8s.pod.name=web-1",
        "k8s.namespace.name=shop",
        "tcptrace.conn=3",
        "tcptrace.verdict=queued",
        "tcptrace.ended=orderly",
        "tcptrace.accept_queue_ns=5003000000",
        "tcptrace.backlog_max=128",
        "tcptrace.complete=true",
    ] {
        assert!(
            found.iter().any(|it| it == expected),
            "{expected}: {found:#?}"
        );
    }
    // Unknown values have no attribute.
    for key in ["tcptrace.handshake_ns", "error.type", "tcptrace.open"] {
        assert!(
            !found.iter().any(|it| it.starts_with(key)),
            "{key}: {found:#?}"
        );
    }
}

#[test]
fn a_failure_has_an_error_status_with_its_reason() {
    let line = Connection {
        error: Some("ECONNRESET".into()),
        ..ended(Ended::ResetReceived)
    };
    let all = decoded(&line, Some(NOW));
    let status = all[0].status.clone().unwrap();
    assert_eq!(
        (status.code, status.message.as_str()),
        (ERROR, "reset by the peer")
    );
    let found = text(&all[0].attributes);
    assert!(
        found.iter().any(|it| it == "error.type=ECONNRESET"),
        "{found:#?}"
    );
    let all = decoded(&ended(Ended::Aborted), None);
    let found = text(&all[0].attributes);
    assert!(
        found.iter().any(|it| it == "error.type=aborted"),
        "{found:#?}"
    );
    // A client's server is its peer.
    let mut client = samples::client();
    client.ending.ended = Some(Ended::Timeout);
    let all = decoded(&client, None);
    assert_eq!(all[0].kind, CLIENT);
    let found = text(&all[0].attributes);
    assert!(
        found.iter().any(|it| it == "server.port=7878"),
        "{found:#?}"
    );
}

#[test]
fn ids_are_unique_and_belong_together() {
    let all = decoded(&samples::connection(), Some(NOW - MS));
    let root = &all[0];
    assert_eq!((root.trace_id.len(), root.span_id.len()), (16, 8));
    assert!(root.parent_span_id.is_empty());
    for part in &all[1..] {
        assert_eq!(part.trace_id, root.trace_id);
        assert_eq!(part.parent_span_id, root.span_id);
    }
    let traces: std::collections::HashSet<_> = (0..1000).map(|it| IDS.trace(it)).collect();
    assert_eq!(traces.len(), 1000);
    let ids = (0..1000).flat_map(|conn| (0..5).map(move |n| IDS.span(conn, n)));
    assert_eq!(ids.collect::<std::collections::HashSet<_>>().len(), 5000);
}

#[test]
fn only_connections_of_this_program_to_its_collector_are_its_own() {
    let own = Own {
        process: "nc".to_owned(),
        ports: vec![4318, 7878],
    };
    let client = samples::client().subject;
    assert!(own.has(&client));
    let others = [
        Subject {
            rport: Some(7879),
            ..client.clone()
        },
        Subject {
            process: None,
            ..client.clone()
        },
        Subject {
            side: Some(Side::Server),
            ..client
        },
    ];
    assert!(others.iter().all(|it| !own.has(it)));
}
