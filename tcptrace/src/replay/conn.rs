//! `--conn`: selects one connection of a trace with both its ends.

use std::collections::BTreeSet;

use super::Recorded;
use crate::fields::Line;

/// The connection numbers (`conn`) of both ends of a connection, or the number of a listener.
#[derive(Debug, PartialEq, Eq)]
pub struct Chosen {
    conns: BTreeSet<u64>,
}

impl Chosen {
    /// Searches a whole recording for both ends, because lines of the other end may come first.
    /// Returns `None` if no line has the connection number `conn`.
    pub fn find(conn: u64, recorded: &mut Recorded) -> Option<Chosen> {
        let mut conns = BTreeSet::new();
        for line in recorded {
            let (own, peer) = (number(&line), peer(&line));
            if own == Some(conn) || peer == Some(conn) {
                conns.extend(own);
                conns.extend(peer);
            }
        }
        conns.contains(&conn).then_some(Chosen { conns })
    }

    /// Returns true for lines about the connection and for lines about the trace itself.
    pub fn take(&self, line: &Line) -> bool {
        match line {
            Line::Session(_) | Line::Lost(_) | Line::Summary(_) => true,
            line => number(line).is_some_and(|conn| self.conns.contains(&conn)),
        }
    }
}

/// Returns the connection or listener number under which a line is shown.
fn number(line: &Line) -> Option<u64> {
    match line {
        Line::Accept(accept) => accept.subject.conn.or(accept.listener),
        line => line.subject()?.conn,
    }
}

fn peer(line: &Line) -> Option<u64> {
    match line {
        Line::Accept(accept) => accept.peer_conn,
        Line::Connection(connection) => connection.peer_conn,
        _ => None,
    }
}
