//! What the summary counts: the connections whose lines are written, and no others.

use super::Correlator;
use super::connection::Connection;
use super::half_open::HalfOpen;
use super::listener::ListenerId;
use crate::event::State;
use crate::fields::{self, Line, Side};

/// A `connection` line on its way, and what it does not tell of itself.
pub(super) struct Ended {
    conn: Option<u64>,
    listener: Option<ListenerId>,
    is_connection: bool,
}

impl Correlator {
    /// Remembers how a connection has ended, to count it if its line is written.
    pub(super) fn connection_ended(&mut self, connection: &Connection) {
        self.ended.push(Ended {
            conn: Some(connection.socket.conn),
            listener: connection.listener,
            is_connection: connection.is_connection(),
        });
    }

    /// The same of one that was half-open to its end.
    pub(super) fn half_open_ended(&mut self, half_open: &HalfOpen) {
        self.ended.push(Ended {
            conn: Some(half_open.conn()),
            listener: half_open.listener,
            is_connection: false,
        });
    }

    /// Sends the lines from `first` on through the selection, counts those that are left, and
    /// leaves those that the depth tells.
    pub(super) fn settle(&mut self, first: usize, lines: &mut Vec<Line>) {
        self.select.sift(first, lines);
        if !self.ended.is_empty() {
            self.count_ended(&lines[first..]);
        }
        self.shorten(first, lines);
    }

    fn count_ended(&mut self, lines: &[Line]) {
        let mut all = std::mem::take(&mut self.ended);
        let mut ended = all.drain(..);
        for line in lines {
            if let Line::Connection(line) = line
                // Both are in one order; what is passed over has no line.
                && let Some(ended) = ended.find(|it| it.conn == line.subject.conn)
            {
                self.count(line, &ended);
            }
        }
        drop(ended);
        self.ended = all;
    }

    fn count(&mut self, line: &fields::Connection, ended: &Ended) {
        self.totals.incomplete += u64::from(!line.complete);
        self.totals.closed += u64::from(line.state == State::Close);
        match line.subject.side {
            Some(Side::Client) => self.totals.clients += 1,
            Some(Side::Server) => self.totals.servers += 1,
            _ => {}
        }
        if let Some(verdict) = line.verdict {
            *self.totals.verdicts.entry(verdict).or_default() += 1;
            self.listeners
                .stats_of(ended.listener, &line.subject)
                .count(line, ended.is_connection);
        }
    }
}
