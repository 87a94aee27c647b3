//! Retransmissions by sockets, and RSTs sent or received.

use crate::correlate::state::Correlator;
use crate::correlate::state::processes::current_owner;
use crate::correlate::state::socket::Socket;
use crate::event::{Direction, Event, Reset, Retransmit, Retransmitted, Sk, State, Tuple};
use crate::fields::{self, Kind, Line, Subject};

/// The kernel's value for "no reason" of a RST: SK_RST_REASON_NOT_SPECIFIED.
const NOT_SPECIFIED: &str = "NOT_SPECIFIED";

impl Correlator {
    /// Handles a retransmission by a socket.
    pub(super) fn retransmit(&mut self, event: &Event, it: &Retransmit, out: &mut Vec<Line>) {
        let subject = self.subject(Some(it.sk), it.netns, &it.tuple, it.cookie, it.state);
        if it.what == Retransmitted::Syn && subject.conn.is_some() {
            self.suspect_syn_again(event.mono_ns, it.sk);
        }
        if self.wants(Kind::Retransmit) {
            out.push(Line::Retransmit(fields::Retransmit {
                mono_ns: event.mono_ns,
                subject,
                state: it.state,
                retransmitted: it.what,
                retransmits: it.retransmits,
            }));
        }
    }

    /// Handles a RST that the kernel sent, or a received RST that ended a socket.
    pub(super) fn reset(&mut self, event: &Event, it: &Reset, out: &mut Vec<Line>) {
        if std::mem::take(&mut self.lookahead) {
            // The lookahead has shown that the socket received data and not a RST.
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
        if !self.wants(Kind::Reset) {
            return;
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

    /// Returns the subject of a socket's connection; without a known connection, a subject with the
    /// tuple alone. For a connection that is older than the trace, this does not begin a record.
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
                // The port that the kernel chose after SYN_SENT may appear here first.
                socket.learn(tuple, cookie);
                let orphaned = connection.socket.was_orphaned;
                let owner = current_owner(&self.listeners, &self.processes, connection, orphaned);
                connection.socket.subject(owner)
            }
            None => {
                let mut socket = Socket::with_state(0, None, netns, *tuple, state);
                socket.learn(tuple, cookie);
                Subject {
                    conn: None,
                    ..socket.subject(None)
                }
            }
        }
    }
}
