//! The content of the page: a table of connections, and information about the trace.

use std::collections::BTreeMap;

use rustc_hash::FxHashSet;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Columns;
use super::diagrams::{Diagrams, Index};
use crate::clock::Clock;
use crate::diagram::{Collector, Diagram, Group, Keep};
use crate::event::State;
use crate::fields::{
    Accept, Connection, Frame, Histogram, Late, Line, Lost, Session, Side, Stack, Subject, Summary,
    Times, Verdict,
};

/// Collects lines. Times are converted to nanoseconds since the trace began.
pub struct Content {
    clock: Clock,
    trace: Trace,
    connections: Columns,
    collector: Collector,
    diagrams: Diagrams,
    /// Connections without a `connection` line so far, by `conn`.
    open: BTreeMap<u64, Open>,
    /// Connections whose `connection` line has come. Later lines are about their TIME_WAIT buckets.
    ended: FxHashSet<u64>,
    ports: BTreeMap<(u32, u16, &'static str), Port>,
    /// The stacks of acceptors, by number.
    stacks: BTreeMap<u64, Value>,
    /// Time of the first line (CLOCK_MONOTONIC, nanoseconds).
    began_ns: Option<u64>,
}

/// The complete content of a page.
pub struct Finished {
    pub trace: Trace,
    pub connections: Columns,
    /// The stacks of acceptors, by number.
    pub stacks: BTreeMap<u64, Value>,
    /// Blocks of diagrams in base64, see [`super::diagrams`].
    pub diagrams: Vec<String>,
}

/// Information about the trace.
#[derive(Debug, Default, Serialize)]
pub struct Trace {
    /// The recording's file name.
    file: String,
    /// Version of the tcptrace that made this page.
    made_by: &'static str,
    /// Wall-clock time of the trace's start, in nanoseconds since 1970. A string, because
    /// JavaScript's numbers are not exact enough.
    began_wall_ns: String,
    session: Option<Session>,
    summary: Option<Summary>,
    lost: Vec<Loss>,
    /// Counters of `--depth histogram`.
    ports: Vec<Port>,
    /// Description of what could not be read from the recording.
    damage: Option<String>,
    /// Time of the last line, in nanoseconds since the trace began.
    ended_at: i64,
    /// Number of lines read.
    lines: u64,
    /// Number of connections without a `connection` line.
    without_end: u64,
    diagrams: Index,
}

#[derive(Debug, Serialize)]
struct Loss {
    at: i64,
    #[serde(flatten)]
    lost: Lost,
}

/// The sums of the histogram lines of one port and side.
#[derive(Debug, Default, Serialize)]
struct Port {
    netns: u32,
    port: u16,
    side: &'static str,
    connections: u64,
    queued: Option<u64>,
    awaited: Option<u64>,
    /// Counts by the upper bound of their histogram bucket, in nanoseconds.
    handshake: BTreeMap<u64, u64>,
    accept_queue: BTreeMap<u64, u64>,
    /// Time and number of connections of each histogram line.
    seconds: Vec<(i64, u64)>,
}

/// The state of a connection before its `connection` line.
struct Open {
    subject: Subject,
    first_ns: u64,
    last_ns: u64,
    state: Option<State>,
    established_ns: Option<u64>,
    accepted: Option<Accepted>,
}

/// The information of an `accept` line.
struct Accepted {
    listener: Option<u64>,
    called_ns: Option<u64>,
    returned_ns: u64,
    queue_ns: Option<u64>,
    verdict: Option<Verdict>,
    reason: Option<String>,
    late: Option<Box<Late>>,
}

impl Content {
    /// Starts a page for the recording `file` of a machine with this clock.
    pub fn new(clock: Clock, file: String) -> Content {
        let made_by = env!("CARGO_PKG_VERSION");
        Content {
            clock,
            trace: Trace {
                file,
                made_by,
                ..Trace::default()
            },
            connections: Columns::default(),
            collector: Collector::new(Keep::UntilGone),
            diagrams: Diagrams::default(),
            open: BTreeMap::new(),
            ended: FxHashSet::default(),
            ports: BTreeMap::new(),
            stacks: BTreeMap::new(),
            began_ns: None,
        }
    }

    /// Takes the next line.
    pub fn line(&mut self, line: &Line) {
        let mono_ns = line.mono_ns();
        self.began_ns.get_or_insert(mono_ns);
        self.trace.ended_at = self.trace.ended_at.max(self.at(mono_ns));
        self.trace.lines += 1;
        if let Some(group) = self.collector.take(line) {
            self.draw(&group);
        }
        match line {
            Line::Session(x) => self.trace.session = Some(x.clone()),
            Line::Summary(x) => self.trace.summary = Some(x.clone()),
            Line::Lost(x) => self.trace.lost.push(Loss {
                at: self.at(mono_ns),
                lost: x.clone(),
            }),
            Line::Histogram(x) => self.histogram(x),
            Line::Connection(x) => self.connection(x),
            Line::Transition(x) => {
                let Some(open) = self.open(&x.subject, mono_ns) else {
                    return;
                };
                // A synthetic transition is about the TIME_WAIT bucket, not about the socket.
                if !x.synthetic || open.state.is_none() {
                    open.state = Some(x.newstate);
                }
                if x.newstate == State::Established {
                    open.established_ns = Some(mono_ns);
                }
            }
            Line::Accept(x) if x.accept_error.is_none() => {
                if let Some(open) = self.open(&x.subject, mono_ns) {
                    open.accepted = Some(Accepted::from(x));
                }
            }
            Line::Preexisting(x) => {
                if let Some(open) = self.open(&x.subject, mono_ns) {
                    open.state = Some(x.state);
                }
            }
            // TIME_WAIT comes after the end, and a failed accept() belongs to no connection.
            Line::TimeWait(_) | Line::Accept(_) => {}
            Line::Stack(x) => {
                self.stacks.insert(x.stack, stack(x));
            }
            Line::Overflow(_) | Line::Segment(_) | Line::Retransmit(_) | Line::Reset(_) => {}
        }
    }

    /// Sets the description of what could not be read; empty if the recording is complete.
    pub fn set_damage(&mut self, how: &str) {
        self.trace.damage = Some(how.to_owned()).filter(|it| !it.is_empty());
    }

    /// Returns the complete content.
    pub fn finish(mut self) -> Finished {
        let collector = std::mem::replace(&mut self.collector, Collector::new(Keep::UntilGone));
        for group in collector.finish() {
            self.draw(&group);
        }
        for (_, open) in std::mem::take(&mut self.open) {
            self.trace.without_end += 1;
            let record = self.without_end(&open);
            self.connections.push(record);
        }
        let began_ns = self.began_ns.unwrap_or(0);
        self.trace.began_wall_ns = self.clock.wall_ns(began_ns).to_string();
        self.trace.ports = self.ports.into_values().collect();
        let (index, diagrams) = self.diagrams.finish();
        self.trace.diagrams = index;
        Finished {
            trace: self.trace,
            connections: self.connections,
            stacks: self.stacks,
            diagrams,
        }
    }

    fn draw(&mut self, group: &Group) {
        if let Some(diagram) = Diagram::of(group) {
            let late = group.lines.iter().rev().find_map(|line| match line {
                Line::Accept(x) => x.late.as_deref(),
                Line::Connection(x) => x.late.as_deref(),
                _ => None,
            });
            let began_ns = self.began_ns.unwrap_or(0);
            self.diagrams.push(&diagram, late, began_ns);
        }
    }

    fn at(&self, mono_ns: u64) -> i64 {
        mono_ns.wrapping_sub(self.began_ns.unwrap_or(mono_ns)) as i64
    }

    fn open(&mut self, subject: &Subject, mono_ns: u64) -> Option<&mut Open> {
        let conn = subject.conn?;
        if subject.side == Some(Side::Listener) || self.ended.contains(&conn) {
            return None;
        }
        let open = self.open.entry(conn).or_insert_with(|| Open {
            subject: subject.clone(),
            first_ns: mono_ns,
            last_ns: mono_ns,
            state: None,
            established_ns: None,
            accepted: None,
        });
        open.last_ns = mono_ns;
        open.subject.clone_from(subject);
        Some(open)
    }

    fn connection(&mut self, x: &Connection) {
        self.ended.extend(x.subject.conn);
        let open = x.subject.conn.and_then(|conn| self.open.remove(&conn));
        let first_ns = open.as_ref().map_or(x.mono_ns, |open| open.first_ns);
        let first_ns = x.syn_mono_ns.map_or(first_ns, |syn| syn.min(first_ns));
        let listener = open.and_then(|open| open.accepted?.listener);
        let mut record = self.record(x);
        record.insert("first_at".into(), self.at(first_ns).into());
        record.insert("listener".into(), listener.into());
        record.insert("has_end_line".into(), true.into());
        self.name(&mut record, &x.subject);
        self.connections.push(record);
    }

    /// Returns the row of a connection that has no `connection` line in the recording.
    fn without_end(&self, open: &Open) -> Map<String, Value> {
        let mut record = self.record(&open.subject);
        let mut put = |name: &str, value: Value| record.insert(name.into(), value);
        put("at", self.at(open.last_ns).into());
        put("first_at", self.at(open.first_ns).into());
        put("state", open.state.map(State::name).into());
        let established_ns = open.established_ns;
        put(
            "established_at",
            established_ns.map(|it| self.at(it)).into(),
        );
        if let Some(it) = &open.accepted {
            put("listener", it.listener.into());
            put(
                "accept_called_at",
                it.called_ns.map(|it| self.at(it)).into(),
            );
            put("accepted_at", self.at(it.returned_ns).into());
            put("accept_queue_ns", it.queue_ns.into());
            put("verdict", it.verdict.map(Verdict::name).into());
            put("reason", it.reason.clone().into());
            if let Some(late) = &it.late {
                put("late_reason", late.late_reason.name().into());
                put("late_because", late.late_because.clone().into());
            }
        }
        put("complete", false.into());
        put("has_end_line", false.into());
        self.name(&mut record, &open.subject);
        record
    }

    /// Returns a line's fields by their JSON names. `…_mono_ns` becomes `…_at`, in nanoseconds
    /// since the trace began.
    fn record(&self, line: &impl Serialize) -> Map<String, Value> {
        let Ok(Value::Object(fields)) = serde_json::to_value(line) else {
            return Map::new();
        };
        // A column has no lists. The diagram's rows have those of a late accept().
        let fields = fields.into_iter().filter(|(_, value)| !value.is_array());
        let renamed = fields.map(|(name, value)| {
            let of = match name.as_str() {
                "mono_ns" => "at".to_owned(),
                other => match other.strip_suffix("_mono_ns") {
                    Some(what) => format!("{what}_at"),
                    None => return (name, value),
                },
            };
            (of, value.as_u64().map(|it| self.at(it)).into())
        });
        renamed.collect()
    }

    /// Adds names in the form of the text log. Ids become texts, because the page formats a number
    /// as a count or a time.
    fn name(&self, record: &mut Map<String, Value>, subject: &Subject) {
        let mut put = |name: &str, value: Option<String>| record.insert(name.into(), value.into());
        put("comm", subject.comm.map(|comm| comm.to_string()));
        put("cookie", subject.cookie.map(|it| format!("{it:x}")));
        put("cgroup", subject.cgroup.map(|it| it.to_string()));
    }

    fn histogram(&mut self, x: &Histogram) {
        let at = self.at(x.mono_ns);
        let side = match x.side {
            Side::Client => "client",
            Side::Server | Side::Listener => "server",
        };
        let port = self.ports.entry((x.netns, x.port, side)).or_default();
        (port.netns, port.port, port.side) = (x.netns, x.port, side);
        port.connections = port.connections.saturating_add(x.went_well);
        let add = |sum: &mut Option<u64>, more: Option<u64>| {
            if let Some(more) = more {
                *sum = Some(sum.unwrap_or(0).saturating_add(more));
            }
        };
        add(&mut port.queued, x.queued);
        add(&mut port.awaited, x.awaited);
        let merge = |sum: &mut BTreeMap<u64, u64>, more: &Option<Times>| {
            let buckets = more.iter().flat_map(|times| &times.buckets);
            for &(end, n) in buckets {
                let count = sum.entry(end).or_default();
                *count = count.saturating_add(n);
            }
        };
        merge(&mut port.handshake, &x.handshake);
        merge(&mut port.accept_queue, &x.accept_queue);
        port.seconds.push((at, x.went_well));
    }
}

impl From<&Accept> for Accepted {
    fn from(x: &Accept) -> Accepted {
        Accepted {
            listener: x.listener,
            called_ns: x.called_mono_ns,
            returned_ns: x.mono_ns,
            queue_ns: x.accept_queue_ns,
            verdict: x.verdict,
            reason: x.reason.clone(),
            late: x.late.clone(),
        }
    }
}

/// Returns the frames of a stack as arrays that `report/web/late.js` names. Trailing nulls and falses
/// are omitted.
fn stack(x: &Stack) -> Value {
    let frame = |it: &Frame| {
        let address = format!("{:x}", it.address);
        let mut frame = vec![
            Value::from(address),
            it.function.clone().into(),
            it.module.clone().into(),
            it.file.clone().into(),
            it.line.into(),
            it.inlined.into(),
        ];
        while let Some(Value::Null | Value::Bool(false)) = frame.last() {
            frame.pop();
        }
        Value::from(frame)
    };
    let frames = |all: &[Frame]| all.iter().map(frame).collect::<Vec<_>>();
    json!({
        "pid": x.pid,
        "kernel": frames(&x.kernel_frames),
        "user": frames(&x.user_frames),
    })
}

#[cfg(test)]
mod tests;
