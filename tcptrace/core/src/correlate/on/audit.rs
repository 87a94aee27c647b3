//! Compares the connections that the trace takes for open with the sockets that the kernel has.
//!
//! A change of state that was lost, or that no program could see, shows in a later one, if there is any. A
//! connection whose end was lost would stay open for ever; a look through the sockets finds that it is gone.

use std::collections::BTreeSet;

use crate::correlate::state::Correlator;
use crate::correlate::state::connection::Connection;
use crate::correlate::state::snapshot::QUIET_NS;
use crate::event::{Event, Looked};
use crate::fields::Line;

/// Whether nothing has happened to a connection since a while before this time.
fn is_quiet(connection: &Connection, mono_ns: u64) -> bool {
    connection.latest_ns() + QUIET_NS < mono_ns
}

impl Correlator {
    /// The network namespaces of open connections that a look should be compared with now; those of all
    /// that can be compared when it `is_last`. What is asked does not change what is traced.
    pub fn worth_an_audit(&mut self, mono_ns: u64, is_last: bool) -> BTreeSet<u32> {
        if !is_last && !self.audit.is_due(mono_ns) {
            return BTreeSet::new();
        }
        let netns = |_, it: &Connection| is_quiet(it, mono_ns).then_some(it.socket.netns);
        self.open.map(netns).into_iter().collect()
    }

    /// A look is over: ends the connections that are gone, and marks those that are in another state.
    pub(super) fn audit(&mut self, event: &Event, looked: &Looked, out: &mut Vec<Line>) {
        let found = std::mem::take(&mut self.audit.found);
        if !looked.is_audit {
            return;
        }
        let mut wrong = self.open.map(|sk, it| {
            if it.socket.netns != looked.netns || !is_quiet(it, looked.began_ns) {
                return None;
            }
            let here = found.get(&sk).filter(|(_, tuple)| it.socket.may_be(tuple));
            let state = here.map(|(state, _)| *state);
            (state != Some(it.socket.state)).then_some((it.socket.conn, sk, state))
        });
        wrong.sort_unstable_by_key(|(conn, ..)| *conn);
        for (_, sk, state) in wrong {
            match state {
                Some(state) => {
                    if let Some(connection) = self.open.get_mut(sk) {
                        connection.socket.found_in(state);
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
