//! Sockets that are older than the trace, from the snapshot at its start.

use std::collections::BTreeMap;

use crate::correlate::state::Correlator;
use crate::correlate::state::connection::Connection;
use crate::correlate::state::socket::{Owner, Socket};
use crate::event::{Event, Found, State, Task};
use crate::fields::{Line, PidSource, Preexisting, Side};

impl Correlator {
    /// Announces the snapshot at the start. Sockets found until `until_ns` (CLOCK_MONOTONIC,
    /// nanoseconds) are older than the trace. `owners`: their processes, by inode. Several
    /// announcements add up.
    pub fn import(&mut self, owners: BTreeMap<u64, Task>, until_ns: u64) {
        self.import.owners.extend(owners);
        self.import.until_ns = until_ns;
    }

    /// Handles a socket of a snapshot. Facts from events take precedence.
    pub(super) fn found(&mut self, event: &Event, found: &Found, out: &mut Vec<Line>) {
        if !found.is_bucket {
            self.audit.found(found);
        }
        if found.is_bucket {
            self.bucket_found(event, found, out);
        } else if event.mono_ns > self.import.until_ns {
            self.seen_again(event, found);
        } else if found.state == State::Close {
            // A socket in CLOSE is not older than the trace.
        } else if found.state == State::Listen {
            self.listener_found(event, found, out);
        } else {
            self.connection_found(event, found, out);
        }
    }

    /// Notes what is in the accept queues at a later snapshot. An unknown socket in it is one whose
    /// birth was lost; it is ignored.
    fn seen_again(&mut self, event: &Event, found: &Found) {
        if found.state == State::Listen {
            let id = (self.listeners).of_pointer(found.sk, found.netns, event.mono_ns);
            if let Some(listener) = id.and_then(|id| self.listeners.get_mut(id)) {
                listener.queued = Some(found.backlog_len);
            }
        } else if let Some(connection) = self.open.get_mut(found.sk)
            && connection.is_server()
            && connection.socket.netns == found.netns
            && connection.socket.may_be(&found.tuple)
        {
            connection.seen(event.mono_ns, found.held);
        }
    }

    fn listener_found(&mut self, event: &Event, found: &Found, out: &mut Vec<Line>) {
        let known = self.listeners.at_sk(found.sk);
        let known = known.filter(|&id| !self.listeners.is_closed(id));
        let id = known.unwrap_or_else(|| {
            self.vacate(found.sk, event.mono_ns, out);
            let socket = self.socket_found(event, found, Some(Side::Listener));
            self.listeners.open(found.sk, socket, None)
        });
        // An earlier accept() may have shown the listener, but no line describes it yet.
        let is_new = (self.listeners.get_mut(id)).is_some_and(|it| it.announce());
        if is_new {
            let owner = self.owner_of(event, found);
            self.processes.listens(owner);
            let Some(listener) = self.listeners.get_mut(id) else {
                return;
            };
            let socket = &mut listener.socket;
            socket.learn(&found.tuple, found.cookie);
            socket.scope = socket.scope.or(found.scope);
            socket.uid = socket.uid.or(found.uid);
            socket.cgroup = socket.cgroup.or(found.cgroup);
            socket.owner = socket.owner.or(owner);
            out.push(preexisting(event, found, socket));
            self.listeners.limited(id, found.backlog_max);
            let (held, limit) = (found.backlog_len, found.backlog_max);
            self.listeners.queue_holds(id, event.mono_ns, held, limit);
        }
    }

    fn connection_found(&mut self, event: &Event, found: &Found, out: &mut Vec<Line>) {
        if self.open.contains(found.sk) || self.queued_closed.contains_key(&found.sk) {
            return;
        }
        self.vacate(found.sk, event.mono_ns, out);
        let side = match found.state {
            // Only clones of a listener inherit sk_max_ack_backlog. Only connect() leads to
            // SYN_SENT.
            _ if found.backlog_max > 0 => Some(Side::Server),
            State::SynSent => Some(Side::Client),
            _ => None,
        };
        let socket = self.socket_found(event, found, side);
        out.push(preexisting(event, found, &socket));
        let mut connection = Connection::preexisting(socket, event, found, self.losses);
        self.attribute(&mut connection);
        let connection = self.open.boxed(connection);
        self.keep(event.mono_ns, found.sk, connection, out);
    }

    fn socket_found(&mut self, event: &Event, found: &Found, side: Option<Side>) -> Socket {
        let conn = self.next_conn();
        let mut socket = Socket::found(conn, side, found.netns, found.tuple, found.state);
        socket.scope = found.scope;
        socket.cookie = found.cookie;
        socket.uid = found.uid;
        socket.cgroup = found.cgroup;
        socket.owner = self.owner_of(event, found);
        socket
    }

    fn owner_of(&self, event: &Event, found: &Found) -> Option<Owner> {
        let task = found.inode.and_then(|it| self.import.owners.get(&it));
        task.map(|&task| Owner {
            task,
            source: PidSource::Snapshot,
            since_ns: event.mono_ns,
        })
    }
}

fn preexisting(event: &Event, found: &Found, socket: &Socket) -> Line {
    let queue = |n| (found.state == State::Listen).then_some(n);
    Line::Preexisting(Preexisting {
        mono_ns: event.mono_ns,
        subject: socket.subject(socket.owner),
        state: found.state,
        backlog_len: queue(found.backlog_len),
        backlog_max: queue(found.backlog_max),
    })
}
