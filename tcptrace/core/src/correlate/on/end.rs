//! Ends of connections: each connection is judged, counted and written.

use super::append;
use crate::correlate::judge::connection::{End, listener_closed};
use crate::correlate::judge::verdict::Gap;
use crate::correlate::state::table::Kept;
use crate::correlate::state::{Correlator, Totals};
use crate::event::{Sk, State};
use crate::fields::Line;

impl Correlator {
    /// Ends every record at a kernel address because another socket uses the address now.
    pub(super) fn free_address(&mut self, sk: Sk, mono_ns: u64, out: &mut Vec<Line>) {
        self.listeners.free_address(sk, mono_ns);
        let old = [self.open.take(sk, |_| true), self.queued_closed.remove(&sk)];
        for mut connection in old.into_iter().flatten() {
            connection.vanish();
            connection.late |= self.is_late;
            self.end(connection, mono_ns, out);
        }
    }

    /// Ends connections in the order of their connection numbers, because a map has no stable
    /// order.
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
            sees_overflows: self.visibility.overflows,
            forgot_syns_ns: self.dropped_syns.forgot_ns(),
            sees_all_accepts: self.visibility.all_accepts,
            last_snapshot_ns: None,
            words: self.wanted.has_words(),
        }
    }

    /// Judges a connection, counts it and writes its line.
    pub(super) fn end(&mut self, mut connection: Kept, mono_ns: u64, out: &mut Vec<Line>) {
        self.attribute(&mut connection);
        self.name_failures(&mut connection);
        if connection.socket.state == State::SynSent {
            self.ask_after_syn(&mut connection);
        }
        self.peers.leave(&connection.socket);
        let listener_closed = listener_closed(&self.listeners, &connection);
        let end = End {
            last_snapshot_ns: self.last_snapshots.get(&connection.socket.netns).copied(),
            ..self.end_at(mono_ns, listener_closed)
        };
        let owner = self.current_owner(&connection);
        append(out, || Line::Connection(connection.line(&end, owner)));
        if let Some(Line::Connection(line)) = out.last_mut() {
            (self.segments).unbind(&connection.socket, self.losses, line);
        }
        self.explain_ended(&connection, out);
        self.connection_ended(&connection);
        self.open.give_back(connection);
    }

    /// Ends the trace step by step: appends the `connection` lines of at most `many` open sockets,
    /// in order of `conn`. Returns true if more may remain. `lost`: the kernel side's final count
    /// of lost event records.
    pub fn end_some(&mut self, many: usize, mono_ns: u64, lost: u32, out: &mut Vec<Line>) -> bool {
        self.note_lost(lost);
        if self.still_open.is_none() {
            self.check_reset_queues();
        }
        let mut rest = self.still_open.take().unwrap_or_else(|| {
            let closed = self.queued_closed.iter();
            let closed = closed.map(|(&sk, it)| (it.socket.conn, sk));
            // Reserve exactly, because a million connections may be open.
            let mut rest = Vec::with_capacity(self.open.len() + closed.len());
            rest.extend(self.open.conns().chain(closed));
            rest.sort_unstable_by(|one, other| other.cmp(one));
            rest
        });
        let first = out.len();
        for (conn, sk) in rest
            .split_off(rest.len().saturating_sub(many))
            .into_iter()
            .rev()
        {
            let connection = self.take(sk, |it| it.socket.conn == conn);
            if let Some(connection) = connection.filter(|it| !it.untouched) {
                self.end(connection, mono_ns, out);
            }
        }
        self.settle(first, out);
        let more = !rest.is_empty();
        self.still_open = Some(rest);
        more
    }

    /// Ends the trace: appends the `connection` lines of all open sockets and returns the totals.
    /// `lost`: the kernel side's final count of lost event records.
    pub fn finish(&mut self, mono_ns: u64, lost: u32, out: &mut Vec<Line>) -> Totals {
        self.end_some(usize::MAX, mono_ns, lost, out);
        let first = out.len();
        let half_open = self.requests.drain();
        self.end_half_opens(half_open, mono_ns, out);
        self.finish_buckets(mono_ns, out);
        self.settle(first, out);
        self.write_histograms(mono_ns, out);
        let netns_counters = self.summarize_counters(mono_ns);
        let is_shown = |conn| self.select.shows(conn);
        Totals {
            listeners: std::mem::take(&mut self.listeners).summarize(self.visibility, is_shown),
            dropped_lines: self.select.dropped,
            repeated_segments: self.segments.repeats,
            netns_counters,
            ..std::mem::take(&mut self.totals)
        }
    }
}
