//! Folds the lines of a trace into the metrics. Uses no clock; times are arguments.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::metrics::{Count, Metrics, RowMetrics};
use super::rows::{Begin, RowId, Rows};
use crate::event::{Hook, ListenQueue, State};
use crate::fields::{
    Accept, Connection, Kind, Line, Lost, Overflow, PidSource, Preexisting, Session, Side, Subject,
    Transition, Verdict, Wanted,
};

/// The state that the metrics need between lines.
pub struct Fold {
    metrics: Arc<Metrics>,
    rows: Rows,
    /// Accepted connections whose `accept` line had no verdict, with whether it had a wait. Their
    /// `connection` line has both.
    undecided: FxHashMap<u64, bool>,
    /// Connections that accept() returned before they were ESTABLISHED.
    early: FxHashSet<u64>,
}

impl Fold {
    /// `max_listeners` is the upper bound on the sets of labels.
    pub fn new(metrics: Arc<Metrics>, max_listeners: usize) -> Fold {
        Fold {
            rows: Rows::new(metrics.clone(), max_listeners, begin),
            metrics,
            undecided: FxHashMap::default(),
            early: FxHashSet::default(),
        }
    }

    /// Returns the lines that the metrics need.
    pub fn wants() -> Wanted {
        use Kind::{Accept, Connection, Lost, Overflow, Preexisting, Reset, Retransmit, Session};
        let kinds = [
            Session,
            Preexisting,
            Accept,
            Overflow,
            Connection,
            Retransmit,
            Reset,
            Lost,
        ];
        kinds.into_iter().collect::<Wanted>() | Wanted::QUEUES
    }

    /// Takes the next line.
    pub fn line(&mut self, line: &Line) {
        match line {
            Line::Session(x) => self.session(x),
            Line::Preexisting(x) => self.preexisting(x),
            Line::Transition(x) => self.transition(x),
            Line::Accept(x) => self.accept(x),
            Line::Overflow(x) => self.overflow(x),
            Line::Connection(x) => self.connection(x),
            Line::Retransmit(x) => {
                self.count(x.mono_ns, &x.subject, Count::Retransmit(x.retransmitted));
            }
            Line::Reset(x) => {
                let count = Count::Reset(x.direction, x.rst_reason.clone());
                self.count(x.mono_ns, &x.subject, count);
            }
            Line::Lost(x) => self.lost(x),
            Line::Segment(_)
            | Line::TimeWait(_)
            | Line::Histogram(_)
            | Line::Stack(_)
            | Line::Summary(_) => {}
        }
    }

    /// Removes the metrics of listeners and clients that are gone at this time (CLOCK_MONOTONIC,
    /// nanoseconds).
    pub fn expire(&mut self, now_ns: u64) {
        self.rows.expire(now_ns);
    }

    fn session(&mut self, x: &Session) {
        let attached = |hook| matches!(x.hooks.get(&hook), Some(Some(_)));
        self.rows.visible = Begin {
            overflows: attached(Hook::ListenOverflow),
            requests: attached(Hook::RequestSock),
        };
        for hook in Hook::ALL {
            if attached(hook) {
                self.metrics.lose(hook, 0);
            }
        }
    }

    fn preexisting(&mut self, x: &Preexisting) {
        if x.state == State::Listen {
            self.rows
                .open(x.mono_ns, &x.subject, x.backlog_len, x.backlog_max);
        }
    }

    fn transition(&mut self, x: &Transition) {
        if x.newstate == State::Listen {
            let max = x.backlog.backlog_max;
            self.rows.open(x.mono_ns, &x.subject, Some(0), max);
        } else if x.oldstate == State::Listen && x.subject.is_listener() {
            if let Some(conn) = x.subject.conn {
                self.rows.close(x.mono_ns, conn);
            }
        } else if x.newstate == State::Established && x.subject.is_server() {
            let was_accepted = x.subject.conn.is_some_and(|conn| self.early.remove(&conn));
            if !was_accepted && let Some(listener) = self.rows.listener(&x.subject, x.listener) {
                self.rows.enter(listener);
            }
        }
    }

    fn accept(&mut self, x: &Accept) {
        let listener = self.rows.listener(&x.subject, x.listener);
        if let Some(listener) = listener {
            self.rows.report(listener, x.backlog_len, x.backlog_max);
        }
        if x.accept_error.is_some() {
            return;
        }
        if let (Some(listener), Some(process), Some(PidSource::Accept)) =
            (listener, x.subject.process, x.subject.pid_source)
        {
            self.rows.accepted_by(listener, process);
        }
        if let Some(conn) = x.subject.conn {
            if x.established_mono_ns.is_none() {
                self.early.insert(conn);
            }
            if x.verdict.is_none() {
                self.undecided.insert(conn, x.accept_queue_ns.is_some());
            }
        }
        let row = self.rows.of_server(&x.subject, x.listener);
        let Some(metrics) = self.rows.at(row, x.mono_ns) else {
            return;
        };
        if let Some(ns) = x.accept_queue_ns {
            metrics.wait(ns);
        }
        if let Some(verdict) = x.verdict {
            metrics.add(Count::Verdict(verdict), 1);
        }
    }

    fn overflow(&mut self, x: &Overflow) {
        if x.queue == ListenQueue::Accept
            && let Some(listener) = self.rows.listener(&x.subject, x.listener)
        {
            self.rows.report(listener, x.queue_len, x.queue_max);
        }
        let row = self.rows.of_server(&x.subject, x.listener);
        if let Some(metrics) = self.rows.at(row, x.mono_ns) {
            metrics.add(Count::Overflow(x.queue), 1);
        }
    }

    fn connection(&mut self, x: &Connection) {
        let is_server = x.subject.is_server();
        // The `accept` line has given the verdict and the wait, unless this is set.
        let mut decide = is_server && x.accepted_mono_ns.is_none();
        let mut waited = decide;
        if let Some(conn) = x.subject.conn.filter(|_| is_server) {
            self.early.remove(&conn);
            if let Some(has_wait) = self.undecided.remove(&conn) {
                (decide, waited) = (true, !has_wait);
            }
        }
        // A process closed the connection although no hook has seen the accept() that returned it.
        let is_missed = x.verdict == Some(Verdict::Unknown) && x.accepted_mono_ns.is_none();
        if is_server
            && is_missed
            && x.established_mono_ns.is_some()
            && let Some(listener) = self.rows.listener(&x.subject, x.listener)
        {
            self.rows.doubt(listener);
        }
        let sees_requests = self.rows.visible.requests;
        let row = self.row(&x.subject, x.listener);
        let Some(metrics) = self.rows.at(row, x.mono_ns) else {
            return;
        };
        if let (Some(side), Some(ns)) = (x.subject.side, x.handshake_ns) {
            metrics.handshake(side, ns);
        }
        if let Some(verdict) = x.verdict.filter(|_| decide) {
            metrics.add(Count::Verdict(verdict), 1);
        }
        if let Some(ns) = x.accept_queue_ns.filter(|_| waited) {
            metrics.wait(ns);
        }
        if x.verdict == Some(Verdict::Unfinished) && sees_requests {
            metrics.add(Count::HalfOpenFailed, 1);
        }
        if x.ending.ended.is_some() || x.state == State::Close {
            metrics.add(Count::Ended(x.ending.ended), 1);
        }
        let late = x.late.iter().flat_map(|late| late.times.largest_first());
        late.for_each(|(reason, ns)| metrics.late(reason, ns));
    }

    fn lost(&mut self, x: &Lost) {
        self.metrics.lose(x.hook, x.count);
        if matches!(x.hook, Hook::InetSockSetState | Hook::InetCskAccept) {
            self.rows.doubt_all();
        }
    }

    fn row(&mut self, subject: &Subject, listener: Option<u64>) -> RowId {
        match subject.side {
            Some(Side::Server) => self.rows.of_server(subject, listener),
            _ => self.rows.of_client(subject),
        }
    }

    fn count(&mut self, mono_ns: u64, subject: &Subject, count: Count) {
        let row = self.row(subject, None);
        if let Some(metrics) = self.rows.at(row, mono_ns) {
            metrics.add(count, 1);
        }
    }
}

/// Creates the counters of a new listener that begin at 0. A counter that first appears with 1 has
/// no increase for Prometheus, so rare events would be missed.
fn begin(metrics: &mut RowMetrics, visible: Begin) {
    for verdict in [Verdict::Queued, Verdict::Awaited, Verdict::NeverAccepted] {
        metrics.add(Count::Verdict(verdict), 0);
    }
    if visible.overflows {
        metrics.add(Count::Overflow(ListenQueue::Accept), 0);
        metrics.add(Count::Overflow(ListenQueue::Syn), 0);
    }
    if visible.requests {
        metrics.add(Count::HalfOpenFailed, 0);
    }
}
