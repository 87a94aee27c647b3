//! The parts of a connection as the spans of a distributed trace.
//!
//! All times are those of the lines. A part whose begin or end was not observed has no span.

use smallvec::SmallVec;

use crate::event::State;
use crate::fields::{Connection, Ended, Verdict};

/// A part of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// From the SYN to ESTABLISHED, or to the end of a connection that never became ESTABLISHED.
    Handshake,
    /// From ESTABLISHED to the return of accept(), or to the end of a connection that accept() never
    /// returned.
    AcceptQueueWait,
    /// The time in the state ESTABLISHED.
    Established,
    /// From the end of ESTABLISHED to CLOSE.
    Close,
}

impl Part {
    /// Returns the name of the span.
    pub fn name(self) -> &'static str {
        match self {
            Part::Handshake => "handshake",
            Part::AcceptQueueWait => "accept_queue_wait",
            Part::Established => "established",
            Part::Close => "close",
        }
    }
}

/// A part with its begin and its end, in CLOCK_MONOTONIC nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub part: Part,
    pub start_ns: u64,
    pub end_ns: u64,
}

impl Span {
    fn ns(&self) -> u64 {
        self.end_ns - self.start_ns
    }
}

/// The spans of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spans {
    /// The first observed time, in CLOCK_MONOTONIC nanoseconds.
    pub start_ns: u64,
    /// The end of the connection, or of the trace if the connection was still open.
    pub end_ns: u64,
    /// Whether the connection was still open.
    pub is_open: bool,
    /// Whether the connection went wrong, see [`went_wrong`].
    pub is_failure: bool,
    pub parts: SmallVec<[Span; 4]>,
}

/// Returns the spans of a connection that went wrong, or whose handshake or wait in the accept queue
/// took longer than `slow_ns`. Returns `None` for other connections, and if no time before the end
/// was observed. `left_ns` is the time at which the connection left ESTABLISHED, if that was seen.
pub fn spans(line: &Connection, left_ns: Option<u64>, slow_ns: u64) -> Option<Spans> {
    let is_open = !has_ended(line);
    let end_ns = line.closed_mono_ns.unwrap_or(line.mono_ns);
    let (syn, established) = (line.syn_mono_ns, line.established_mono_ns);
    let known = [syn, established, line.accepted_mono_ns];
    let start_ns = known.into_iter().flatten().min()?;
    let mut parts = SmallVec::new();
    let mut add = |part, start_ns: Option<u64>, end_ns: Option<u64>| {
        if let (Some(start_ns), Some(end_ns)) = (start_ns, end_ns)
            && start_ns < end_ns
        {
            parts.push(Span {
                part,
                start_ns,
                end_ns,
            });
        }
    };
    let at_end = Some(end_ns).filter(|_| !is_open);
    add(Part::Handshake, syn, established.or(at_end));
    if line.subject.is_server() {
        let is_queued = line.verdict == Some(Verdict::NeverAccepted);
        let queue_end = line.accepted_mono_ns.or(Some(end_ns).filter(|_| is_queued));
        add(Part::AcceptQueueWait, established, queue_end);
    }
    add(Part::Established, established, left_ns);
    add(Part::Close, left_ns, line.closed_mono_ns);
    let is_failure = went_wrong(line);
    let is_slow = parts.iter().any(|it: &Span| {
        matches!(it.part, Part::Handshake | Part::AcceptQueueWait) && it.ns() > slow_ns
    });
    (is_failure || is_slow).then_some(Spans {
        start_ns,
        end_ns: end_ns.max(start_ns),
        is_open,
        is_failure,
        parts,
    })
}

/// Returns whether a connection ended, but not in good order, with an error, or without an accept()
/// that returned it. A connection that is still open has not gone wrong, and the evidence may be too
/// thin to know.
pub fn went_wrong(line: &Connection) -> bool {
    let is_wrong = matches!(
        line.verdict,
        Some(Verdict::NeverAccepted | Verdict::Unfinished | Verdict::Violated)
    );
    let is_disorderly = line.ending.ended.is_some_and(|it| it != Ended::Orderly);
    has_ended(line) && (is_wrong || is_disorderly || line.error.is_some())
}

/// Returns whether the end of the connection was seen.
fn has_ended(line: &Connection) -> bool {
    line.closed_mono_ns.is_some() || line.state == State::Close || line.half_open_end.is_some()
}
