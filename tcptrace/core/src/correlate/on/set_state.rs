//! Changes of state of connections.

use super::append;
use crate::correlate::judge::connection as judge;
use crate::correlate::state::Correlator;
use crate::correlate::state::connection::{Connection, birth};
use crate::correlate::state::processes::current_owner;
use crate::correlate::state::resetting::Resetting;
use crate::correlate::state::socket::closer;
use crate::correlate::state::table::Kept;
use crate::event::{Event, SetState, Sk, State};
use crate::fields::{Cause, Kind, Line, ListenerSource, Side, Source};

impl Correlator {
    /// Handles a transition of a socket that is not a listener.
    pub(super) fn transition(
        &mut self,
        event: &Event,
        change: &SetState,
        losses_before: u64,
        out: &mut Vec<Line>,
    ) {
        let is_birth = birth(change).is_some();
        let is_by_syn = is_birth && self.lookahead;
        let reset_follows = std::mem::take(&mut self.lookahead) && !is_birth;
        if birth(change).is_some() {
            self.resetting.forget(change.sk);
        }
        let known = self.take(change.sk, |c| birth(change).is_none() && c.may_make(change));
        let mut connection = known.unwrap_or_else(|| {
            self.free_address(change.sk, event.mono_ns, out);
            // If a loss is first noticed at an event after the birth, the lost event may have been
            // the birth.
            let losses = match birth(change) {
                Some(_) => self.losses,
                None => losses_before,
            };
            let origin = self.origin(event, change);
            let conn = origin.as_ref().and_then(|origin| origin.conn);
            let upcoming = || self.segments.take_upcoming(change.netns, &change.tuple);
            let conn = conn.or_else(upcoming);
            let conn = conn.unwrap_or_else(|| self.next_conn());
            let births_hide = self.births_hide && self.losses == 0;
            let first_seen = Connection::first_seen(conn, event, change, losses, births_hide);
            let mut connection = self.open.boxed(first_seen);
            connection.clone_of = change.clone_of;
            self.attribute(&mut connection);
            if let Some(origin) = origin {
                self.inherit(&mut connection, origin);
            } else if is_by_syn && birth(change) == Some(Side::Server) {
                connection.born_by = Some(Cause::SynReceived);
                connection.handshake.syn = Some((event.mono_ns, Source::Tracepoint));
            }
            if let (Some(id), State::Listen | State::SynRecv) =
                (connection.listener, change.oldstate)
            {
                let (ahead, limit) = (change.backlog_len, change.backlog_max);
                self.listeners
                    .queues(id, event.mono_ns, &change.tuple, ahead, limit);
            }
            if let Some(id) = connection.waits_at() {
                self.check_presumed_owner(id, event.mono_ns);
            }
            connection
        });
        connection.late |= self.is_late;
        if birth(change) == Some(Side::Server) && change.tuple.raddr.is_some() {
            // A kernel that reports the peer at one birth reports it at each, so the filter hides
            // no birth.
            self.births_hide = false;
        }
        if change.newstate == State::Established && connection.is_server() {
            self.estimate_syn(&mut connection, event, change, out);
        }
        if change.oldstate == State::SynSent {
            connection.socket.learn(&change.tuple, change.cookie);
            self.ask_after_syn(&mut connection);
        }
        self.leave_bucket(event, change, &mut connection, reset_follows, out);
        let judged = judge::change(&connection, change, reset_follows);
        let in_state_ns = connection.enter(event, change, judged);
        let owner = || {
            let (listeners, processes) = (&self.listeners, &self.processes);
            current_owner(listeners, processes, &connection, change.orphaned)
        };
        let is_queued = change.newstate == State::Established && connection.is_server();
        let is_closing = change.oldstate == State::Established;
        if self.wants(Kind::Transition)
            || is_queued && self.wants_queues()
            || is_closing && self.wants_closings()
        {
            append(out, || {
                let owner = owner();
                Line::Transition(connection.transition(event, change, in_state_ns, judged, owner))
            });
        }
        if change.newstate == State::Close
            && change.oldstate != State::SynSent
            && self.wants(Kind::Reset)
        {
            let cause = judged.why.map(|why| why.cause);
            // If the socket left a bucket behind, later segments belong to the bucket.
            let may_send_rst = connection.bucket.is_none() && change.oldstate != State::LastAck;
            if may_send_rst && Resetting::is_followed_by_rst(cause) {
                let owner = closer(event, change).or_else(owner);
                let subject = connection.socket.subject(owner);
                self.resetting.add(change.sk, subject);
            }
        }
        self.note_failures(&mut connection, change);
        if change.newstate == State::SynSent {
            self.suspect_syn(event.mono_ns, &mut connection);
        }
        self.segments
            .bind(event.mono_ns, change.sk, &connection.socket);
        if change.newstate == State::Established {
            self.meet_peer(event, change.sk, &mut connection);
        }
        if connection.socket.state != State::Close {
            self.keep(event.mono_ns, change.sk, connection, out);
        } else if connection.may_be_queued_closed()
            && (connection.is_being_accepted()
                || !judge::listener_closed(&self.listeners, &connection))
        {
            if connection.is_being_accepted() {
                let conn = connection.socket.conn;
                self.being_accepted
                    .push_back((event.mono_ns, change.sk, conn));
            }
            self.queued_closed.insert(change.sk, connection);
        } else {
            self.end(connection, event.mono_ns, out);
        }
    }

    /// Joins a connection that has just become ESTABLISHED with its peer on this host.
    pub(super) fn meet_peer(&mut self, event: &Event, sk: Sk, connection: &mut Connection) {
        let syn_ns = connection.handshake.syn.map(|(ns, _)| ns);
        let joined = (self.peers).meet(sk, &connection.socket, syn_ns, event.mono_ns);
        let Some((other_sk, other, this)) = joined else {
            return;
        };
        connection.peer = Some(other);
        let it = self.open.get_mut(other_sk);
        if let Some(it) = it.filter(|it| it.socket.conn == other.conn) {
            it.peer = Some(this);
        }
    }

    /// Puts a connection into the table of open connections, which is bounded.
    pub(super) fn keep(&mut self, mono_ns: u64, sk: Sk, connection: Kept, out: &mut Vec<Line>) {
        if let Some(mut given_up) = self.open.insert(sk, connection) {
            given_up.evicted = true;
            self.totals.evicted += 1;
            self.end(given_up, mono_ns, out);
        }
    }

    /// Takes the connection at a kernel address out of the maps, if `is_meant` is true for it.
    pub(super) fn take(&mut self, sk: Sk, is_meant: impl Fn(&Connection) -> bool) -> Option<Kept> {
        if let Some(open) = self.open.take(sk, &is_meant) {
            return Some(open);
        }
        let closed = &mut self.queued_closed;
        is_meant(closed.get(&sk)?).then(|| closed.remove(&sk))?
    }

    /// Finds the listener of a child socket whose listener is not known.
    pub(super) fn attribute(&self, child: &mut Connection) {
        if !child.is_server() || child.listener.is_some() {
            return;
        }
        if let Some(sk) = child.clone_of {
            // The kernel named the listener. If the trace does not know that listener, no other
            // listener is the right one.
            child.listener_source = Some(ListenerSource::Clone);
            let id = (self.listeners).of_pointer(sk, child.socket.netns, child.first_seen_ns);
            if let Some(id) = id {
                child.cloned_from(id, ListenerSource::Clone);
            }
        } else if let Some(id) =
            (self.listeners).of_child(&child.socket, child.first_seen_ns, child.is_dropped())
        {
            child.cloned_from(id, ListenerSource::Address);
        }
    }
}
