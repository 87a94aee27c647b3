//! Connections end: each is judged, counted and told.

use super::*;

impl Correlator {
    /// Ends whatever lived at a pointer: another socket lives there now.
    pub(super) fn vacate(&mut self, sk: Sk, mono_ns: u64, out: &mut Vec<Line>) {
        self.listeners.vacate(sk, mono_ns);
        let old = [self.open.take(sk, |_| true), self.queued_closed.remove(&sk)];
        for mut connection in old.into_iter().flatten() {
            connection.vanish();
            connection.late |= self.is_late;
            self.end(connection, mono_ns, out);
        }
    }

    /// Ends connections in the order of their numbers, which a map does not keep.
    pub(super) fn end_all(&mut self, mut all: Vec<Kept>, mono_ns: u64, out: &mut Vec<Line>) {
        all.sort_unstable_by_key(|c| c.socket.conn);
        for connection in all {
            self.end(connection, mono_ns, out);
        }
    }

    pub(super) fn end_at(&self, mono_ns: u64, listener_closed: bool) -> End {
        End {
            mono_ns,
            attached_ns: self.attached_ns,
            losses: self.losses,
            why_lost: match (self.has_lost, self.missed) {
                (true, _) => Gap::Lost,
                (false, true) => Gap::Skipped,
                (false, false) => Gap::Late,
            },
            missed: self.missed,
            listener_closed,
            sees_overflows: self.sight.overflows,
            forgot_syns_ns: self.refused_syns.forgot_ns(),
            sees_all_accepts: self.sight.all_accepts,
            last_look_ns: None,
        }
    }

    /// Judges a connection, has it counted and writes its line.
    pub(super) fn end(&mut self, mut connection: Kept, mono_ns: u64, out: &mut Vec<Line>) {
        self.attribute(&mut connection);
        self.name_failures(&mut connection);
        if connection.socket.state == State::SynSent {
            self.ask_after_syn(&mut connection);
        }
        self.peers.leave(&connection.socket);
        let listener_closed = listener_closed(&self.listeners, &connection);
        let end = End {
            last_look_ns: self.last_looks.get(&connection.socket.netns).copied(),
            ..self.end_at(mono_ns, listener_closed)
        };
        let owner = self.whose(&connection);
        append(out, || Line::Connection(connection.line(&end, owner)));
        if let Some(Line::Connection(line)) = out.last_mut() {
            (self.segments).unbind(&connection.socket, self.losses, line);
        }
        self.connection_ended(&connection);
        self.open.give_back(connection);
    }
}

/// Whether the accept queue that a child can be in is gone.
pub(super) fn listener_closed(listeners: &Listeners, child: &Connection) -> bool {
    match child.listener {
        Some(id) => listeners.is_closed(id),
        // The kernel names a listener that the trace does not know.
        None if child.clone_of.is_some() => false,
        None => listeners.closed_for(&child.socket, child.met_ns, child.is_dropped()),
    }
}
