//! Half-open connections that have no child socket.

use super::handshake::Handshake;
use super::listener::ListenerId;
use super::peers::Peer;
use super::socket::{Owner, Socket};
use super::why::Why;
use crate::event::{Context, Event, State, Tuple};
use crate::fields::{Backlog, HalfOpenEnd, Side, Source, Subject, Transition};

pub struct HalfOpen {
    pub socket: Socket,
    pub listener: Option<ListenerId>,
    pub handshake: Handshake,
    /// Number of event losses noticed when the trace first saw the half-open connection.
    pub losses: u64,
    /// True if the kernel answered an ACK that met a full accept queue with a RST.
    pub aborted: bool,
    /// The client's socket, if it is on this host and ESTABLISHED.
    pub peer: Option<Peer>,
    /// True if the half-open connection has ended but its end was not seen.
    pub is_gone: bool,
    /// The time of the end and, if known, its kind.
    pub end: Option<(u64, Option<HalfOpenEnd>)>,
    /// True if a line has shown the number of this half-open connection.
    pub has_line: bool,
    /// The connection number of the child socket, if it differs from this one's.
    pub child: Option<u64>,
}

impl HalfOpen {
    /// Makes the socket of a half-open connection.
    pub fn socket(conn: u64, netns: u32, tuple: Tuple) -> Socket {
        Socket::with_state(conn, Some(Side::Server), netns, tuple, State::NewSynRecv)
    }

    pub fn new(
        socket: Socket,
        listener: Option<ListenerId>,
        handshake: Handshake,
        losses: u64,
    ) -> HalfOpen {
        HalfOpen {
            socket,
            listener,
            handshake,
            losses,
            aborted: false,
            peer: None,
            is_gone: false,
            end: None,
            has_line: false,
            child: None,
        }
    }

    /// Marks the half-open connection as ended unseen, because another socket uses its kernel
    /// address.
    pub fn gone(self) -> HalfOpen {
        HalfOpen {
            is_gone: true,
            ..self
        }
    }

    pub fn conn(&self) -> u64 {
        self.socket.conn
    }

    /// Returns the network namespace and the tuple.
    pub fn key(&self) -> (u32, Tuple) {
        (self.socket.netns, self.socket.tuple)
    }

    /// Returns the subject of a line. `owner`: the process that will probably accept the
    /// connection.
    pub fn subject(&self, owner: Option<Owner>) -> Subject {
        self.socket.subject(owner)
    }

    /// Returns the line of LISTEN→NEW_SYN_RECV.
    pub fn begins(&self, event: &Event, owner: Option<Owner>, why: Option<Why>) -> Transition {
        self.transition(event, owner, State::Listen, None, why)
    }

    /// Returns the line of NEW_SYN_RECV→CLOSE.
    pub fn closes(
        &mut self,
        event: &Event,
        owner: Option<Owner>,
        end: Option<HalfOpenEnd>,
        why: Option<Why>,
    ) -> Transition {
        let half_open_ns = self.half_open_ns(event.mono_ns);
        self.socket.state = State::Close;
        self.end = Some((event.mono_ns, end));
        self.transition(event, owner, State::NewSynRecv, half_open_ns, why)
    }

    fn transition(
        &self,
        event: &Event,
        owner: Option<Owner>,
        oldstate: State,
        in_state_ns: Option<u64>,
        why: Option<Why>,
    ) -> Transition {
        Transition {
            mono_ns: event.mono_ns,
            subject: self.subject(owner),
            oldstate,
            newstate: self.socket.state,
            in_state_ns,
            context: Some(Context::Softirq),
            cpu: event.cpu,
            synthetic: true,
            source: Source::RequestSock,
            cause: why.map(|why| why.cause),
            function: why.map(|why| why.function.into()),
            rfc9293: why.and_then(|why| why.rfc()).map(Into::into),
            bucket: None,
            error: None,
            listener: self.listener.map(ListenerId::conn),
            backlog: Backlog::default(),
        }
    }

    pub fn half_open_ns(&self, until_ns: u64) -> Option<u64> {
        until_ns.checked_sub(self.handshake.syn?.0)
    }
}
