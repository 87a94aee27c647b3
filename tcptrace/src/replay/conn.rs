//! `--conn`: one connection of a trace, both its ends.

use std::collections::BTreeSet;

use super::Recorded;
use crate::fields::Line;

/// A connection by the numbers of its ends, or a listener by its own.
#[derive(Debug, PartialEq, Eq)]
pub struct Chosen {
    conns: BTreeSet<u64>,
}

impl Chosen {
    /// Looks through a whole recording for the other end, which may be told of first; `None` when
    /// there is no line of the number at all.
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

    /// Whether a line is about it, or about the trace.
    pub fn take(&self, line: &Line) -> bool {
        match line {
            Line::Session(_) | Line::Lost(_) | Line::Summary(_) => true,
            line => number(line).is_some_and(|conn| self.conns.contains(&conn)),
        }
    }
}

/// The number that a line is shown under.
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
