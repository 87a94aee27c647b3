//! Audits: comparisons of the open connections with the kernel's sockets.
//!
//! A lost change of state shows at the connection's next event, if one comes. A connection whose
//! end was lost would stay open for ever. An audit finds that its socket is gone.

use std::collections::BTreeSet;

use crate::correlate::state::Correlator;
use crate::correlate::state::connection::Connection;
use crate::correlate::state::snapshot::IDLE_NS;
use crate::event::{Event, SnapshotEnd};
use crate::fields::Line;

/// Returns whether a connection had no event for some time before `mono_ns`.
fn is_idle(connection: &Connection, mono_ns: u64) -> bool {
    connection.latest_ns().saturating_add(IDLE_NS) < mono_ns
}

impl Correlator {
    /// Returns the network namespaces of open connections that should be audited now. If the audit
    /// `is_last`, returns the namespaces of all connections that can be compared. The call does not
    /// change the lines of the trace.
    pub fn wants_audit(&mut self, mono_ns: u64, is_last: bool) -> BTreeSet<u32> {
        if !is_last && !self.audit.is_due(mono_ns) {
            return BTreeSet::new();
        }
        let netns = |_, it: &Connection| is_idle(it, mono_ns).then_some(it.socket.netns);
        self.open.map(netns).into_iter().collect()
    }

    /// Handles the end of a snapshot. Ends the connections whose sockets are gone, and marks those
    /// whose sockets are in another state.
    pub(super) fn audit(&mut self, event: &Event, snapshot: &SnapshotEnd, out: &mut Vec<Line>) {
        let entries = std::mem::take(&mut self.audit.entries);
        if !snapshot.is_audit {
            return;
        }
        let mut wrong = self.open.map(|sk, it| {
            if it.socket.netns != snapshot.netns || !is_idle(it, snapshot.began_ns) {
                return None;
            }
            let here = entries
                .get(&sk)
                .filter(|(_, tuple)| it.socket.may_be(tuple));
            let state = here.map(|(state, _)| *state);
            (state != Some(it.socket.state)).then_some((it.socket.conn, sk, state))
        });
        wrong.sort_unstable_by_key(|(conn, ..)| *conn);
        for (_, sk, state) in wrong {
            match state {
                Some(state) => {
                    if let Some(connection) = self.open.get_mut(sk) {
                        connection.socket.correct_state(state);
                    }
                }
                None => {
                    if let Some(mut connection) = self.open.take(sk, |_| true) {
                        connection.vanish();
                        self.end(connection, event.mono_ns, out);
                    }
                }
            }
        }
    }
}
