//! Begin and end of listeners, and the contents of their accept queues at snapshots.

use std::collections::BTreeSet;

use crate::correlate::judge::cause;
use crate::correlate::judge::connection::listener_closed;
use crate::correlate::state::Correlator;
use crate::correlate::state::backlog;
use crate::correlate::state::connection::Connection;
use crate::correlate::state::listener::{Listener, ListenerId};
use crate::correlate::state::socket::{Owner, Socket};
use crate::correlate::state::table::Kept;
use crate::correlate::state::why::Clues;
use crate::event::{Event, SetState};
use crate::fields::{Kind, Line, PidSource, Side};

/// How long an accept() may take to return a connection that a RST closed while accept() was taking
/// it out of the queue, in nanoseconds. After that time the connection ends as never accepted.
const ACCEPTING_NS: u64 = 1_000_000_000;

impl Correlator {
    /// Handles CLOSE→LISTEN.
    pub(super) fn listen(&mut self, event: &Event, change: &SetState, out: &mut Vec<Line>) {
        self.free_address(change.sk, event.mono_ns, out);
        let mut socket = Socket::new(self.next_conn(), Some(Side::Listener), change);
        socket.owner = change.task.map(|task| Owner {
            task,
            source: PidSource::Listen,
            since_ns: event.mono_ns,
        });
        let why = cause::cause(change, Clues::default());
        self.processes.listens(socket.owner);
        let in_state_ns = socket.enter(event, change);
        if self.wants(Kind::Transition) || self.wants_queues() {
            let line = socket.transition(event, change, in_state_ns, why, socket.owner);
            out.push(Line::Transition(line));
        }
        let id = self.listeners.open(change.sk, socket, Some(event.mono_ns));
        if let Some(listener) = self.listeners.get_mut(id) {
            listener.backlog = backlog::of(change);
        }
    }

    /// Handles LISTEN→CLOSE. Connections that received a RST in the accept queue end with the
    /// listener. For each other queued connection, the kernel makes a transition afterwards
    /// (`inet_csk_listen_stop`).
    pub(super) fn unlisten(&mut self, event: &Event, change: &SetState, out: &mut Vec<Line>) {
        let known = self.listeners.at_sk(change.sk).filter(|&id| {
            let listener = self.listeners.get(id);
            !self.listeners.is_closed(id)
                && listener.is_some_and(|it| it.socket.may_be(&change.tuple))
        });
        let id = known.unwrap_or_else(|| {
            self.free_address(change.sk, event.mono_ns, out);
            let socket = Socket::new(self.next_conn(), Some(Side::Listener), change);
            self.listeners.open(change.sk, socket, None)
        });
        self.listeners.learn(id, &change.tuple);
        let is_wanted = self.wants(Kind::Transition) || self.wants_queues();
        if let Some(Listener { socket, .. }) = self.listeners.get_mut(id) {
            let owner = socket.owner.and_then(|owner| self.processes.living(owner));
            let in_state_ns = socket.enter(event, change);
            if is_wanted {
                let why = cause::cause(change, Clues::default());
                let line = socket.transition(event, change, in_state_ns, why, owner);
                out.push(Line::Transition(line));
            }
        }
        self.listeners.close(id, event.mono_ns);

        let listeners = &self.listeners;
        let mut purged: Vec<Kept> = self
            .queued_closed
            .extract_if(|_, c| !c.is_being_accepted() && listener_closed(listeners, c))
            .map(|(_, c)| c)
            .collect();
        if !purged.is_empty() && !self.visibility.all_accepts {
            let is_its = |c: &Connection| c.listener == Some(id) && c.may_be_queued();
            let all = purged.iter().filter(|c| is_its(c)).count() + self.open.count(is_its);
            let still_queued = match change.backlog_len as usize {
                0 => Some(false),
                len => (len == all).then_some(true),
            };
            purged
                .iter_mut()
                .filter(|c| is_its(c))
                .for_each(|c| c.still_queued = still_queued);
        }
        self.end_all(purged, event.mono_ns, out);
        let select = &self.select;
        if let Some(conn) = self.listeners.fold(|conn| select.shows(conn)) {
            self.select.forget(conn);
        }
    }

    /// At the end of the trace, decides which connections that received a RST in an accept queue
    /// are still in it. The evidence is the length of the queue and the other connections that the
    /// last snapshot found in it.
    pub(super) fn check_reset_queues(&mut self) {
        if self.visibility.all_accepts {
            return;
        }
        let reset = self.queued_closed.values().filter(|c| c.may_be_queued());
        let queues: BTreeSet<ListenerId> = reset.filter_map(|c| c.listener).collect();
        for id in queues {
            let snapshot_ns = (self.listeners.get(id))
                .and_then(|it| self.last_snapshots.get(&it.socket.netns))
                .copied();
            let len = self.listeners.get(id).and_then(|it| it.queued);
            let (Some(snapshot_ns), Some(len)) = (snapshot_ns, len) else {
                continue;
            };
            let is_its = |c: &Connection| c.listener == Some(id) && c.may_be_queued();
            let others = (self.open).count(|c| is_its(c) && c.was_queued_at(snapshot_ns));
            let all = others + self.queued_closed.values().filter(|c| is_its(c)).count();
            let still_queued = match len as usize {
                len if len == others => Some(false),
                len => (len == all).then_some(true),
            };
            let reset = self.queued_closed.values_mut().filter(|c| is_its(c));
            reset.for_each(|c| c.still_queued = still_queued);
        }
    }

    /// Ends the connections that an accept() should have returned by now, although no hook saw its
    /// return.
    pub(super) fn end_unaccepted(&mut self, mono_ns: u64, out: &mut Vec<Line>) {
        while let Some(&(closed_ns, sk, conn)) = self.being_accepted.front()
            && closed_ns.saturating_add(ACCEPTING_NS) <= mono_ns
        {
            self.being_accepted.pop_front();
            let known = self.queued_closed.get(&sk);
            if known.is_some_and(|it| it.socket.conn == conn)
                && let Some(connection) = self.queued_closed.remove(&sk)
            {
                self.end(connection, mono_ns, out);
            }
        }
    }

    /// Returns the network namespaces with connections that may be in an accept queue. Only a
    /// snapshot shows whether they are still there.
    pub fn unproven(&self) -> BTreeSet<u32> {
        let closed = self.queued_closed.values().map(Box::as_ref);
        let mut namespaces: BTreeSet<u32> = closed
            .filter(|it| it.may_be_queued())
            .map(|it| it.socket.netns)
            .collect();
        self.open.each(|it| {
            if it.may_be_queued() {
                namespaces.insert(it.socket.netns);
            }
        });
        namespaces
    }
}
