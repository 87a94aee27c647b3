//! Sequence diagrams: a model of one connection, from which text, Mermaid and pages are drawn.
//!
//! A diagram has four lanes: the process and the kernel of each end. The lanes show states, calls
//! and the wait in the accept queue; arrows go between the kernels. A diagram shows nothing that
//! was not seen. If no segments were recorded, arrows follow from changes of state and are marked
//! as inferred. An end on another host has no lanes.
//!
//! [`Collector`] finds the lines that belong together, and [`Diagram::of`] makes a diagram of them.

mod build;
mod collect;
pub mod mermaid;
mod rows;
pub mod text;
pub mod words;

use std::net::IpAddr;

use serde::Serialize;

use crate::event::{OverflowSegment, State, TcpFlags};
use crate::fields::{
    Accept, BucketEnd, Cause, Connection, Overflow, Reset, Segment, Source, Subject, Transition,
};

pub use collect::{Collector, Group, Keep};

/// An end of the connection. The caller is on the left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// The client. If both ends called connect(), the one with the lower `conn`.
    Left,
    /// The server.
    Right,
}

impl Place {
    pub const BOTH: [Place; 2] = [Place::Left, Place::Right];

    /// Returns the other end of the connection.
    pub fn other(self) -> Place {
        match self {
            Place::Left => Place::Right,
            Place::Right => Place::Left,
        }
    }
}

/// The diagram of one connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagram {
    pub left: Endpoint,
    pub right: Endpoint,
    /// Sorted by time. Items with equal times are in the order of the kernel's work.
    pub items: Vec<Item>,
    /// The first moment of the connection, in CLOCK_MONOTONIC nanoseconds. A call of accept() may
    /// be earlier.
    pub zero_ns: u64,
    /// The last moment, in CLOCK_MONOTONIC nanoseconds.
    pub end_ns: u64,
    /// True if segments were recorded. Then no arrow is inferred.
    pub segments: bool,
    /// Number of lines left out because the connection had too many.
    pub left_out: u64,
}

/// One end of the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// The address, possibly learnt from the other end.
    pub addr: Option<IpAddr>,
    pub port: Option<u16>,
    /// The latest subject of the end's lines; `None` if the end is on another host or was not
    /// traced.
    pub subject: Option<Subject>,
    /// The `connection` line; also `None` if the recording stops earlier.
    pub connection: Option<Connection>,
}

/// A moment of the diagram, or a span that begins at a moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// CLOCK_MONOTONIC in nanoseconds.
    pub at_ns: u64,
    pub what: ItemKind,
}

/// The kind of an item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemKind {
    State(StateSpan),
    Call(Call),
    Wait(Wait),
    Arrow(Arrow),
    Mark(Mark),
}

/// A kernel lane is in a state from the item's time on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StateSpan {
    pub place: Place,
    pub state: State,
    /// False if the socket was found in this state. Then the state began before the item's time.
    pub begun: bool,
    /// When the socket left the state; `None` when that was not seen.
    pub until_ns: Option<u64>,
    /// The `transition` line; `None` if only the `connection` line shows the state.
    pub transition: Option<Transition>,
}

/// A system call in a diagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CallName {
    Connect,
    Accept,
    /// close(), shutdown(), or the end of the process.
    Close,
    /// A close that sends a RST: with unread data, or with SO_LINGER 0.
    Abort,
}

impl CallName {
    pub fn name(self) -> &'static str {
        match self {
            CallName::Connect => "connect()",
            CallName::Accept => "accept()",
            CallName::Close => "close()",
            CallName::Abort => "abort",
        }
    }
}

/// A process lane is in a system call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Call {
    pub place: Place,
    pub name: CallName,
    /// False if the call was not seen. The item's time is then that of the return.
    pub begun: bool,
    /// When the call returned; for connect(), the moment from which it can return. `None` when not
    /// seen.
    pub until_ns: Option<u64>,
    /// The errno name of a failure.
    pub error: Option<String>,
    /// The `accept` line of an accept().
    pub accept: Option<Accept>,
}

/// The connection is in the accept queue. It entered the queue at the item's time, when it became
/// ESTABLISHED.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wait {
    pub place: Place,
    /// When accept() returned the connection, or when the connection ended in the queue.
    pub until_ns: u64,
    /// True if accept() returned the connection.
    pub taken: bool,
}

/// The evidence for an arrow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Evidence {
    /// The segment itself was seen, or the kernel reported that it sent or received it.
    Seen,
    /// A state was entered that requires the segment.
    Inferred,
    /// Like `Inferred`, with an estimated time.
    Estimated,
}

/// The kind of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Syn,
    SynAck,
    /// The handshake's last ACK, or an ACK whose purpose is not known.
    Ack,
    Fin,
    AckOfFin,
    Rst,
    Data,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Syn => "SYN",
            Kind::SynAck => "SYN-ACK",
            Kind::Ack => "ACK",
            Kind::Fin => "FIN",
            Kind::AckOfFin => "ACK of FIN",
            Kind::Rst => "RST",
            Kind::Data => "data",
        }
    }
}

/// A segment. At least one of its two times is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Arrow {
    pub from: Place,
    pub kind: Kind,
    pub evidence: Evidence,
    /// When the segment was sent, in CLOCK_MONOTONIC nanoseconds; `None` if only its arrival is
    /// known.
    pub sent_ns: Option<u64>,
    /// When the segment was received; `None` if only its sending is known. It may have been lost.
    pub received_ns: Option<u64>,
    /// True for a retransmission.
    pub again: bool,
    /// Flags and numbers, if the segment was recorded.
    pub header: Option<Header>,
    /// The kernel's reason to send a RST.
    pub reason: Option<String>,
}

/// Parts of a TCP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Header {
    pub flags: TcpFlags,
    pub seq: u32,
    pub ack: Option<u32>,
    /// Relative to the initial sequence number; `None` if that is not known.
    pub rel_seq: Option<u32>,
    pub rel_ack: Option<u32>,
    /// Bytes of payload.
    pub len: u32,
    /// The window field, not scaled.
    pub win: u16,
}

/// A mark on a kernel lane at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mark {
    pub place: Place,
    pub kind: MarkKind,
}

/// The kind of a mark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MarkKind {
    /// A segment met a full queue and was dropped.
    Overflow(Overflow),
    /// A segment was retransmitted. An arrow shows it too.
    Retransmit { what: Kind, so_far: u32 },
    /// A RST was sent or received. An arrow shows it too.
    Reset(Reset),
    /// The socket is freed. The kernel keeps the connection in a bucket.
    SocketFreed { bucket: State },
    /// The TIME_WAIT bucket ended, and no `transition` line shows it.
    BucketEnded(BucketEnd),
    /// The trace ended before the connection.
    TraceEnds { state: State },
}

impl Diagram {
    /// Returns the end at a place.
    pub fn endpoint(&self, place: Place) -> &Endpoint {
        match place {
            Place::Left => &self.left,
            Place::Right => &self.right,
        }
    }

    /// Returns the `conn` of the ends, the left one first.
    pub fn conns(&self) -> impl Iterator<Item = u64> {
        Place::BOTH
            .into_iter()
            .filter_map(|place| self.endpoint(place).subject.as_ref()?.conn)
    }

    /// Returns the wait in the accept queue and its beginning in nanoseconds, if there was one.
    pub fn wait(&self) -> Option<(u64, &Wait)> {
        self.items.iter().find_map(|item| match &item.what {
            ItemKind::Wait(wait) => Some((item.at_ns, wait)),
            _ => None,
        })
    }
}

impl Endpoint {
    /// Returns whether events of this end were lost or the trace began after the connection.
    pub fn incomplete(&self) -> bool {
        self.connection.as_ref().is_some_and(|it| !it.complete)
    }
}

impl StateSpan {
    /// Returns the cause of the transition into the state.
    pub fn cause(&self) -> Option<Cause> {
        self.transition.as_ref()?.cause
    }

    /// Returns whether the time is that of a socket snapshot and not of the change itself.
    pub fn is_from_snapshot(&self) -> bool {
        let source = self.transition.as_ref().map(|it| it.source);
        source == Some(Source::SocketIterator)
    }
}

impl Header {
    fn of(x: &Segment) -> Header {
        Header {
            flags: x.flags,
            seq: x.seq,
            ack: x.ack,
            rel_seq: x.rel_seq,
            rel_ack: x.rel_ack,
            len: x.len,
            win: x.win,
        }
    }
}

impl From<OverflowSegment> for Kind {
    fn from(segment: OverflowSegment) -> Kind {
        match segment {
            OverflowSegment::Syn => Kind::Syn,
            OverflowSegment::Ack => Kind::Ack,
        }
    }
}
