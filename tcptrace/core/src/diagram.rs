//! A connection as a sequence diagram: a model that text, Mermaid and pages are drawn from.
//!
//! Four lanes: the process and the kernel of each end. On them stand states, calls and the wait in
//! the accept queue; between the kernels go arrows. Nothing is claimed that was not seen: where no
//! segments were recorded, arrows follow from changes of state and are marked as inferred, and an
//! end that is on another host has no lanes of its own.
//!
//! [`Collector`] finds the lines that belong together, [`Diagram::of`] draws them up.

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

/// Which end of the connection: the caller's is on the left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// The client; of two that call each other, the one with the lower number.
    Left,
    /// The server.
    Right,
}

impl Place {
    pub const BOTH: [Place; 2] = [Place::Left, Place::Right];

    pub fn other(self) -> Place {
        match self {
            Place::Left => Place::Right,
            Place::Right => Place::Left,
        }
    }
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagram {
    pub left: End,
    pub right: End,
    /// In order of time; equal times in the order of the kernel's work.
    pub items: Vec<Item>,
    /// The first moment that belongs to the connection, in CLOCK_MONOTONIC nanoseconds. A call of
    /// accept() may be earlier.
    pub zero_ns: u64,
    /// The last moment, in CLOCK_MONOTONIC nanoseconds.
    pub end_ns: u64,
    /// Segments were recorded, so that no arrow is inferred.
    pub segments: bool,
    /// Lines that are not in it, because there were too many of this connection.
    pub left_out: u64,
}

/// One end of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct End {
    /// Its address, which the other end may have told.
    pub addr: Option<IpAddr>,
    pub port: Option<u16>,
    /// What is known of it last; `None`: it is on another host, or was not traced.
    pub subject: Option<Subject>,
    /// Its `connection` line; `None` too when the recording breaks off before.
    pub connection: Option<Connection>,
}

/// Something at a moment, or from a moment on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub at_ns: u64,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    State(StateSpan),
    Call(Call),
    Wait(Wait),
    Arrow(Arrow),
    Mark(Mark),
}

/// A kernel lane is in a state, from the item's time on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StateSpan {
    pub place: Place,
    pub state: State,
    /// False when it was found in this state, so that it is older than the item's time.
    pub begun: bool,
    /// When it left the state; `None` when that was not seen.
    pub until_ns: Option<u64>,
    /// The line that told it; `None` when only the `connection` line did.
    pub transition: Option<Transition>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CallName {
    Connect,
    Accept,
    /// close(), shutdown(), or the end of the process.
    Close,
    /// The same with a RST: data unread, or SO_LINGER 0.
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
    /// False when its beginning was not seen: the item's time is then that of its return.
    pub begun: bool,
    /// When it returned; for connect(), the moment from which it can return. `None` when that was
    /// not seen.
    pub until_ns: Option<u64>,
    /// The errno's name when it failed.
    pub error: Option<String>,
    /// The line that told it, of an accept() that has one.
    pub accept: Option<Accept>,
}

/// The connection lies in the accept queue, from the item's time on, when it became ESTABLISHED.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wait {
    pub place: Place,
    /// When accept() returned it, or when it ended in the queue.
    pub until_ns: u64,
    /// Whether accept() took it.
    pub taken: bool,
}

/// What an arrow is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Evidence {
    /// The segment itself was seen, or the kernel said that it sends or has received it.
    Seen,
    /// A state was entered for which it must have been sent or received.
    Inferred,
    /// The same, at a time that is an estimate.
    Estimated,
}

/// What goes between the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Syn,
    SynAck,
    /// The handshake's last one, or one whose purpose is not known.
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

/// A segment; at least one of its two times is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Arrow {
    pub from: Place,
    pub kind: Kind,
    pub evidence: Evidence,
    /// When it left, in CLOCK_MONOTONIC nanoseconds; `None` when only its arrival is known.
    pub sent_ns: Option<u64>,
    /// When it came; `None` when only its sending is known. It may have been lost.
    pub received_ns: Option<u64>,
    /// It was sent before.
    pub again: bool,
    /// Flags and numbers, where the segment was recorded.
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
    /// Relative to the initial sequence numbers; `None` where these are not known.
    pub rel_seq: Option<u32>,
    pub rel_ack: Option<u32>,
    /// Bytes of payload.
    pub len: u32,
    /// Not scaled.
    pub win: u16,
}

/// Something at a kernel lane at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mark {
    pub place: Place,
    pub kind: MarkKind,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MarkKind {
    /// A segment met a full queue and was dropped.
    Overflow(Overflow),
    /// A segment was sent again, which an arrow shows too.
    Retransmit { what: Kind, so_far: u32 },
    /// A RST was sent or received, which an arrow shows too.
    Reset(Reset),
    /// The socket is gone; its state goes on in a bucket.
    SocketFreed { bucket: State },
    /// The bucket ended, in a way that no change of state told.
    BucketEnded(BucketEnd),
    /// The trace ends here, and the connection does not.
    TraceEnds { state: State },
}

impl Diagram {
    pub fn end(&self, place: Place) -> &End {
        match place {
            Place::Left => &self.left,
            Place::Right => &self.right,
        }
    }

    /// `conn` of its ends, the left one first.
    pub fn conns(&self) -> impl Iterator<Item = u64> {
        Place::BOTH
            .into_iter()
            .filter_map(|place| self.end(place).subject.as_ref()?.conn)
    }

    /// What the wait in the accept queue is, if there was one.
    pub fn wait(&self) -> Option<(u64, &Wait)> {
        self.items.iter().find_map(|item| match &item.what {
            What::Wait(wait) => Some((item.at_ns, wait)),
            _ => None,
        })
    }
}

impl End {
    /// Events of it were lost, or the trace began later.
    pub fn incomplete(&self) -> bool {
        self.connection.as_ref().is_some_and(|it| !it.complete)
    }
}

impl StateSpan {
    pub fn cause(&self) -> Option<Cause> {
        self.transition.as_ref()?.cause
    }

    /// Whether the time is when a look through the sockets noticed it, and not when it happened.
    pub fn noticed(&self) -> bool {
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
