//! Sequence diagrams as compact rows, in blocks that the page reads one at a time.

use serde::Serialize;
use serde_json::{Value, json};

use super::encode::deflated;
use crate::diagram::{
    Arrow, Call, Diagram, Endpoint, Evidence, Header, Item, ItemKind, Mark, MarkKind, Place,
};
use crate::fields::Late;

/// Number of diagrams in a block: enough to compress well, few enough to read a block at once.
pub const PER_BLOCK: usize = 256;

/// Collects diagrams in the form of the page.
#[derive(Default)]
pub struct Diagrams {
    /// `conn` of both ends of each diagram.
    conns: Vec<Vec<u64>>,
    next: Vec<Value>,
    /// Complete blocks, in base64.
    blocks: Vec<String>,
}

/// The index of all diagrams.
#[derive(Debug, Default, Serialize)]
pub struct Index {
    per_block: usize,
    conns: Vec<Vec<u64>>,
}

impl Diagrams {
    /// Adds a diagram of a trace that began at `began_ns` (CLOCK_MONOTONIC, nanoseconds). `late`
    /// explains a late accept().
    pub fn push(&mut self, diagram: &Diagram, late: Option<&Late>, began_ns: u64) {
        self.conns.push(diagram.conns().collect());
        self.next.push(rows(diagram, late, began_ns));
        if self.next.len() == PER_BLOCK {
            self.close();
        }
    }

    fn close(&mut self) {
        self.blocks.push(deflated(&std::mem::take(&mut self.next)));
    }

    /// Returns the index and the blocks in base64.
    pub fn finish(mut self) -> (Index, Vec<String>) {
        if !self.next.is_empty() {
            self.close();
        }
        let index = Index {
            per_block: PER_BLOCK,
            conns: self.conns,
        };
        (index, self.blocks)
    }
}

/// Returns the rows of a diagram. Their times are relative to the diagram's start, which is
/// relative to the trace's start.
fn rows(diagram: &Diagram, late: Option<&Late>, began_ns: u64) -> Value {
    let items = diagram.items.iter();
    json!({
        "zero": since(diagram.zero_ns, began_ns),
        "end": since(diagram.end_ns, diagram.zero_ns),
        "segments": diagram.segments,
        "left_out": diagram.left_out,
        "late": late,
        "ends": Place::BOTH.map(|place| end(diagram.endpoint(place))),
        "items": items.map(|it| row(it, diagram.zero_ns)).collect::<Vec<_>>(),
    })
}

fn end(end: &Endpoint) -> Value {
    json!({
        "conn": end.subject.as_ref().and_then(|it| it.conn),
        "addr": end.addr,
        "port": end.port,
    })
}

fn since(at_ns: u64, zero_ns: u64) -> i64 {
    at_ns.wrapping_sub(zero_ns) as i64
}

/// Returns an item as an array: kind, column (0 is the client), time, and the fields that
/// `report/web/diagram.js` names. Trailing nulls and falses are omitted.
fn row(item: &Item, zero_ns: u64) -> Value {
    let time = |ns: Option<u64>| ns.map(|it| since(it, zero_ns));
    let at = since(item.at_ns, zero_ns);
    let row = match &item.what {
        ItemKind::State(x) => {
            let transition = x.transition.as_ref();
            json!([
                "state",
                x.place as u8,
                at,
                time(x.until_ns),
                x.state,
                x.begun,
                x.is_from_snapshot(),
                x.cause(),
                transition.and_then(|it| it.function.as_deref()),
                transition.and_then(|it| it.rfc9293.as_deref()),
                transition.is_some_and(|it| it.synthetic),
                transition.and_then(|it| it.error.as_deref()),
            ])
        }
        ItemKind::Call(x) => call(x, at, time(x.until_ns)),
        ItemKind::Wait(x) => json!(["wait", x.place as u8, at, time(Some(x.until_ns)), x.taken]),
        ItemKind::Arrow(x) => arrow(x, at, time(x.sent_ns), time(x.received_ns)),
        ItemKind::Mark(x) => mark(x, at),
    };
    let Value::Array(mut row) = row else {
        return row;
    };
    while let Some(Value::Null | Value::Bool(false)) = row.last() {
        row.pop();
    }
    Value::Array(row)
}

fn call(x: &Call, at: i64, until: Option<i64>) -> Value {
    let accept = x.accept.as_ref();
    let who = accept.map(|it| match (it.subject.comm, it.subject.pid) {
        (Some(comm), Some(pid)) => format!("{comm}[{pid}]"),
        (None, Some(pid)) => format!("[{pid}]"),
        (_, None) => "-".to_owned(),
    });
    let name = x.name.name();
    let (begun, error) = (x.begun, x.error.as_deref());
    let still = accept.map(|it| it.backlog_len);
    let limit = accept.map(|it| it.backlog_max);
    json!([
        "call",
        x.place as u8,
        at,
        until,
        name,
        begun,
        error,
        who,
        still,
        limit
    ])
}

fn arrow(x: &Arrow, at: i64, sent: Option<i64>, received: Option<i64>) -> Value {
    let evidence = match x.evidence {
        Evidence::Seen => "seen",
        Evidence::Inferred => "inferred",
        Evidence::Estimated => "estimated",
    };
    let kind = x.kind.name();
    let header = x.header.as_ref().map(header);
    let (from, again) = (x.from as u8, x.again);
    json!([
        "arrow", from, at, sent, received, kind, evidence, again, header, x.reason
    ])
}

/// Formats a segment's header like tcpdump.
fn header(x: &Header) -> String {
    let mut text = format!("Flags [{}], seq {}", x.flags, x.rel_seq.unwrap_or(x.seq));
    if let Some(ack) = x.rel_ack.or(x.ack) {
        text += &format!(", ack {ack}");
    }
    text += &format!(", win {}, length {}", x.win, x.len);
    text
}

fn mark(x: &Mark, at: i64) -> Value {
    let place = x.place as u8;
    match &x.kind {
        MarkKind::Overflow(it) => {
            let (what, queue) = (it.dropped, it.queue);
            let (len, max) = (it.queue_len, it.queue_max);
            json!([
                "mark", place, at, "overflow", what, queue, len, max, it.aborted
            ])
        }
        MarkKind::Retransmit { what, so_far } => {
            json!(["mark", place, at, "retransmit", what.name(), so_far])
        }
        MarkKind::Reset(it) => {
            json!(["mark", place, at, "reset", it.direction, it.rst_reason])
        }
        MarkKind::SocketFreed { bucket } => json!(["mark", place, at, "freed", bucket]),
        MarkKind::BucketEnded(end) => json!(["mark", place, at, "bucket", end]),
        MarkKind::TraceEnds { state } => json!(["mark", place, at, "open", state]),
    }
}
