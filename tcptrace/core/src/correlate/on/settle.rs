//! Output of lines: selection, counts for the summary, and reduction to `--depth`.

use crate::correlate::state::connection::Connection;
use crate::correlate::state::half_open::HalfOpen;
use crate::correlate::state::{Correlator, Ended};
use crate::event::State;
use crate::fields::{self, Depth, Histogram, Kind, Line, Side, Wanted};

impl Correlator {
    /// Remembers facts about an ended connection, to count the connection if its line is written.
    pub(super) fn connection_ended(&mut self, connection: &Connection) {
        self.ended.push(Ended {
            conn: Some(connection.socket.conn),
            listener: connection.listener,
            is_connection: connection.is_connection(),
        });
    }

    /// Like [`Correlator::connection_ended`], for a connection that was half-open to its end.
    pub(super) fn half_open_ended(&mut self, half_open: &HalfOpen) {
        self.ended.push(Ended {
            conn: Some(half_open.conn()),
            listener: half_open.listener,
            is_connection: false,
        });
    }

    /// Applies the selection to the lines from index `first` on, counts the remaining lines, and
    /// removes those that the depth does not have.
    pub(super) fn settle(&mut self, first: usize, lines: &mut Vec<Line>) {
        self.select.sift(first, lines);
        if !self.ended.is_empty() {
            self.count_ended(&lines[first..]);
        }
        self.shorten(first, lines);
        self.write_stacks(first, lines);
    }

    fn count_ended(&mut self, lines: &[Line]) {
        let mut all = std::mem::take(&mut self.ended);
        let mut ended = all.drain(..);
        for line in lines {
            if let Line::Connection(line) = line
                // The ended connections and the lines are in the same order. A connection that is
                // not selected has no line.
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

impl Correlator {
    /// Removes the lines from index `first` on that no reader wants or that the trace's depth does
    /// not have. At [`Depth::Histogram`] the connections that went well are counted instead.
    pub(super) fn shorten(&mut self, first: usize, lines: &mut Vec<Line>) {
        let is_whole = self.depth == Depth::Events && self.wanted | Wanted::WORDS == Wanted::ALL;
        if is_whole || lines.len() == first {
            return;
        }
        let counts = self.depth == Depth::Histogram;
        let (depth, wanted) = (self.depth, self.wanted);
        let shown = Kind::ALL.into_iter().filter(|&kind| self.is_shown(kind));
        let shown: Wanted = shown.collect();
        let (queues, closings) = (self.wants_queues(), self.wants_closings());
        let histograms = &mut self.histograms;
        let dropped = lines.extract_if(first.., |line| match line {
            Line::Connection(line) => {
                counts && histograms.count(line) || !wanted.has(Kind::Connection)
            }
            Line::Accept(line) if line.accept_error.is_none() && depth != Depth::Events => true,
            Line::Transition(line) if queues && line.is_of_queue() => false,
            Line::Transition(line) if closings && line.oldstate == State::Established => false,
            line => !shown.has(line.kind()),
        });
        dropped.for_each(drop);
    }
}

impl Correlator {
    /// Appends a line for each port at which a connection was counted since the last time.
    pub(super) fn write_histograms(&mut self, mono_ns: u64, out: &mut Vec<Line>) {
        let since_ns = self.histograms.written_ns.replace(mono_ns);
        let interval_ns = mono_ns.saturating_sub(since_ns.unwrap_or(self.attached_ns));
        let counts = std::mem::take(&mut self.histograms.counts);
        let lines = counts.iter().map(|(port, counts)| {
            let at_server = |count| (!port.is_client).then_some(count);
            Line::Histogram(Histogram {
                mono_ns,
                interval_ns,
                side: match port.is_client {
                    true => Side::Client,
                    false => Side::Server,
                },
                netns: port.netns,
                port: port.port,
                went_well: counts.connections,
                queued: at_server(counts.queued),
                awaited: at_server(counts.awaited),
                handshake: counts.handshake.times(),
                accept_queue: counts.accept_queue.times(),
                late: (self.visibility.explains && !port.is_client).then_some(counts.late),
            })
        });
        out.extend(lines);
    }
}
