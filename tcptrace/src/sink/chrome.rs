//! Trace events for <https://ui.perfetto.dev> and chrome://tracing, in the JSON array format of the
//! "Trace Event Format".
//!
//! A traced process appears as a process. Each connection has up to three tracks in it: its states,
//! its wait in the accept queue, and its calls. Arrows lead from the sending to the receiving of a
//! segment. Times are microseconds since the trace began.
//!
//! A connection is written when it is over, with its TIME_WAIT. The format allows the closing
//! bracket to be missing, so a truncated file can be opened.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, Write};

use serde::Serialize;
use serde_json::{Value, json};

use super::Sink;
use crate::diagram::words::{self, role};
use crate::diagram::{
    Arrow, Call, CallName, Collector, Diagram, Endpoint, Evidence, Item, ItemKind, Keep, Mark,
    Place, StateSpan, Wait,
};
use crate::event::State;
use crate::fields::{Line, Verdict};
use crate::printable::Shown;

/// Writes trace events.
pub struct Chrome {
    out: BufWriter<Box<dyn Write + Send>>,
    collector: Option<Collector>,
    /// CLOCK_MONOTONIC time of timestamp 0, in nanoseconds.
    zero_ns: Option<u64>,
    begun: bool,
    /// Processes whose name has been written.
    named: BTreeSet<u32>,
    arrows: u64,
}

/// The first track number. It is above every process id (PID_MAX_LIMIT is 2^22), because a track
/// with the number of a process would be taken for its main thread.
const FIRST_TRACK: u64 = 1 << 23;

/// The tracks of one end, from top to bottom.
#[derive(Clone, Copy)]
enum Track {
    States,
    Queue,
    Calls,
}

impl Chrome {
    pub fn new(out: Box<dyn Write + Send>) -> Chrome {
        Chrome {
            out: BufWriter::new(out),
            collector: Some(Collector::new(Keep::UntilGone)),
            zero_ns: None,
            begun: false,
            named: BTreeSet::new(),
            arrows: 0,
        }
    }

    fn event(&mut self, event: &Value) -> io::Result<()> {
        self.out
            .write_all(if self.begun { b",\n" } else { b"[\n" })?;
        self.begun = true;
        let mut json = serde_json::Serializer::with_formatter(&mut self.out, Shown);
        event.serialize(&mut json).map_err(io::Error::from)
    }

    fn connection(&mut self, diagram: &Diagram) -> io::Result<()> {
        for place in Place::BOTH {
            self.names(diagram, place)?;
        }
        for Item { at_ns, what } in &diagram.items {
            match what {
                ItemKind::State(span) => self.state(diagram, *at_ns, span)?,
                ItemKind::Call(call) => self.call(diagram, *at_ns, call)?,
                ItemKind::Wait(wait) => self.wait(diagram, *at_ns, wait)?,
                ItemKind::Arrow(arrow) => self.arrow(diagram, arrow)?,
                ItemKind::Mark(mark) => self.mark(diagram, *at_ns, mark)?,
            }
        }
        Ok(())
    }

    /// Writes the names of the processes and the tracks.
    fn names(&mut self, diagram: &Diagram, place: Place) -> io::Result<()> {
        let end = diagram.endpoint(place);
        let Some(subject) = &end.subject else {
            return Ok(());
        };
        let (pid, conn) = (pid(end), subject.conn.unwrap_or_default());
        if self.named.insert(pid) {
            let name = match (subject.comm, subject.pid) {
                (Some(comm), Some(_)) => comm.to_string(),
                (None, Some(_)) => "process".to_owned(),
                (_, None) => "process not known".to_owned(),
            };
            let args = json!({ "name": name });
            self.event(&json!({"name": "process_name", "ph": "M", "pid": pid, "args": args}))?;
        }
        let address = |end: &Endpoint| match (end.addr, end.port) {
            (Some(addr), Some(port)) => std::net::SocketAddr::new(addr, port).to_string(),
            (Some(addr), None) => addr.to_string(),
            (None, _) => "?".to_owned(),
        };
        let (left, right) = (address(&diagram.left), address(&diagram.right));
        let whole = format!("#{conn} {} {left} → {right}", role(diagram, end));
        let has = |wanted: fn(&ItemKind) -> Option<Place>| {
            let places = diagram.items.iter().filter_map(|item| wanted(&item.what));
            places.into_iter().any(|it| it == place)
        };
        let queue = has(|what| match what {
            ItemKind::Wait(wait) => Some(wait.place),
            _ => None,
        });
        let calls = has(|what| match what {
            ItemKind::Call(call) => Some(call.place),
            _ => None,
        });
        for (track, used, name) in [
            (Track::States, true, whole),
            (Track::Queue, queue, format!("#{conn} accept queue")),
            (Track::Calls, calls, format!("#{conn} calls")),
        ] {
            if used {
                let tid = track.of(end);
                let name = json!({ "name": name });
                self.event(&json!(
                    {"name": "thread_name", "ph": "M", "pid": pid, "tid": tid, "args": name}
                ))?;
                let order = json!({ "sort_index": tid });
                self.event(&json!(
                    {"name": "thread_sort_index", "ph": "M", "pid": pid, "tid": tid, "args": order}
                ))?;
            }
        }
        Ok(())
    }

    fn state(&mut self, diagram: &Diagram, at_ns: u64, span: &StateSpan) -> io::Result<()> {
        // CLOSE is the end of the track.
        if span.state == State::Close {
            return Ok(());
        }
        let end = diagram.endpoint(span.place);
        let transition = span.transition.as_ref();
        let mut args = json!({
            "conn": end.subject.as_ref().and_then(|it| it.conn),
            "cause": transition.and_then(|it| it.cause),
            "function": transition.and_then(|it| it.function.as_deref()),
            "rfc9293": transition.and_then(|it| it.rfc9293.as_deref()),
            "context": transition.and_then(|it| it.context),
            "cpu": transition.map(|it| it.cpu),
            "source": transition.map(|it| it.source),
            "begun": span.begun,
            "left": span.until_ns.is_some(),
        });
        if span.state == State::Established
            && let Some(connection) = &end.connection
        {
            args["verdict"] = json!(connection.verdict.map(Verdict::name));
            args["reason"] = json!(connection.reason);
            args["ended"] = json!(connection.ending.ended);
            args["complete"] = json!(connection.complete);
        }
        // A state without an end lasts until the end of the diagram.
        let until = span.until_ns.unwrap_or(diagram.end_ns);
        self.slice(end, Track::States, (at_ns, until), span.state.name(), args)
    }

    fn call(&mut self, diagram: &Diagram, at_ns: u64, call: &Call) -> io::Result<()> {
        let end = diagram.endpoint(call.place);
        let name = call.name.name();
        if !call.begun || matches!(call.name, CallName::Close | CallName::Abort) {
            return self.instant(end, Track::Calls, at_ns, name);
        }
        let accept = call.accept.as_ref();
        let args = json!({
            "error": call.error,
            "returned": call.until_ns.is_some(),
            "tid": accept.and_then(|it| it.subject.tid),
            "witness": accept.map(|it| it.witness.name()),
        });
        let until = call.until_ns.unwrap_or(diagram.end_ns);
        self.slice(end, Track::Calls, (at_ns, until), name, args)
    }

    fn wait(&mut self, diagram: &Diagram, at_ns: u64, wait: &Wait) -> io::Result<()> {
        let end = diagram.endpoint(wait.place);
        let ahead = end.connection.as_ref().and_then(|it| it.backlog_ahead);
        let args = json!({ "taken": wait.taken, "backlog_ahead": ahead });
        let times = (at_ns, wait.until_ns);
        self.slice(end, Track::Queue, times, "in the accept queue", args)
    }

    /// Writes an arrow from state to state. If an end has no state then or was not seen, writes an
    /// instant at the other end.
    fn arrow(&mut self, diagram: &Diagram, x: &Arrow) -> io::Result<()> {
        let (from, to) = (diagram.endpoint(x.from), diagram.endpoint(x.from.other()));
        let times = x.sent_ns.zip(x.received_ns);
        let flows = times.filter(|&(sent, received)| {
            in_a_state(diagram, x.from, sent) && in_a_state(diagram, x.from.other(), received)
        });
        let Some((sent, received)) = flows else {
            let inferred = match x.evidence {
                Evidence::Seen => "",
                Evidence::Inferred | Evidence::Estimated => " (inferred)",
            };
            let sides = [(from, x.sent_ns, "sent"), (to, x.received_ns, "received")];
            for (end, at_ns, what) in sides {
                if let (Some(at_ns), Some(_)) = (at_ns, &end.subject) {
                    let name = format!("{} {what}{inferred}", x.kind.name());
                    self.instant(end, Track::States, at_ns, &name)?;
                }
            }
            return Ok(());
        };
        self.arrows += 1;
        let (id, name) = (self.arrows, x.kind.name());
        let category = match x.evidence {
            Evidence::Seen => "segment",
            Evidence::Inferred | Evidence::Estimated => "segment,inferred",
        };
        for (phase, end, at_ns) in [("s", from, sent), ("f", to, received)] {
            let (pid, tid, ts) = (pid(end), Track::States.of(end), self.ts(at_ns));
            let mut event = json!({
                "name": name, "cat": category, "ph": phase, "id": id,
                "pid": pid, "tid": tid, "ts": ts,
            });
            if phase == "f" {
                // The arrow ends at the enclosing slice, not at the next one.
                event["bp"] = json!("e");
            }
            self.event(&event)?;
        }
        Ok(())
    }

    fn mark(&mut self, diagram: &Diagram, at_ns: u64, mark: &Mark) -> io::Result<()> {
        let end = diagram.endpoint(mark.place);
        match words::mark(&mark.kind) {
            Some(words) if end.subject.is_some() => self.instant(end, Track::States, at_ns, &words),
            _ => Ok(()),
        }
    }

    fn slice(
        &mut self,
        end: &Endpoint,
        track: Track,
        (from_ns, until_ns): (u64, u64),
        name: &str,
        args: Value,
    ) -> io::Result<()> {
        let (ts, dur) = (self.ts(from_ns), micros(until_ns.saturating_sub(from_ns)));
        self.event(&json!({
            "name": name, "cat": track.category(), "ph": "X",
            "pid": pid(end), "tid": track.of(end), "ts": ts, "dur": dur, "args": args,
        }))
    }

    fn instant(&mut self, end: &Endpoint, track: Track, at_ns: u64, name: &str) -> io::Result<()> {
        let ts = self.ts(at_ns);
        self.event(&json!({
            "name": name, "cat": track.category(), "ph": "i", "s": "t",
            "pid": pid(end), "tid": track.of(end), "ts": ts,
        }))
    }

    /// Returns the time since the trace began, in microseconds. It is negative for a call that
    /// began before the trace.
    fn ts(&self, at_ns: u64) -> f64 {
        let zero = self.zero_ns.unwrap_or(0);
        match at_ns.checked_sub(zero) {
            Some(ns) => micros(ns),
            None => -micros(zero - at_ns),
        }
    }
}

/// Returns true if there is a slice to which an arrow can be bound.
fn in_a_state(diagram: &Diagram, place: Place, at_ns: u64) -> bool {
    diagram.items.iter().any(|item| match &item.what {
        ItemKind::State(span) => {
            let until = span.until_ns.unwrap_or(diagram.end_ns);
            span.place == place
                && span.state != State::Close
                && (item.at_ns..=until).contains(&at_ns)
        }
        _ => false,
    })
}

/// Converts nanoseconds to microseconds. Exact to the nanosecond for a hundred days.
fn micros(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

fn pid(end: &Endpoint) -> u32 {
    end.subject.as_ref().and_then(|it| it.pid).unwrap_or(0)
}

impl Track {
    fn of(self, end: &Endpoint) -> u64 {
        let conn = end.subject.as_ref().and_then(|it| it.conn);
        let first = conn.unwrap_or(0).saturating_mul(4);
        first.saturating_add(FIRST_TRACK + self as u64)
    }

    fn category(self) -> &'static str {
        match self {
            Track::States => "state",
            Track::Queue => "accept_queue",
            Track::Calls => "call",
        }
    }
}

impl Sink for Chrome {
    fn line(&mut self, line: &Line) -> io::Result<()> {
        self.zero_ns.get_or_insert(line.mono_ns());
        let ended = self.collector.as_mut().and_then(|it| it.take(line));
        if let Some(diagram) = ended.as_ref().and_then(Diagram::of) {
            self.connection(&diagram)?;
        }
        if matches!(line, Line::Summary(_))
            && let Some(collector) = self.collector.take()
        {
            for group in collector.finish() {
                if let Some(diagram) = Diagram::of(&group) {
                    self.connection(&diagram)?;
                }
            }
            // A trace without connections must also be a valid array.
            self.out
                .write_all(if self.begun { b"\n]\n" } else { b"[]\n" })?;
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Comm;
    use crate::sink::samples;

    fn written(lines: &[Line]) -> String {
        samples::all_written(lines, |out| Box::new(Chrome::new(out)))
    }

    #[test]
    fn all_lines_together_form_one_array() {
        let events: Vec<Value> = serde_json::from_str(&written(&samples::all())).unwrap();
        let has = |name: &str| events.iter().any(|event| event["name"] == name);
        assert!(has("accept()") && has("in the accept queue") && has("ESTABLISHED"));
    }

    #[test]
    fn a_trace_without_connections_is_an_empty_array() {
        let lines = [
            Line::Session(samples::session()),
            Line::Summary(samples::summary()),
        ];
        let events: Vec<Value> = serde_json::from_str(&written(&lines)).unwrap();
        assert!(events.is_empty());
    }

    /// The format allows the closing bracket to be missing.
    #[test]
    fn a_truncated_trace_lacks_only_the_closing_bracket() {
        let lines = samples::all();
        let text = written(&lines[..lines.len() - 1]);
        assert!(!text.trim_end().ends_with(']'));
        let closed: Vec<Value> = serde_json::from_str(&(text + "]")).unwrap();
        assert!(!closed.is_empty());
    }

    #[test]
    fn a_hostile_process_name_is_escaped() {
        let mut connection = samples::connection();
        connection.subject.comm = Some(Comm::from("\u{9b}31m\"\\"));
        let text = written(&[
            Line::Connection(connection),
            Line::Summary(samples::summary()),
        ]);
        let printed = text.replace('\n', "");
        assert!(!printed.contains(char::is_control), "{printed:?}");
        serde_json::from_str::<Value>(&text).unwrap();
    }
}
