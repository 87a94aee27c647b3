//! Hand-made lines, and the exact values of the metrics after them.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus_client::encoding::{prometheus_protobuf, prometheus_text};
use prometheus_client::registry::Registry;

use super::fold::Fold;
use super::metrics::Metrics;
use super::rows::{CLOSED_FOR_NS, IDLE_FOR_NS};
use crate::event::{Comm, Direction, Hook, ListenQueue, Retransmitted, State};
use crate::fields::*;
use crate::sink::samples;

const MS: u64 = 1_000_000;
const LISTENER: &str = r#"listener="127.0.0.1:7878",service="server""#;

struct Export {
    fold: Fold,
    registry: Registry,
}

impl Export {
    /// Begins a trace with a listener, connection 1, at [`LISTENER`].
    fn new(max_listeners: usize, hooks: &[Hook]) -> Export {
        let metrics = Arc::new(Metrics::new());
        let registry = metrics.registry(max_listeners);
        let fold = Fold::new(metrics, max_listeners);
        let mut export = Export { fold, registry };
        let hooks = hooks.iter().map(|hook| (*hook, Some("fentry".to_owned())));
        export.line(Line::Session(Session {
            hooks: hooks.collect(),
            ..samples::session()
        }));
        export.listen(samples::listener(), 16);
        export
    }

    fn line(&mut self, line: Line) {
        self.fold.line(&line);
    }

    fn listen(&mut self, subject: Subject, max: u32) {
        self.line(Line::Transition(Transition {
            subject,
            oldstate: State::Close,
            newstate: State::Listen,
            backlog: Backlog {
                backlog_max: Some(max),
                ..Backlog::default()
            },
            listener: None,
            ..samples::transition()
        }));
    }

    fn close(&mut self, mono_ns: u64, subject: Subject) {
        self.line(Line::Transition(Transition {
            mono_ns,
            subject,
            oldstate: State::Listen,
            newstate: State::Close,
            listener: None,
            ..samples::transition()
        }));
    }

    /// Connection `conn` becomes ESTABLISHED at listener 1.
    fn establish(&mut self, conn: u64) {
        self.line(Line::Transition(Transition {
            subject: server(conn),
            ..samples::transition()
        }));
    }

    fn accept(&mut self, conn: u64, wait_ns: u64, left: u32) {
        self.line(Line::Accept(Accept {
            backlog_len: left,
            backlog_max: 16,
            ..accept(conn, Some(wait_ns), Some(Verdict::Queued))
        }));
    }

    fn values(&self) -> BTreeMap<String, f64> {
        let mut text = String::new();
        prometheus_text::encode(&mut text, &self.registry).unwrap();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let samples = samples.map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        });
        samples.collect()
    }

    #[track_caller]
    fn has(&self, name: &str, value: impl Into<Option<f64>>) {
        let name = name.replace("LISTENER", LISTENER);
        let values = self.values();
        let value = value.into();
        assert_eq!(values.get(&name).copied(), value, "{name}: {values:#?}");
    }
}

fn server(conn: u64) -> Subject {
    Subject {
        conn: Some(conn),
        ..samples::server()
    }
}

fn accept(conn: u64, wait_ns: Option<u64>, verdict: Option<Verdict>) -> Accept {
    Accept {
        subject: Subject {
            conn: Some(conn),
            ..samples::accept().subject
        },
        accept_queue_ns: wait_ns,
        verdict,
        ..samples::accept()
    }
}

fn connection(conn: u64) -> Connection {
    Connection {
        subject: server(conn),
        handshake_ns: Some(MS),
        ..samples::connection()
    }
}

const WAIT: &str = "tcptrace_accept_queue_wait_seconds";

#[test]
fn a_wait_is_counted_in_its_bucket_when_accept_returns() {
    let mut export = Export::new(10, &[]);
    for (conn, wait_ns) in [(3, 10_000), (4, 10_001), (5, 3 * MS), (6, 11_000 * MS)] {
        export.accept(conn, wait_ns, 0);
    }
    let bucket = |le: &str| format!(r#"{WAIT}_bucket{{LISTENER,le="{le}"}}"#);
    export.has(&bucket("1e-05"), 1.0);
    export.has(&bucket("2.5e-05"), 2.0);
    export.has(&bucket("0.0025"), 2.0);
    export.has(&bucket("0.005"), 3.0);
    export.has(&bucket("10"), 3.0);
    export.has(&bucket("+Inf"), 4.0);
    export.has(&format!("{WAIT}_count{{LISTENER}}"), 4.0);
    export.has(&format!("{WAIT}_sum{{LISTENER}}"), 11.003_020_001);
    export.has(
        r#"tcptrace_connections_total{LISTENER,verdict="queued"}"#,
        4.0,
    );
    // The end of a connection does not count its wait and verdict again.
    export.line(Line::Connection(connection(3)));
    export.has(&format!("{WAIT}_count{{LISTENER}}"), 4.0);
    export.has(
        r#"tcptrace_connections_total{LISTENER,verdict="queued"}"#,
        4.0,
    );
}

#[test]
fn native_buckets_are_in_the_protobuf_form() {
    use prometheus_protobuf::prometheus_data_model::MetricFamily;
    let mut export = Export::new(10, &[]);
    export.accept(3, MS, 0);
    let families = prometheus_protobuf::encode(&export.registry).unwrap();
    let of = |it: &&MetricFamily| it.name == WAIT;
    let histogram = families.iter().find(of).unwrap().metric[0]
        .histogram
        .as_ref();
    let histogram = histogram.unwrap();
    assert_eq!(histogram.sample_count, 1);
    // 8 buckets for each doubling: 1 ms is in (2^-10, 2^(-10 + 1/8)].
    assert_eq!(histogram.schema, 3);
    assert_eq!(histogram.positive_span[0].offset, -79);
    assert_eq!(histogram.positive_delta, [1]);
    assert_eq!(histogram.bucket.len(), super::metrics::BUCKETS.len() + 1);
}

#[test]
fn an_accept_without_a_verdict_is_counted_at_the_end_of_the_connection() {
    let mut export = Export::new(10, &[]);
    export.line(Line::Accept(Accept {
        established_mono_ns: None,
        ..accept(3, None, None)
    }));
    export.has(&format!("{WAIT}_count{{LISTENER}}"), None);
    export.line(Line::Connection(Connection {
        verdict: Some(Verdict::Overlapped),
        accept_queue_ns: Some(0),
        ..connection(3)
    }));
    export.has(
        r#"tcptrace_connections_total{LISTENER,verdict="overlapped"}"#,
        1.0,
    );
    export.has(&format!("{WAIT}_count{{LISTENER}}"), 1.0);

    // Here only the verdict was missing.
    export.line(Line::Accept(accept(4, Some(MS), None)));
    export.has(&format!("{WAIT}_count{{LISTENER}}"), 2.0);
    export.line(Line::Connection(connection(4)));
    export.has(&format!("{WAIT}_count{{LISTENER}}"), 2.0);
    export.has(
        r#"tcptrace_connections_total{LISTENER,verdict="queued"}"#,
        1.0,
    );
}

#[test]
fn a_connection_that_no_accept_returned_is_counted_at_its_end() {
    let mut export = Export::new(10, &[Hook::RequestSock]);
    export.has("tcptrace_half_open_failed_total{LISTENER}", 0.0);
    let unaccepted = |conn, verdict| {
        Line::Connection(Connection {
            accepted_mono_ns: None,
            accept_queue_ns: None,
            verdict: Some(verdict),
            ..connection(conn)
        })
    };
    export.line(unaccepted(3, Verdict::NeverAccepted));
    export.line(unaccepted(4, Verdict::Unfinished));
    let verdicts = |name| format!(r#"tcptrace_connections_total{{LISTENER,verdict="{name}"}}"#);
    export.has(&verdicts("never_accepted"), 1.0);
    export.has(&verdicts("unfinished"), 1.0);
    export.has("tcptrace_half_open_failed_total{LISTENER}", 1.0);
    export.has(&format!("{WAIT}_count{{LISTENER}}"), None);
}

#[test]
fn handshakes_and_endings_are_counted_for_both_sides() {
    let mut export = Export::new(10, &[]);
    export.line(Line::Connection(connection(3)));
    export.line(Line::Connection(Connection {
        subject: Subject {
            side: Some(Side::Client),
            process: Some(Comm::from("curl")),
            ..server(4)
        },
        handshake_ns: Some(2 * MS),
        verdict: None,
        ending: Ending {
            ended: None,
            ..samples::ending()
        },
        ..connection(4)
    }));
    const HANDSHAKE: &str = "tcptrace_handshake_duration_seconds";
    export.has(
        &format!(r#"{HANDSHAKE}_sum{{LISTENER,role="server"}}"#),
        0.001,
    );
    export.has(
        &format!(r#"{HANDSHAKE}_sum{{service="curl",role="client"}}"#),
        0.002,
    );
    let ended = samples::ending()
        .ended
        .map(|it| serde_json::to_value(it).unwrap());
    let ended = ended.unwrap();
    export.has(
        &format!("tcptrace_connections_ended_total{{LISTENER,how={ended}}}"),
        1.0,
    );
    let unknown = r#"tcptrace_connections_ended_total{service="curl",how="unknown"}"#;
    export.has(unknown, 1.0);
}

#[test]
fn the_queue_length_follows_arrivals_and_the_kernels_reports() {
    let mut export = Export::new(10, &[]);
    const LENGTH: &str = "tcptrace_accept_queue_length{LISTENER}";
    export.has(LENGTH, 0.0);
    export.has("tcptrace_accept_queue_limit{LISTENER}", 16.0);
    export.establish(3);
    export.establish(4);
    export.has(LENGTH, 2.0);
    export.accept(3, MS, 1);
    export.has(LENGTH, 1.0);
    // This one is accepted before its ESTABLISHED, which therefore is no arrival.
    export.line(Line::Accept(Accept {
        established_mono_ns: None,
        backlog_len: 1,
        ..accept(5, None, None)
    }));
    export.establish(5);
    export.has(LENGTH, 1.0);
    // A failed call reports the length as well.
    export.line(Line::Accept(Accept {
        listener: Some(1),
        ..samples::failed_accept("EAGAIN")
    }));
    export.has(LENGTH, 0.0);
    export.has("tcptrace_accept_queue_limit{LISTENER}", 128.0);
}

#[test]
fn the_queue_length_is_absent_while_it_is_not_known() {
    let mut export = Export::new(10, &[]);
    const LENGTH: &str = "tcptrace_accept_queue_length{LISTENER}";
    export.establish(3);
    // No hook saw the accept() of this connection, which its process has closed.
    export.line(Line::Connection(Connection {
        accepted_mono_ns: None,
        verdict: Some(Verdict::Unknown),
        ..connection(3)
    }));
    export.has(LENGTH, None);
    export.establish(4);
    export.has(LENGTH, None);
    export.accept(4, MS, 0);
    export.has(LENGTH, 0.0);
    export.line(Line::Lost(samples::lost()));
    export.has(LENGTH, None);
    export.has("tcptrace_accept_queue_limit{LISTENER}", 16.0);
}

#[test]
fn counters_without_a_hook_are_absent_and_the_others_begin_at_zero() {
    let without = Export::new(10, &[Hook::InetSockSetState]);
    let overflows =
        |queue| format!(r#"tcptrace_listen_overflows_total{{LISTENER,queue="{queue}"}}"#);
    without.has(&overflows("accept"), None);
    without.has("tcptrace_half_open_failed_total{LISTENER}", None);
    without.has(
        r#"tcptrace_events_lost_total{hook="inet_sock_set_state"}"#,
        0.0,
    );
    without.has(
        r#"tcptrace_events_lost_total{hook="listen_overflow"}"#,
        None,
    );

    let mut with = Export::new(10, &[Hook::ListenOverflow]);
    with.has(&overflows("accept"), 0.0);
    with.has(&overflows("syn"), 0.0);
    with.line(Line::Overflow(Overflow {
        listener: Some(1),
        queue: ListenQueue::Accept,
        queue_len: 17,
        queue_max: 16,
        ..samples::overflow()
    }));
    with.has(&overflows("accept"), 1.0);
    with.has("tcptrace_accept_queue_length{LISTENER}", 17.0);
}

#[test]
fn retransmits_and_resets_are_counted_at_the_listener_that_the_address_matches() {
    let mut export = Export::new(10, &[]);
    export.line(Line::Retransmit(Retransmit {
        subject: server(3),
        retransmitted: Retransmitted::Data,
        ..samples::retransmit()
    }));
    let reset = |reason: Option<&str>| Reset {
        subject: server(3),
        direction: Direction::Sent,
        rst_reason: reason.map(str::to_owned),
        ..samples::reset()
    };
    export.line(Line::Reset(reset(Some("TCP_ABORT_ON_CLOSE"))));
    export.line(Line::Reset(reset(None)));
    export.has(r#"tcptrace_retransmits_total{LISTENER,what="data"}"#, 1.0);
    let resets = "tcptrace_resets_total{LISTENER,direction=\"sent\"";
    export.has(&format!("{resets},reason=\"TCP_ABORT_ON_CLOSE\"}}"), 1.0);
    export.has(&format!("{resets}}}"), 1.0);
}

#[test]
fn each_part_of_a_late_accept_is_added_to_its_reason() {
    let mut export = Export::new(10, &[]);
    let late = |parts: &[(LateReason, u64)]| {
        let mut times = LateTimes::default();
        parts.iter().for_each(|&(reason, ns)| times.add(reason, ns));
        Line::Connection(Connection {
            late: Some(Box::new(Late {
                times,
                ..samples::late()
            })),
            ..connection(3)
        })
    };
    export.line(late(&[(LateReason::Lock, 250 * MS)]));
    export.line(late(&[
        (LateReason::Lock, 500 * MS),
        (LateReason::Cpu, 2000 * MS),
    ]));
    let late = |reason| format!(r#"tcptrace_late_seconds_total{{LISTENER,reason="{reason}"}}"#);
    export.has(&late("lock"), 0.75);
    export.has(&late("cpu"), 2.0);
    export.has(&late("quota"), None);
}

#[test]
fn the_service_is_the_process_that_accepts_first() {
    let mut export = Export::new(10, &[]);
    export.listen(
        Subject {
            conn: Some(2),
            lport: Some(22),
            process: Some(Comm::from("systemd")),
            ..samples::listener()
        },
        8,
    );
    let length = |name| {
        format!(r#"tcptrace_accept_queue_length{{listener="127.0.0.1:22",service="{name}"}}"#)
    };
    export.has(&length("systemd"), 0.0);
    let accept = |name| {
        let mut line = accept(9, Some(MS), Some(Verdict::Queued));
        line.subject.process = Some(Comm::from(name));
        line.subject.lport = Some(22);
        Line::Accept(Accept {
            listener: Some(2),
            ..line
        })
    };
    export.line(accept("sshd"));
    export.line(accept("other"));
    export.has(&length("systemd"), None);
    export.has(&length("sshd"), 2.0);
    let waits =
        r#"tcptrace_accept_queue_wait_seconds_count{listener="127.0.0.1:22",service="sshd"}"#;
    export.has(waits, 2.0);
}

fn listener(conn: u64, port: u16) -> Subject {
    Subject {
        conn: Some(conn),
        lport: Some(port),
        ..samples::listener()
    }
}

fn accept_at(conn: u64, port: u16) -> Line {
    let mut line = accept(100 + conn, Some(MS), Some(Verdict::Queued));
    line.subject.lport = Some(port);
    line.listener = Some(conn);
    Line::Accept(line)
}

#[test]
fn listeners_beyond_the_limit_count_as_other_until_there_is_room() {
    // The listener at port 7878 takes one of the two places.
    let mut export = Export::new(2, &[]);
    export.listen(listener(2, 80), 8);
    export.listen(listener(3, 81), 8);
    for (conn, port) in [(2, 80), (3, 81), (3, 81)] {
        export.line(accept_at(conn, port));
    }
    let waits = |listener: &str| {
        format!(
            r#"{WAIT}_count{{listener="{listener}"{}}}"#,
            match listener {
                "other" => "",
                _ => r#",service="server""#,
            }
        )
    };
    export.has(&waits("127.0.0.1:80"), 1.0);
    export.has(&waits("127.0.0.1:81"), None);
    export.has(&waits("other"), 2.0);
    export.has("tcptrace_over_limit_lines_total", 2.0);
    export.has("tcptrace_label_sets", 2.0);
    export.has("tcptrace_label_sets_limit", 2.0);
    export.has(r#"tcptrace_accept_queue_length{listener="other"}"#, None);

    export.close(samples::NOW, listener(2, 80));
    export.fold.expire(samples::NOW + CLOSED_FOR_NS + 1);
    export.line(accept_at(3, 81));
    export.has(&waits("127.0.0.1:80"), None);
    export.has(&waits("127.0.0.1:81"), 1.0);
    // Counters never go backwards.
    export.has(&waits("other"), 2.0);
    export.has("tcptrace_over_limit_lines_total", 2.0);
}

#[test]
fn metrics_of_closed_listeners_expire_and_those_of_others_stay() {
    let mut export = Export::new(10, &[Hook::ListenOverflow]);
    export.listen(listener(2, 80), 8);
    export.accept(3, MS, 0);
    export.line(accept_at(2, 80));
    export.line(Line::Connection(connection(3)));
    let before = export.values();
    export.close(samples::NOW, listener(2, 80));
    export.has(
        r#"tcptrace_accept_queue_limit{listener="127.0.0.1:80",service="server"}"#,
        None,
    );
    export.fold.expire(samples::NOW + CLOSED_FOR_NS);
    export.has(
        &format!(r#"{WAIT}_count{{listener="127.0.0.1:80",service="server"}}"#),
        1.0,
    );
    export.fold.expire(samples::NOW + CLOSED_FOR_NS + 1);
    let after = export.values();
    assert!(
        after.keys().all(|name| !name.contains("127.0.0.1:80")),
        "{after:#?}"
    );
    let stays = |(name, _): &(&String, &f64)| name.contains("7878");
    assert!(after.iter().filter(stays).eq(before.iter().filter(stays)));

    // A listener that returns begins again.
    export.listen(listener(4, 80), 8);
    let zero =
        r#"tcptrace_connections_total{listener="127.0.0.1:80",service="server",verdict="queued"}"#;
    export.has(zero, 0.0);
}

#[test]
fn metrics_of_clients_expire_after_an_hour_without_a_line() {
    let mut export = Export::new(10, &[]);
    export.line(Line::Connection(Connection {
        subject: Subject {
            side: Some(Side::Client),
            ..server(4)
        },
        ..connection(4)
    }));
    let name = r#"tcptrace_handshake_duration_seconds_count{service="server",role="client"}"#;
    export.fold.expire(samples::NOW + IDLE_FOR_NS);
    export.has(name, 1.0);
    export.fold.expire(samples::NOW + IDLE_FOR_NS + 1);
    export.has(name, None);
}

#[test]
fn gauges_of_sockets_that_share_an_address_are_sums() {
    let mut export = Export::new(10, &[]);
    export.listen(listener(2, 7878), 4);
    export.establish(3);
    export.has("tcptrace_accept_queue_length{LISTENER}", 1.0);
    export.has("tcptrace_accept_queue_limit{LISTENER}", 20.0);
    export.close(samples::NOW, listener(2, 7878));
    export.has("tcptrace_accept_queue_length{LISTENER}", 1.0);
    export.has("tcptrace_accept_queue_limit{LISTENER}", 16.0);
}

#[test]
fn hostile_names_cannot_break_the_text() {
    let mut export = Export::new(10, &[]);
    export.line(Line::Connection(Connection {
        subject: Subject {
            side: Some(Side::Client),
            process: Some(Comm::from("a\"} 1\nb\\\u{1b}[m")),
            ..server(4)
        },
        ..connection(4)
    }));
    let values = export.values();
    let found = values
        .keys()
        .filter(|name| name.contains("role=\"client\""));
    assert!(found.clone().count() > 0);
    for name in found {
        assert!(
            name.contains(r#"service="a\"} 1"#) && !name.contains('\u{1b}'),
            "{name}"
        );
    }
}
