//! Returns of accept(): its listener, the connection that it returned, and the line.

use super::append;
use crate::correlate::judge::verdict::Judgement;
use crate::correlate::state::Correlator;
use crate::correlate::state::connection::{Child, Connection, called_ns};
use crate::correlate::state::listener::ListenerId;
use crate::correlate::state::socket::{Owner, Socket};
use crate::errno;
use crate::event::{self, Event, Outcome, SetState, State, Tuple};
use crate::fields::{self, Depth, Kind, Line, PidSource, Side, Subject};

/// The error of accept() on a socket that does not listen.
const EINVAL: u32 = 22;

impl Correlator {
    /// Handles the return of an accept().
    pub(super) fn accept(
        &mut self,
        event: &Event,
        accept: &event::Accept,
        losses_before: u64,
        out: &mut Vec<Line>,
    ) {
        let listener = self.listener_of_accept(event, accept, out);
        if let Some(id) = listener {
            let (held, limit) = (accept.backlog_len, accept.backlog_max);
            self.listeners.queue_holds(id, event.mono_ns, held, limit);
        }
        self.learn_acceptor(accept, listener);
        match accept.outcome {
            Outcome::Failed(errno) => self.accept_failed(event, accept, listener, errno, out),
            Outcome::Accepted {
                sk,
                cookie,
                tuple,
                state,
                fastopen,
                wrapped,
            } => {
                let child = Child {
                    sk,
                    cookie,
                    tuple,
                    state,
                    fastopen,
                    wrapped,
                };
                self.accepted(event, accept, listener, &child, losses_before, out);
            }
        }
    }

    fn accepted(
        &mut self,
        event: &Event,
        accept: &event::Accept,
        listener: Option<ListenerId>,
        child: &Child,
        losses_before: u64,
        out: &mut Vec<Line>,
    ) {
        let known = self.take(child.sk, |c| c.may_be_accepted_as(child));
        let mut connection = known.unwrap_or_else(|| {
            self.free_address(child.sk, event.mono_ns, out);
            let conn = self.next_conn();
            let connection = Connection::from_accept(conn, event, accept, child, losses_before);
            self.open.boxed(connection)
        });
        if listener.is_none() {
            self.attribute(&mut connection);
        }
        connection.late |= self.is_late;
        connection.accept(event, accept, child, listener);
        self.segments
            .bind(event.mono_ns, child.sk, &connection.socket);
        if let Some(id) = connection.listener {
            self.listeners.limited(id, accept.backlog_max);
            // This may be the first known owner of a listener whose process has exited, or of one
            // that is older than the trace.
            if let Some(listener) = self.listeners.get_mut(id) {
                let owner = &mut listener.socket.owner;
                let known = owner.and_then(|owner| self.processes.living(owner));
                *owner = known.or(connection.socket.owner);
                self.processes.listens(*owner);
            }
        }

        self.name_failures(&mut connection);
        let late = self.explain_accepted(&connection, accept);
        // At the other depths the `connection` line has the facts of a successful call.
        let is_shown = self.depth == Depth::Events || self.select.chooses();
        if is_shown && self.wants(Kind::Accept) {
            let judgement = connection.judge_at_accept(&self.end_at(event.mono_ns, false));
            append(out, || {
                Line::Accept(fields::Accept {
                    late,
                    ..accept_of(event, accept, &connection, judgement)
                })
            });
        }
        if connection.socket.state == State::Close {
            self.end(connection, event.mono_ns, out);
        } else {
            self.keep(event.mono_ns, child.sk, connection, out);
        }
    }

    fn accept_failed(
        &mut self,
        event: &Event,
        accept: &event::Accept,
        listener: Option<ListenerId>,
        errno: u32,
        out: &mut Vec<Line>,
    ) {
        if let Some(listener) = listener.and_then(|id| self.listeners.get_mut(id)) {
            listener.queue.failures.note(event.mono_ns, errno);
        }
        let own = listener_tuple(accept);
        let caller = Owner {
            task: accept.task,
            source: PidSource::Accept,
            since_ns: event.mono_ns,
        };
        let socket = Socket::with_state(0, Some(Side::Listener), accept.netns, own, State::Listen);
        let subject = Subject {
            conn: None,
            ..socket.subject(Some(caller))
        };
        let line = accept_line(event, accept, subject, listener.map(ListenerId::conn));
        let line = Line::Accept(fields::Accept {
            accept_error: Some(errno::name(errno)),
            ..line
        });
        if self.select.wants(&line) {
            let stats = self.listeners.stats(listener, accept.netns, &own);
            stats.failed_accepts += 1;
        }
        if self.wants(Kind::Accept) {
            out.push(line);
        }
    }

    /// Returns the listener of an accept(). A listener that no event has shown is older than the
    /// trace.
    fn listener_of_accept(
        &mut self,
        event: &Event,
        accept: &event::Accept,
        out: &mut Vec<Line>,
    ) -> Option<ListenerId> {
        let sk = accept.listener?;
        let own = listener_tuple(accept);
        let known = self.listeners.at_sk(sk).filter(|&id| {
            self.listeners
                .get(id)
                .is_some_and(|it| it.socket.may_be(&own))
        });
        if let Some(id) = known {
            self.listeners.learn(id, &own);
            return Some(id);
        }
        if matches!(accept.outcome, Outcome::Failed(EINVAL)) {
            return None;
        }
        self.free_address(sk, event.mono_ns, out);
        let socket = Socket::with_state(
            self.next_conn(),
            Some(Side::Listener),
            accept.netns,
            own,
            State::Listen,
        );
        Some(self.listeners.open(sk, socket, None))
    }

    /// Remembers the listener's count of failed accept() calls when a connection enters its accept
    /// queue.
    pub(super) fn note_failures(&self, connection: &mut Connection, change: &SetState) {
        if change.newstate == State::Established
            && let Some(id) = connection.listener
        {
            let listener = self.listeners.get(id);
            connection.failed_before = listener.map(|it| it.queue.failures.count);
        }
    }

    /// Stores the errors that accept() returned while a connection waited in the accept queue.
    pub(super) fn name_failures(&self, connection: &mut Connection) {
        if let (Some(id), Some(before), Some(since_ns)) = (
            connection.listener,
            connection.failed_before.take(),
            connection.established_ns(),
        ) {
            let listener = self.listeners.get(id);
            let meanwhile = listener.map(|it| it.queue.failures.since(before, since_ns));
            connection.failed_meanwhile = meanwhile.unwrap_or_default();
        }
    }
}

/// Returns the listener's local address and port.
fn listener_tuple(accept: &event::Accept) -> Tuple {
    Tuple {
        laddr: accept.listener_addr,
        lport: accept.listener_port,
        raddr: None,
        rport: None,
    }
}

/// Makes the `accept` line of a call that returned a connection.
#[inline(always)]
fn accept_of(
    event: &Event,
    accept: &event::Accept,
    connection: &Connection,
    judgement: Option<Judgement>,
) -> fields::Accept {
    let (verdict, reason) = judgement.map(|it| (it.verdict, it.reason)).unzip();
    let peer = connection.peer;
    let subject = connection.socket.subject(connection.socket.owner);
    let listener = connection.listener.map(ListenerId::conn);
    fields::Accept {
        established_mono_ns: connection.established_ns(),
        peer_conn: peer.map(|peer| peer.conn),
        peer_syn_mono_ns: peer.and_then(|peer| peer.syn_ns),
        peer_established_mono_ns: peer.map(|peer| peer.established_ns),
        accept_queue_ns: connection.accept_queue_ns(),
        verdict,
        reason: reason.flatten(),
        ..accept_line(event, accept, subject, listener)
    }
}

/// Makes the part that the lines of all accept() calls share.
#[inline(always)]
fn accept_line(
    event: &Event,
    accept: &event::Accept,
    subject: Subject,
    listener: Option<u64>,
) -> fields::Accept {
    let called_mono_ns = called_ns(accept.called);
    fields::Accept {
        mono_ns: event.mono_ns,
        subject,
        listener,
        established_mono_ns: None,
        peer_conn: None,
        peer_syn_mono_ns: None,
        peer_established_mono_ns: None,
        called_mono_ns,
        blocked_ns: called_mono_ns.and_then(|called| event.mono_ns.checked_sub(called)),
        accept_queue_ns: None,
        backlog_len: accept.backlog_len,
        backlog_max: accept.backlog_max,
        witness: accept.witness,
        accept_error: None,
        verdict: None,
        reason: None,
        late: None,
    }
}
