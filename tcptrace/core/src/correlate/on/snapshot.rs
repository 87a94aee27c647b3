//! Sockets that are older than the trace, from the snapshot at its start.

use std::collections::BTreeMap;

use crate::correlate::state::Correlator;
use crate::correlate::state::connection::Connection;
use crate::correlate::state::socket::{Owner, Socket};
use crate::event::{Event, SnapshotEntry, State, Task};
use crate::fields::{Line, PidSource, Preexisting, Side};

impl Correlator {
    /// Announces the snapshot at the start. Sockets found until `until_ns` (CLOCK_MONOTONIC,
    /// nanoseconds) are older than the trace. `owners`: the processes that have the sockets, by
    /// inode. The owners of several announcements are combined.
    pub fn import(&mut self, owners: BTreeMap<u64, Task>, until_ns: u64) {
        self.import.owners.extend(owners);
        self.import.until_ns = until_ns;
    }

    /// Handles a socket of a snapshot. Facts from events take precedence.
    pub(super) fn snapshot_entry(
        &mut self,
        event: &Event,
        entry: &SnapshotEntry,
        out: &mut Vec<Line>,
    ) {
        if !entry.is_bucket {
            self.audit.add(entry);
        }
        if entry.is_bucket {
            self.bucket_entry(event, entry, out);
        } else if event.mono_ns > self.import.until_ns {
            self.later_entry(event, entry);
        } else if entry.state == State::Close {
            // A socket in CLOSE is not older than the trace.
        } else if entry.state == State::Listen {
            self.preexisting_listener(event, entry, out);
        } else {
            self.preexisting_connection(event, entry, out);
        }
    }

    /// Notes which connections are in the accept queues at a later snapshot. If a socket in a queue
    /// is unknown, its birth was lost; it is ignored.
    fn later_entry(&mut self, event: &Event, entry: &SnapshotEntry) {
        if entry.state == State::Listen {
            let id = (self.listeners).of_pointer(entry.sk, entry.netns, event.mono_ns);
            if let Some(listener) = id.and_then(|id| self.listeners.get_mut(id)) {
                listener.queued = Some(entry.backlog_len);
            }
        } else if let Some(connection) = self.open.get_mut(entry.sk)
            && connection.is_server()
            && connection.socket.netns == entry.netns
            && connection.socket.may_be(&entry.tuple)
        {
            connection.seen(event.mono_ns, entry.held);
        }
    }

    fn preexisting_listener(&mut self, event: &Event, entry: &SnapshotEntry, out: &mut Vec<Line>) {
        let known = self.listeners.at_sk(entry.sk);
        let known = known.filter(|&id| !self.listeners.is_closed(id));
        let id = known.unwrap_or_else(|| {
            self.free_address(entry.sk, event.mono_ns, out);
            let socket = self.socket_of(event, entry, Some(Side::Listener));
            self.listeners.open(entry.sk, socket, None)
        });
        // An earlier accept() may have shown the listener, but no line describes it yet.
        let is_new = (self.listeners.get_mut(id)).is_some_and(|it| it.announce());
        if is_new {
            let owner = self.owner_of(event, entry);
            self.processes.listens(owner);
            let Some(listener) = self.listeners.get_mut(id) else {
                return;
            };
            let socket = &mut listener.socket;
            socket.learn(&entry.tuple, entry.cookie);
            socket.scope = socket.scope.or(entry.scope);
            socket.uid = socket.uid.or(entry.uid);
            socket.cgroup = socket.cgroup.or(entry.cgroup);
            socket.owner = socket.owner.or(owner);
            out.push(preexisting(event, entry, socket));
            self.listeners.limited(id, entry.backlog_max);
            let (held, limit) = (entry.backlog_len, entry.backlog_max);
            self.listeners.queue_holds(id, event.mono_ns, held, limit);
        }
    }

    fn preexisting_connection(
        &mut self,
        event: &Event,
        entry: &SnapshotEntry,
        out: &mut Vec<Line>,
    ) {
        if self.open.contains(entry.sk) || self.queued_closed.contains_key(&entry.sk) {
            return;
        }
        self.free_address(entry.sk, event.mono_ns, out);
        let side = match entry.state {
            // Only clones of a listener inherit sk_max_ack_backlog. Only connect() leads to
            // SYN_SENT.
            _ if entry.backlog_max > 0 => Some(Side::Server),
            State::SynSent => Some(Side::Client),
            _ => None,
        };
        let socket = self.socket_of(event, entry, side);
        out.push(preexisting(event, entry, &socket));
        let mut connection = Connection::preexisting(socket, event, entry, self.losses);
        self.attribute(&mut connection);
        let connection = self.open.boxed(connection);
        self.keep(event.mono_ns, entry.sk, connection, out);
    }

    fn socket_of(&mut self, event: &Event, entry: &SnapshotEntry, side: Option<Side>) -> Socket {
        let conn = self.next_conn();
        let mut socket = Socket::with_state(conn, side, entry.netns, entry.tuple, entry.state);
        socket.scope = entry.scope;
        socket.cookie = entry.cookie;
        socket.uid = entry.uid;
        socket.cgroup = entry.cgroup;
        socket.owner = self.owner_of(event, entry);
        socket
    }

    fn owner_of(&self, event: &Event, entry: &SnapshotEntry) -> Option<Owner> {
        let task = entry.inode.and_then(|it| self.import.owners.get(&it));
        task.map(|&task| Owner {
            task,
            source: PidSource::Snapshot,
            since_ns: event.mono_ns,
        })
    }
}

fn preexisting(event: &Event, entry: &SnapshotEntry, socket: &Socket) -> Line {
    let queue = |n| (entry.state == State::Listen).then_some(n);
    Line::Preexisting(Preexisting {
        mono_ns: event.mono_ns,
        subject: socket.subject(socket.owner),
        state: entry.state,
        backlog_len: queue(entry.backlog_len),
        backlog_max: queue(entry.backlog_max),
    })
}
