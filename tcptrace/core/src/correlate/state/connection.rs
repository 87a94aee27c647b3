//! Connection records. Each takes the events of one socket and becomes a `connection` line.

use serde::{Deserialize, Serialize};

use super::ending::Ending;
use super::handshake::Handshake;
use super::listener::ListenerId;
use super::peers::Peer;
use super::socket::{Owner, Socket, closer};
use super::why::Judged;
use crate::event::{
    self, Called, Context, Event, SetState, Sk, SnapshotEntry, State, Task, Tuple, Witness,
};
use crate::fields::{Cause, ListenerSource, PidSource, Side, Source, Transition};

#[derive(Serialize, Deserialize)]
pub struct Connection {
    pub socket: Socket,
    /// When the trace first saw the connection.
    pub first_seen_ns: u64,
    /// The listener that the socket was cloned from; `None` while unknown.
    pub listener: Option<ListenerId>,
    pub listener_source: Option<ListenerSource>,
    /// The address of that listener, if the kernel side reported it.
    pub clone_of: Option<Sk>,
    /// Number of event losses noticed before the trace first saw the connection.
    pub losses: u64,
    /// True if the connection began before the trace or its birth was lost.
    pub birth_unseen: bool,
    /// True if the snapshot at the start of the trace found it.
    pub is_older: bool,
    /// True if an event of the connection arrived too late.
    pub late: bool,
    pub handshake: Handshake,
    /// The segment that made a server's child socket, if the origin of the child is known.
    pub born_by: Option<Cause>,
    pub established_ns: Option<u64>,
    pub accepted: Option<Accepted>,
    pub closed_ns: Option<u64>,
    pub backlog: Option<Backlog>,
    pub err: Option<u32>,
    /// True if a process had the socket: accept() had returned it, or a process closed it, shut it
    /// down or had a descriptor of it.
    pub held: bool,
    /// True if an error ended the connection while a process had a descriptor of it. That process
    /// may still be in the accept() that returns it.
    pub held_at_end: bool,
    /// True if the socket left SYN_RECV for a state other than ESTABLISHED.
    pub skipped_established: bool,
    /// When a snapshot last found the socket without a descriptor, and therefore in the accept
    /// queue.
    pub seen_queued_ns: Option<u64>,
    /// For a connection that a RST closed in the accept queue: whether the last check found it
    /// still there.
    pub still_queued: Option<bool>,
    pub ending: Ending,
    /// The listener's count of failed accept() calls when the connection entered the accept queue.
    pub failed_before: Option<u64>,
    /// The errors that accept() returned while the connection waited in the accept queue.
    pub failed_meanwhile: Option<String>,
    /// The peer's socket, if it is on this host and known.
    pub peer: Option<Peer>,
    /// The state of the bucket, FIN_WAIT2 or TIME_WAIT, that the kernel keeps after the socket's
    /// CLOSE.
    pub bucket: Option<State>,
    /// True if the connection is older than the trace and the trace has had no event of it.
    pub untouched: bool,
    /// True if the trace gave up the connection while it was open, because too many were open.
    pub evicted: bool,
}

/// The accept queue when the child socket was queued.
#[derive(Serialize, Deserialize)]
pub struct Backlog {
    pub ahead: u32,
    pub max: u32,
}

/// Returns the side of a socket that is born in this transition; `None` for any other transition.
pub fn birth(change: &SetState) -> Option<Side> {
    match (change.oldstate, change.newstate) {
        (State::Close, State::SynSent) => Some(Side::Client),
        (State::Listen, State::SynRecv) => Some(Side::Server),
        _ => None,
    }
}

/// Returns the side of a socket whose birth was not seen, as far as one transition shows it.
pub fn side_of_unknown(change: &SetState) -> Option<Side> {
    if change.oldstate == State::SynSent {
        Some(Side::Client)
    } else if change.backlog_max > 0 {
        // Only listen() sets sk_max_ack_backlog, and only clones of a listener inherit it.
        Some(Side::Server)
    } else {
        None
    }
}

impl Connection {
    /// Makes the record of a socket that is about to make its first transition in this trace. The
    /// socket is either born in that transition or older than the trace.
    ///
    /// `births_hide`: the filter may have left out the birth, and no event was lost.
    pub fn first_seen(
        conn: u64,
        event: &Event,
        change: &SetState,
        losses: u64,
        births_hide: bool,
    ) -> Connection {
        let side = birth(change).or_else(|| side_of_unknown(change));
        let socket = Socket::new(conn, side, change);
        // Before Linux 6.15 the event of LISTEN→SYN_RECV lacks the peer's address. A port or family
        // filter in the kernel therefore leaves it out. The same segment causes ESTABLISHED, and
        // that event has all the facts.
        let as_good_as_born = births_hide
            && side == Some(Side::Server)
            && (change.oldstate, change.newstate) == (State::SynRecv, State::Established);
        let birth_unseen = birth(change).is_none() && !as_good_as_born;
        Connection::new(socket, event.mono_ns, birth_unseen, losses)
    }

    /// Makes the record of a socket that accept() returned and that had no event before.
    pub fn from_accept(
        conn: u64,
        event: &Event,
        accept: &event::Accept,
        child: &Child,
        losses: u64,
    ) -> Connection {
        // The state is unknown only if reading it failed; it is nearly always ESTABLISHED.
        let state = child.state.unwrap_or(State::Established);
        let socket = Socket::with_state(conn, Some(Side::Server), accept.netns, child.tuple, state);
        Connection::new(socket, event.mono_ns, true, losses)
    }

    /// Makes the record of a connection that the snapshot at the start of the trace found.
    pub fn preexisting(
        socket: Socket,
        event: &Event,
        entry: &SnapshotEntry,
        losses: u64,
    ) -> Connection {
        // Only close() and shutdown() lead to these states, so a process had the socket.
        let closed = matches!(
            entry.state,
            State::FinWait1 | State::FinWait2 | State::Closing | State::LastAck
        );
        Connection {
            held: entry.held || closed,
            is_older: true,
            untouched: true,
            ..Connection::new(socket, event.mono_ns, true, losses)
        }
    }

    pub fn new(socket: Socket, first_seen_ns: u64, birth_unseen: bool, losses: u64) -> Connection {
        Connection {
            socket,
            first_seen_ns,
            listener: None,
            listener_source: None,
            clone_of: None,
            losses,
            birth_unseen,
            is_older: false,
            late: false,
            handshake: Handshake::default(),
            born_by: None,
            established_ns: None,
            accepted: None,
            closed_ns: None,
            backlog: None,
            err: None,
            held: false,
            held_at_end: false,
            skipped_established: false,
            seen_queued_ns: None,
            still_queued: None,
            ending: Ending::default(),
            failed_before: None,
            failed_meanwhile: None,
            peer: None,
            bucket: None,
            untouched: false,
            evicted: false,
        }
    }

    /// Returns whether this connection can make this transition, which is not a birth. If it
    /// cannot, the event of another socket's birth at the same kernel address was lost.
    pub fn may_make(&self, change: &SetState) -> bool {
        let closed = self.socket.state == State::Close && change.oldstate != State::Close;
        let again = self.established_ns.is_some() && change.newstate == State::Established;
        !closed && !again && self.socket.may_be(&change.tuple)
    }

    /// Returns whether an accept() that returned `child` can have returned this connection.
    pub fn may_be_accepted_as(&self, child: &Child) -> bool {
        self.accepted.is_none()
            && self.socket.side != Some(Side::Client)
            && self.socket.may_be(&child.tuple)
    }

    /// Applies a change of state that has been judged. Returns the time in the previous state in
    /// nanoseconds, if the entry to that state was seen.
    #[inline(always)]
    pub fn enter(&mut self, event: &Event, change: &SetState, judged: Judged) -> Option<u64> {
        use State::*;
        let backlog = || Backlog {
            ahead: change.backlog_len,
            max: change.backlog_max,
        };
        self.skipped_established |= change.oldstate == SynRecv && change.newstate != Established;
        match (change.oldstate, change.newstate) {
            (Close, SynSent) => {
                let sends_now = !change.repair && !change.fastopen_connect;
                self.handshake.syn = sends_now.then_some((event.mono_ns, Source::Tracepoint));
                self.socket.owner = change.task.map(|task| Owner {
                    task,
                    source: PidSource::Connect,
                    since_ns: event.mono_ns,
                });
            }
            (Listen, SynRecv) => self.backlog = Some(backlog()),
            (_, Established) => {
                self.established_ns = self.established_ns.or(Some(event.mono_ns));
                // MPTCP gives a joining subflow to the process that has the MPTCP connection.
                self.held |= change.held && self.is_server();
                if self.is_server() {
                    self.backlog = Some(backlog());
                }
            }
            // tcp_close_state: only close() and shutdown() lead to these states.
            (_, FinWait1 | LastAck) => self.held = true,
            (_, Close) => {
                self.closed_ns = self.closed_ns.or(Some(event.mono_ns));
                // Without an error, a process can only have closed the socket itself. With an
                // error, the process may still be in the accept() that returns the socket. That
                // accept() has locked the socket.
                let by_process = change.held || change.context == Some(Context::Process);
                self.held |= change.err.is_none() && by_process;
                self.held_at_end = change.held;
            }
            _ => self.held |= change.held,
        }
        if change.oldstate == SynSent {
            self.learn_syn(event, change);
        }
        self.err = change.err;
        self.ending.transition(change, judged.ended);
        self.untouched = false;
        if judged.why.is_none_or(|why| why.cause != Cause::Killed) {
            self.closed_by(closer(event, change), change);
        }
        self.socket.enter(event, change)
    }

    /// Returns the `transition` line of a change that the connection has just made.
    #[inline(always)]
    pub fn transition(
        &self,
        event: &Event,
        change: &SetState,
        in_state_ns: Option<u64>,
        judged: Judged,
        owner: Option<Owner>,
    ) -> Transition {
        let why = judged.why;
        let mut line = (self.socket).transition(event, change, in_state_ns, why, owner);
        line.bucket = self.bucket;
        line.listener = self.proven_listener().map(ListenerId::conn);
        line
    }

    /// Learns from a client's counters when its SYN was sent, as it leaves SYN_SENT.
    pub fn learn_syn(&mut self, event: &Event, change: &SetState) {
        let nothing_sent = change.stats.is_some_and(|stats| stats.segs_out == 0);
        if change.newstate == State::Close && nothing_sent {
            self.handshake.syn = None;
        }
        // With TCP_FASTOPEN_CONNECT the SYN was sent with the first data, one round trip ago,
        // unless the SYN was retransmitted.
        let sent_once = change.stats.is_some_and(|stats| stats.retransmits == 0);
        if change.newstate == State::Established
            && change.fastopen_connect
            && sent_once
            && !self.birth_unseen
        {
            let syn_ns = change
                .srtt_ns
                .and_then(|srtt| event.mono_ns.checked_sub(srtt));
            self.handshake.syn = syn_ns.map(|ns| (ns, Source::Srtt));
        }
    }

    /// Restores the owner's `since_ns`, which a packed connection does not store.
    pub fn unpacked(mut self) -> Connection {
        if let Some(owner) = &mut self.socket.owner {
            owner.since_ns = match (owner.source, self.accepted) {
                (PidSource::Accept, Some(accepted)) => accepted.mono_ns,
                _ => self.first_seen_ns,
            };
        }
        self
    }

    /// Sets the owner to the process that closes the socket or shuts it down. The socket may have
    /// been passed to it by SCM_RIGHTS or fork().
    pub fn closed_by(&mut self, closer: Option<Owner>, change: &SetState) {
        let Some(closer) = closer else {
            return;
        };
        let owner = &mut self.socket.owner;
        *owner = match *owner {
            Some(known) if known.task.pid == closer.task.pid => Some(Owner {
                since_ns: closer.since_ns,
                ..known
            }),
            // A RST closed the socket while another process used it, or a process that never had
            // the socket killed it (`ss -K`).
            Some(known) if change.err.is_some() => Some(known),
            _ => Some(closer),
        };
    }

    /// Notes that accept() returned the connection. The acceptor owns it from now on.
    pub fn accept(
        &mut self,
        event: &Event,
        accept: &event::Accept,
        child: &Child,
        listener: Option<ListenerId>,
    ) {
        // The accept proves that the socket was cloned from a listener.
        self.socket.side = Some(Side::Server);
        self.socket.learn(&child.tuple, child.cookie);
        self.socket.owner = Some(Owner {
            task: accept.task,
            source: PidSource::Accept,
            since_ns: event.mono_ns,
        });
        if listener.is_some() {
            self.listener = listener;
            self.listener_source = Some(ListenerSource::Accept);
        }
        self.untouched = false;
        self.accepted = Some(Accepted {
            mono_ns: event.mono_ns,
            called: accept.called,
            witness: accept.witness,
            follows_child_lock: accept.witness.follows_child_lock() && !child.wrapped,
            state: child.state,
            fastopen: child.fastopen,
            task: accept.task,
        });
    }

    /// Returns the listener whose process will probably accept the connection. `None` if the
    /// connection is accepted already, or if its birth was not seen.
    pub fn waits_at(&self) -> Option<ListenerId> {
        let waits = self.accepted.is_none() && !self.birth_unseen;
        self.listener.filter(|_| waits)
    }

    /// Sets the listener that the socket was cloned from, and the evidence for it.
    pub fn cloned_from(&mut self, listener: ListenerId, source: ListenerSource) {
        self.listener = Some(listener);
        self.listener_source = Some(source);
    }

    pub fn is_server(&self) -> bool {
        self.socket.side == Some(Side::Server)
    }

    /// Returns the listener unless it is only guessed by its address.
    pub fn proven_listener(&self) -> Option<ListenerId> {
        let is_guess = self.listener_source == Some(ListenerSource::Address);
        self.listener.filter(|_| !is_guess)
    }

    /// Returns whether the kernel dropped the connection from the accept queue when its listener
    /// closed. That drop sets no error, and no process had the socket.
    pub fn is_dropped(&self) -> bool {
        self.socket.state == State::Close && self.err.is_none() && !self.held && !self.is_accepted()
    }

    /// Returns whether a process has had the socket.
    pub fn was_held(&self) -> bool {
        self.held || self.is_accepted()
    }

    pub fn is_accepted(&self) -> bool {
        self.accepted.is_some()
    }

    /// Returns whether the connection may be in the accept queue, as far as is known.
    pub fn may_be_queued(&self) -> bool {
        self.is_server() && !self.held && !self.held_at_end && !self.is_accepted()
    }

    /// Returns whether an accept() that has not returned yet has taken the connection. An error
    /// closed the socket while a process already had a descriptor of it.
    pub fn is_being_accepted(&self) -> bool {
        self.held_at_end && !self.is_accepted()
    }

    /// Notes that a snapshot found the socket, and whether a process has a descriptor of it.
    pub fn seen(&mut self, mono_ns: u64, held: bool) {
        self.held |= held;
        self.seen_queued_ns = (!held).then_some(mono_ns);
    }

    /// Returns whether the snapshot that began at this time found the connection in the accept
    /// queue.
    pub fn was_queued_at(&self, snapshot_ns: u64) -> bool {
        self.may_be_queued() && self.seen_queued_ns.is_some_and(|ns| snapshot_ns <= ns)
    }

    /// Returns whether the socket is CLOSE but may still be in the accept queue. A connection that
    /// receives a RST in the queue stays there, and accept() returns it later.
    pub fn may_be_queued_closed(&self) -> bool {
        let was_queued = self.established_ns.is_some() || self.birth_unseen || self.err.is_some();
        self.socket.state == State::Close
            && self.is_server()
            && self.accepted.is_none()
            && !self.held
            && was_queued
    }

    /// Ends the record because another socket uses the same kernel address now. Unless the old
    /// socket was CLOSE, its end was not seen. A child socket in SYN_RECV may end like this: if one
    /// ACK made two child sockets on two CPUs, the kernel drops one without an event.
    pub fn vanish(&mut self) {
        if !matches!(self.socket.state, State::Close | State::SynRecv) {
            self.socket.missed = true;
        }
    }

    /// Returns the time of the last event that the connection's present state depends on.
    pub fn latest_ns(&self) -> u64 {
        let accepted_ns = self.accepted.map_or(0, |it| it.mono_ns);
        let since_ns = self.socket.since(self.socket.state).unwrap_or(0);
        self.first_seen_ns.max(since_ns).max(accepted_ns)
    }

    /// Returns when the kernel finished the handshake, CLOCK_MONOTONIC in nanoseconds.
    pub fn established_ns(&self) -> Option<u64> {
        self.established_ns
    }

    /// Returns the time from ESTABLISHED to the return of accept(), in nanoseconds; 0 if accept()
    /// returned first.
    pub fn accept_queue_ns(&self) -> Option<u64> {
        let accepted = self.accepted?;
        Some(accepted.mono_ns.saturating_sub(self.established_ns?))
    }

    /// Returns whether the record counts as a connection: the handshake finished, or accept()
    /// returned the socket. With Fast Open, accept() may return it before the handshake finishes.
    pub fn is_connection(&self) -> bool {
        self.established_ns.is_some() || self.accepted.is_some()
    }
}

/// The socket that an accept() returned.
pub struct Child {
    pub sk: Sk,
    pub cookie: Option<u64>,
    pub tuple: Tuple,
    pub state: Option<State>,
    pub fastopen: bool,
    pub wrapped: bool,
}

/// Returns when accept() was called, if that was seen.
pub fn called_ns(called: Called) -> Option<u64> {
    match called {
        Called::At(ns) => Some(ns),
        Called::BeforeTrace | Called::Unknown => None,
    }
}

/// The accept() that returned the connection.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Accepted {
    /// When accept() returned, CLOCK_MONOTONIC in nanoseconds.
    pub mono_ns: u64,
    pub called: Called,
    pub witness: Witness,
    /// True if the accept() has waited for the softirq that makes the child socket ESTABLISHED.
    pub follows_child_lock: bool,
    /// The connection's state when accept() returned.
    pub state: Option<State>,
    /// True if the final ACK had not arrived by then.
    pub fastopen: bool,
    pub task: Task,
}
