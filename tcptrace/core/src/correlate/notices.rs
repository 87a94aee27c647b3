//! What the kernel says of a connection besides its changes of state: retransmits and resets.

use std::collections::VecDeque;

use super::Correlator;
use super::connection::birth;
use super::owners::whose;
use super::socket::Socket;
use crate::event::{Direction, Event, Kind, Reset, Retransmit, Retransmitted, Sk, State, Tuple};
use crate::fields::{self, Cause, Line, Subject, Transition};

/// The kernel gives no reason: SK_RST_REASON_NOT_SPECIFIED.
const NOT_SPECIFIED: &str = "NOT_SPECIFIED";

/// How soon the kernel sends the RST that a socket's end leads to, in nanoseconds: in the same run
/// of the softirq, or before the process goes on.
const RST_FOLLOWS_NS: u64 = 1_000_000;

/// Upper bound on the connections that a RST is waited for.
const RESETTING: usize = 32;

/// Connections that have ended in a way that a RST follows, which the kernel sends from the socket
/// when that is CLOSE.
#[derive(Default)]
pub(super) struct Resetting {
    ended: VecDeque<(Sk, Subject)>,
}

impl Resetting {
    /// A connection has made its last change of state.
    pub fn add(&mut self, sk: Sk, last: &Transition) {
        let sends_rst = matches!(
            last.cause,
            None | Some(Cause::Abort | Cause::Disconnect | Cause::DataReceived | Cause::AckOfFin)
        );
        // Once the socket has left a bucket behind, what comes is the bucket's.
        if !sends_rst || last.bucket.is_some() || last.oldstate == State::LastAck {
            return;
        }
        if self.ended.len() == RESETTING {
            self.ended.pop_front();
        }
        self.ended.push_back((sk, last.subject.clone()));
    }

    /// The pointer has another life.
    pub fn forget(&mut self, sk: Sk) {
        if !self.ended.is_empty() {
            self.ended.retain(|(other, _)| *other != sk);
        }
    }

    /// The connection that a RST of this socket belongs to.
    fn take(&mut self, sk: Sk) -> Option<Subject> {
        let at = self.ended.iter().position(|(other, _)| *other == sk)?;
        Some(self.ended.remove(at)?.1)
    }
}

/// The socket, where this may be data that came after its process had closed it: the kernel ends
/// that as if a RST had come (`tcp_reset`), and answers with one.
pub(super) fn may_be_late_data(kind: &Kind) -> Option<Sk> {
    use State::{Close, Closing, FinWait1, FinWait2, LastAck};
    let closed = |state| matches!(state, FinWait1 | FinWait2 | Closing | LastAck);
    match kind {
        Kind::SetState(it) if it.newstate == Close && closed(it.oldstate) => Some(it.sk),
        Kind::Reset(it) if it.direction == Direction::Received => {
            it.sk.filter(|_| it.state.is_some_and(closed))
        }
        _ => None,
    }
}

/// Whether the kernel sends a RST from this socket right after `mono_ns`. A RST is never answered.
pub(super) fn is_answered_by_rst(mono_ns: u64, sk: Sk, later: &[Event]) -> bool {
    later
        .iter()
        .take_while(|it| it.mono_ns.saturating_sub(mono_ns) <= RST_FOLLOWS_NS)
        .find_map(|it| match &it.kind {
            Kind::Reset(it) if it.sk == Some(sk) => Some(it.direction == Direction::Sent),
            Kind::SetState(it) if it.sk == sk && birth(it).is_some() => Some(false),
            _ => None,
        })
        .unwrap_or(false)
}

impl Correlator {
    /// A socket sent a segment again.
    pub(super) fn retransmit(&mut self, event: &Event, it: &Retransmit, out: &mut Vec<Line>) {
        let subject = self.subject(Some(it.sk), it.netns, &it.tuple, it.cookie, it.state);
        if it.what == Retransmitted::Syn && subject.conn.is_some() {
            self.suspect_syn_again(event.mono_ns, it.sk);
        }
        out.push(Line::Retransmit(fields::Retransmit {
            mono_ns: event.mono_ns,
            subject,
            state: it.state,
            retransmitted: it.what,
            retransmits: it.retransmits,
        }));
    }

    /// A RST was sent, or ends a socket.
    pub(super) fn reset(&mut self, event: &Event, it: &Reset, out: &mut Vec<Line>) {
        if std::mem::take(&mut self.foreseen) {
            // It was data.
            return;
        }
        let state = it.state.unwrap_or(State::Close);
        let mut subject = self.subject(it.sk, it.netns, &it.tuple, it.cookie, state);
        if it.direction == Direction::Sent
            && subject.conn.is_none()
            && let Some(ended) = it.sk.and_then(|sk| self.resetting.take(sk))
        {
            subject = ended;
        }
        if it.direction == Direction::Sent
            && subject.conn.is_some()
            && let Some(connection) = it.sk.and_then(|sk| self.open.get_mut(sk))
        {
            connection.ending.reset_sent = true;
        }
        let reason = it.reason.and_then(|reason| self.reset_reasons.get(&reason));
        out.push(Line::Reset(fields::Reset {
            mono_ns: event.mono_ns,
            subject,
            state: it.state,
            direction: it.direction,
            rst_reason: reason.filter(|name| *name != NOT_SPECIFIED).cloned(),
        }));
    }

    /// The connection that is meant, or the ends alone: one that began before the trace is not
    /// made known by this.
    fn subject(
        &mut self,
        sk: Option<Sk>,
        netns: u32,
        tuple: &Tuple,
        cookie: Option<u64>,
        state: State,
    ) -> Subject {
        let known = sk.and_then(|sk| self.open.get_mut(sk));
        match known.filter(|connection| connection.socket.may_be(tuple)) {
            Some(connection) => {
                connection.untouched = false;
                let socket = &mut connection.socket;
                // A client's own port, chosen after SYN_SENT, may be in here first.
                socket.learn(tuple, cookie);
                let orphaned = connection.socket.was_orphaned;
                let owner = whose(&self.listeners, &self.processes, connection, orphaned);
                connection.socket.subject(owner)
            }
            None => {
                let mut socket = Socket::found(0, None, netns, *tuple, state);
                socket.learn(tuple, cookie);
                Subject {
                    conn: None,
                    ..socket.subject(None)
                }
            }
        }
    }
}
