//! Connections as spans.
//!
//! Names of attributes are those of OpenTelemetry's semantic conventions where they exist. Others are
//! `tcptrace.` and the key of the JSON lines.

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use rustc_hash::FxHashMap;
use tcptrace_core::span::{Spans, spans};

use super::metrics::scope;
use super::proto::*;
use super::queue::Entry;
use super::sender::Adder;
use crate::clock::Clock;
use crate::event::State;
use crate::fields::{Connection, Kind, Line, Side, Subject, Wanted};
use crate::printable::printable;

/// Number of span ids for one connection: itself and its parts.
const IDS: u64 = 8;

/// Turns lines into spans, and adds them to a queue.
pub struct Tracer {
    adder: Adder<Vec<Span>>,
    /// Connections that waited longer than this have spans, in nanoseconds.
    slow_ns: u64,
    clock: Clock,
    ids: Ids,
    own: Own,
    /// The connections that have left ESTABLISHED and have not ended, with the time.
    left: FxHashMap<u64, u64>,
}

/// Connections of this exporter, which have no spans: a collector that is away would cause new spans
/// with each attempt to send them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// The name of this process.
    pub process: String,
    /// The ports of the collectors.
    pub ports: Vec<u16>,
}

impl Own {
    fn has(&self, subject: &Subject) -> bool {
        subject.side == Some(Side::Client)
            && subject.rport.is_some_and(|port| self.ports.contains(&port))
            && (subject.process).is_some_and(|process| process.to_string() == self.process)
    }
}

impl Tracer {
    pub fn new(adder: Adder<Vec<Span>>, slow_ns: u64, ids: Ids, own: Own) -> Tracer {
        Tracer {
            adder,
            slow_ns,
            clock: Clock::measure(),
            ids,
            own,
            left: FxHashMap::default(),
        }
    }

    /// Measures the wall clock again, which may have been set.
    pub fn measure_clock(&mut self) {
        self.clock = Clock::measure();
    }

    /// Returns the lines that spans need.
    pub fn wants() -> Wanted {
        Wanted::kind(Kind::Connection) | Wanted::CLOSINGS
    }

    /// Takes the next line.
    pub fn line(&mut self, line: &Line) {
        match line {
            Line::Transition(x) if x.oldstate == State::Established => {
                if let Some(conn) = x.subject.conn {
                    self.left.insert(conn, x.mono_ns);
                }
            }
            Line::Connection(x) => {
                let left_ns = x.subject.conn.and_then(|conn| self.left.remove(&conn));
                if self.own.has(&x.subject) {
                    return;
                }
                if let Some(spans) = spans(x, left_ns, self.slow_ns) {
                    let item = encode(x, &spans, &self.clock, &self.ids);
                    let units = item.len() as u64;
                    let size = units;
                    self.adder.add(Entry { item, units, size });
                }
            }
            _ => {}
        }
    }
}

/// The source of the ids of one run.
#[derive(Clone, Copy, Debug)]
pub struct Ids {
    /// Random.
    pub seed: [u64; 3],
}

impl Ids {
    fn trace(&self, conn: u64) -> Vec<u8> {
        let halves = [self.seed[0], self.seed[1]].map(|seed| mix(seed.wrapping_add(conn)));
        halves.into_iter().flat_map(u64::to_be_bytes).collect()
    }

    fn span(&self, conn: u64, n: u64) -> Vec<u8> {
        let number = conn.wrapping_mul(IDS).wrapping_add(n);
        let id = mix(self.seed[2].wrapping_add(number));
        // An id of zeros is invalid.
        id.max(1).to_be_bytes().to_vec()
    }
}

/// Maps each number to another one that looks random (the finalizer of SplitMix64).
fn mix(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Returns the span of the whole connection and those of its parts.
fn encode(line: &Connection, spans: &Spans, clock: &Clock, ids: &Ids) -> Vec<Span> {
    // Every connection has a number, and its end time is unique enough otherwise.
    let conn = line.subject.conn.unwrap_or(line.mono_ns);
    let (trace_id, root_id) = (ids.trace(conn), ids.span(conn, 0));
    let event = |name: &str, ns: Option<u64>| {
        let event = |ns| Event {
            time_unix_nano: clock.wall_ns(ns),
            name: name.to_owned(),
        };
        ns.map(event)
    };
    let events = [
        event("tcptrace.overflow", line.first_overflow_mono_ns),
        event("tcptrace.accept", line.accepted_mono_ns),
    ];
    let root = Span {
        trace_id: trace_id.clone(),
        span_id: root_id.clone(),
        parent_span_id: vec![],
        name: "tcp connection".to_owned(),
        kind: match line.subject.side {
            Some(Side::Server) => SERVER,
            Some(Side::Client) => CLIENT,
            _ => INTERNAL,
        },
        start_time_unix_nano: clock.wall_ns(spans.start_ns),
        end_time_unix_nano: clock.wall_ns(spans.end_ns),
        attributes: attributes(line, spans),
        events: events.into_iter().flatten().collect(),
        status: spans.is_failure.then(|| SpanStatus {
            message: failure_words(line),
            code: ERROR,
        }),
    };
    let part = |(n, span): (usize, &tcptrace_core::span::Span)| Span {
        trace_id: trace_id.clone(),
        span_id: ids.span(conn, n as u64 + 1),
        parent_span_id: root_id.clone(),
        name: span.part.name().to_owned(),
        kind: INTERNAL,
        start_time_unix_nano: clock.wall_ns(span.start_ns),
        end_time_unix_nano: clock.wall_ns(span.end_ns),
        ..Span::default()
    };
    let parts = spans.parts.iter().enumerate().map(part);
    [root].into_iter().chain(parts).collect()
}

/// Returns a request with these spans.
pub fn request(resource: &Resource, spans: Vec<Span>) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource.clone()),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope()),
                spans,
            }],
        }],
    }
}

/// Returns the reason of a failure for people.
fn failure_words(line: &Connection) -> String {
    match (line.ending.ended, line.verdict) {
        (Some(ended), _) => ended.words().to_owned(),
        (None, Some(verdict)) => verdict.name().replace('_', " "),
        (None, None) => line.error.as_deref().unwrap_or_default().to_owned(),
    }
}

/// Returns `error.type`: the error, or else how the connection ended, or else its verdict.
fn error_type(line: &Connection) -> Option<String> {
    if let Some(error) = &line.error {
        return Some(error.clone().into_owned());
    }
    name(line.ending.ended).or_else(|| Some(line.verdict?.name().to_owned()))
}

/// Returns the value's name in JSON; `None` for null.
fn name(value: impl serde::Serialize) -> Option<String> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => Some(name),
        _ => None,
    }
}

/// The attributes of one span. Unknown values are left out.
#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn text(&mut self, key: &str, value: Option<impl AsRef<str>>) {
        if let Some(value) = value.filter(|it| !it.as_ref().is_empty()) {
            let text = printable(value.as_ref()).to_string();
            self.0.push(attribute(key, Value::String(text)));
        }
    }

    fn int(&mut self, key: &str, value: Option<impl Into<u64>>) {
        if let Some(value) = value {
            let value = value.into().try_into().unwrap_or(i64::MAX);
            self.0.push(attribute(key, Value::Int(value)));
        }
    }

    fn bool(&mut self, key: &str, value: bool) {
        self.0.push(attribute(key, Value::Bool(value)));
    }
}

fn attributes(line: &Connection, spans: &Spans) -> Vec<KeyValue> {
    let mut all = Attributes::default();
    network(&mut all, &line.subject);
    all.text("network.connection.state", Some(state(line.state)));
    owner(&mut all, &line.subject);
    if spans.is_failure {
        all.text("error.type", error_type(line));
    }
    all.int("tcptrace.conn", line.subject.conn);
    all.int("tcptrace.peer_conn", line.peer_conn);
    all.int("tcptrace.netns", Some(line.subject.netns));
    all.text("tcptrace.pid_source", name(line.subject.pid_source));
    all.text("tcptrace.verdict", line.verdict.map(|it| it.name()));
    all.text("tcptrace.ended", name(line.ending.ended));
    all.text("tcptrace.half_open_end", name(line.half_open_end));
    all.text("tcptrace.syn_source", name(line.syn_source));
    all.int("tcptrace.handshake_ns", line.handshake_ns);
    all.int("tcptrace.accept_queue_ns", line.accept_queue_ns);
    all.int("tcptrace.backlog_ahead", line.backlog_ahead);
    all.int("tcptrace.backlog_max", line.backlog_max);
    all.int("tcptrace.overflows", line.overflows);
    all.int("tcptrace.syn_retransmits", line.ending.syn_retransmits);
    all.int("tcptrace.synack_retransmits", line.synack_retransmits);
    all.int("tcptrace.retransmits", line.ending.retransmits);
    all.int("tcptrace.bytes_acked", line.ending.bytes_acked);
    all.int("tcptrace.bytes_received", line.ending.bytes_received);
    all.int("tcptrace.unread_bytes", line.ending.unread_bytes);
    all.int("tcptrace.srtt_ns", line.ending.srtt_ns);
    if let Some(late) = &line.late {
        all.text("tcptrace.late_reason", Some(late.late_reason.name()));
        all.text("tcptrace.late_because", Some(&late.late_because));
    }
    all.bool("tcptrace.complete", line.complete);
    if spans.is_open {
        all.bool("tcptrace.open", true);
    }
    all.0
}

fn network(all: &mut Attributes, subject: &Subject) {
    let address = |it: IpAddr| it.to_string();
    let (local, local_port) = (Some(address(subject.laddr)), subject.lport);
    let (peer, peer_port) = (subject.raddr.map(address), subject.rport);
    all.text("network.transport", Some("tcp"));
    let family = match subject.family {
        6 => "ipv6",
        _ => "ipv4",
    };
    all.text("network.type", Some(family));
    all.text("network.local.address", local.as_deref());
    all.int("network.local.port", local_port);
    all.text("network.peer.address", peer.as_deref());
    all.int("network.peer.port", peer_port);
    let server = match subject.side {
        Some(Side::Server) => Some((local, local_port)),
        Some(Side::Client) => Some((peer, peer_port)),
        _ => None,
    };
    if let Some((address, port)) = server {
        all.text("server.address", address);
        all.int("server.port", port);
    }
}

fn owner(all: &mut Attributes, subject: &Subject) {
    all.int("process.pid", subject.pid);
    let process = subject.process.map(|it| it.to_string());
    all.text("process.executable.name", process);
    all.text("container.id", subject.container.as_deref());
    all.text("container.name", subject.container_name.as_deref());
    all.text("container.image.name", subject.container_image.as_deref());
    all.text("k8s.pod.name", subject.k8s_pod_name.as_deref());
    all.text("k8s.namespace.name", subject.k8s_namespace_name.as_deref());
}

/// Returns the value of `network.connection.state`.
fn state(state: State) -> &'static str {
    match state {
        State::Established => "established",
        State::SynSent => "syn_sent",
        State::SynRecv | State::NewSynRecv => "syn_received",
        State::FinWait1 => "fin_wait_1",
        State::FinWait2 => "fin_wait_2",
        State::TimeWait => "time_wait",
        State::Close => "closed",
        State::CloseWait => "close_wait",
        State::LastAck => "last_ack",
        State::Listen => "listen",
        State::Closing => "closing",
        State::BoundInactive => "",
    }
}
