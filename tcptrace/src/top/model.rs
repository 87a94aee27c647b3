//! The model of `tcptrace top`: takes lines and returns a [`View`]. Uses no clock; times are
//! arguments.
//!
//! All collections are bounded. Entries that do not fit are counted, and the view shows the count.

mod late;
mod listener;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, VecDeque};

use rustc_hash::{FxHashMap, FxHashSet};

pub use self::late::Cause;
use self::listener::Listener;
pub use self::view::{Depth, Key, Owner, Row, VerdictEntry, View, Waiting};
use crate::correlate::match_rank;
use crate::event::{Hook, ListenQueue, State};
use crate::fields::{
    Accept, Connection, Kind, Late, Line, Overflow, PidSource, Preexisting, Session, Side, Subject,
    Transition, Verdict, Wanted, Why,
};
use crate::printable::printable;

/// Upper bound on listening addresses.
const MOST_LISTENERS: usize = 1024;

/// Upper bound on connections in each collection of the model. Waiting connections beyond it are
/// counted, but not listed.
const MOST_CONNECTIONS: usize = 16_384;

/// Upper bound on waiting connections in a view. Those that wait longest are kept.
const MOST_SHOWN: usize = 1000;

const MOST_VERDICTS: usize = 200;

/// Length of a sparkline in seconds.
pub const SPARK_S: u64 = 60;

/// How long a closed listener stays in the view.
const CLOSED_FOR_NS: u64 = 10_000_000_000;

/// The events that the hooks of this trace can show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Visibility {
    pub accepts: bool,
    pub requests: bool,
    pub overflows: bool,
}

/// The current state of a trace.
pub struct Model {
    /// Time span of rates and quantiles, in seconds.
    window_s: u64,
    /// The trace explains late accept() calls (`--why`).
    explains: bool,
    session: Option<Session>,
    visible: Visibility,
    listeners: FxHashMap<Key, Listener>,
    /// The keys of listeners by network namespace and port, for finding the listener of a
    /// connection.
    at_port: FxHashMap<(u32, u16), Vec<Key>>,
    /// The keys of listeners by the `conn` of their sockets.
    by_conn: FxHashMap<u64, Key>,
    /// Sockets of listeners beyond [`MOST_LISTENERS`].
    left_out: FxHashSet<u64>,
    /// Connections that are ESTABLISHED and not accepted, by time and `conn`.
    waiting: BTreeMap<(u64, u64), Waiting>,
    since: FxHashMap<u64, u64>,
    /// Number of waiting connections beyond [`MOST_CONNECTIONS`].
    untracked: u64,
    half_open: FxHashMap<u64, Key>,
    /// Connections whose accept() line came before their ESTABLISHED line.
    early: FxHashSet<u64>,
    verdicts: VecDeque<VerdictEntry>,
    /// Verdicts that accept() lines have reported for connections that are still open.
    accept_verdicts: FxHashMap<u64, Verdict>,
    lost: Vec<((Hook, Why), u64)>,
    lost_ns: Option<u64>,
}

impl Model {
    pub fn new(window_s: u64) -> Model {
        Model {
            window_s,
            explains: false,
            session: None,
            visible: Visibility::default(),
            listeners: FxHashMap::default(),
            at_port: FxHashMap::default(),
            by_conn: FxHashMap::default(),
            left_out: FxHashSet::default(),
            waiting: BTreeMap::new(),
            since: FxHashMap::default(),
            untracked: 0,
            half_open: FxHashMap::default(),
            early: FxHashSet::default(),
            verdicts: VecDeque::new(),
            accept_verdicts: FxHashMap::default(),
            lost: vec![],
            lost_ns: None,
        }
    }

    /// Shows why accept() was late if the trace explains it.
    #[must_use]
    pub fn explaining(self, explains: bool) -> Model {
        Model { explains, ..self }
    }

    /// Returns the lines that the model needs.
    pub fn wants() -> Wanted {
        use Kind::{Accept, Connection, Lost, Overflow, Preexisting, Session, Transition};
        let kinds = [
            Session,
            Preexisting,
            Transition,
            Accept,
            Overflow,
            Connection,
            Lost,
        ];
        kinds.into_iter().collect::<Wanted>() | Wanted::WORDS
    }

    /// Takes the next line of the trace.
    pub fn line(&mut self, line: &Line) {
        match line {
            Line::Session(x) => self.session(x),
            Line::Preexisting(x) => self.preexisting(x),
            Line::Transition(x) => self.transition(x),
            Line::Accept(x) => self.accept(x),
            Line::Overflow(x) => self.overflow(x),
            Line::Connection(x) => self.connection(x),
            Line::Lost(x) => {
                let of = (x.hook, x.why);
                match self.lost.iter_mut().find(|(it, _)| *it == of) {
                    Some((_, count)) => *count = count.saturating_add(x.count),
                    None => self.lost.push((of, x.count)),
                }
                self.lost_ns = Some(x.mono_ns);
                self.listeners.values_mut().for_each(Listener::lost_events);
            }
            Line::Segment(_)
            | Line::Retransmit(_)
            | Line::Reset(_)
            | Line::TimeWait(_)
            | Line::Histogram(_)
            | Line::Stack(_)
            | Line::Summary(_) => {}
        }
    }

    fn session(&mut self, x: &Session) {
        let attached = |hook| matches!(x.hooks.get(&hook), Some(Some(_)));
        self.visible = Visibility {
            accepts: attached(Hook::InetCskAccept),
            requests: attached(Hook::RequestSock),
            overflows: attached(Hook::ListenOverflow),
        };
        self.session = Some(x.clone());
    }

    fn preexisting(&mut self, x: &Preexisting) {
        if x.state == State::Listen
            && let Some(listener) = self.listening(&x.subject)
            && let Some(conn) = x.subject.conn
        {
            listener.open(conn, x.backlog_len.unwrap_or(0).into());
            listener.backlog.backlog_max = x.backlog_max;
            listener.last_ns = x.mono_ns;
        }
    }

    fn transition(&mut self, x: &Transition) {
        match (x.oldstate, x.newstate) {
            (_, State::Listen) => {
                if let Some(listener) = self.listening(&x.subject)
                    && let Some(conn) = x.subject.conn
                {
                    listener.open(conn, 0);
                    listener.backlog = x.backlog;
                    listener.last_ns = x.mono_ns;
                }
            }
            (State::Listen, State::Close) => self.unlisten(x),
            _ if x.subject.side == Some(Side::Server) => self.server(x),
            _ => {}
        }
    }

    /// Returns the entry of a listener; creates it if there is room.
    fn listening(&mut self, subject: &Subject) -> Option<&mut Listener> {
        let (conn, key) = (subject.conn?, Key::of(subject)?);
        let known = self.by_conn.get(&conn).copied();
        if let Some(known) = known.filter(|known| *known != key) {
            self.rename(known, key);
        }
        if self.row(key).is_none() {
            if self.left_out.len() < MOST_CONNECTIONS {
                self.left_out.insert(conn);
            }
            return None;
        }
        self.by_conn.insert(conn, key);
        let listener = self.listeners.get_mut(&key)?;
        listener.owner = Owner::of(subject).or(listener.owner);
        Some(listener)
    }

    /// Moves a listener to its own address. Before, it was known only by the address of a
    /// connection to it.
    fn rename(&mut self, from: Key, to: Key) {
        if self.listeners.contains_key(&to) || self.row(to).is_none() {
            return;
        }
        let Some(row) = self.listeners.remove(&from) else {
            return;
        };
        self.listeners.insert(to, row);
        self.no_longer_at_port(from);
        let keys = self.by_conn.values_mut().chain(self.half_open.values_mut());
        let keys = keys.chain(self.waiting.values_mut().map(|it| &mut it.listener));
        keys.filter(|key| **key == from).for_each(|key| *key = to);
    }

    fn no_longer_at_port(&mut self, key: Key) {
        let port = (key.netns, key.port);
        if let Some(keys) = self.at_port.get_mut(&port) {
            keys.retain(|it| *it != key);
            if keys.is_empty() {
                self.at_port.remove(&port);
            }
        }
    }

    /// Returns the entry with this address; creates it if there is room.
    fn row(&mut self, key: Key) -> Option<&mut Listener> {
        if !self.listeners.contains_key(&key) {
            if self.listeners.len() == MOST_LISTENERS {
                return None;
            }
            let at_port = self.at_port.entry((key.netns, key.port));
            at_port.or_default().push(key);
        }
        Some(self.listeners.entry(key).or_default())
    }

    fn unlisten(&mut self, x: &Transition) {
        let Some(conn) = x.subject.conn else { return };
        self.left_out.remove(&conn);
        if let Some(listener) = self.at(self.by_conn.get(&conn).copied()) {
            listener.close(conn);
            listener.last_ns = x.mono_ns;
        }
        self.by_conn.remove(&conn);
    }

    fn at(&mut self, key: Option<Key>) -> Option<&mut Listener> {
        self.listeners.get_mut(&key?)
    }

    /// Returns the listening address of a server's connection. The line may name the listener;
    /// otherwise the best match is taken, or the connection's own address if no listener is known.
    fn key_of_child(&self, subject: &Subject, listener: Option<u64>) -> Option<Key> {
        if let Some(key) = listener.and_then(|conn| self.by_conn.get(&conn)) {
            return Some(*key);
        }
        let own = Key::of(subject)?;
        let known = self.at_port.get(&(own.netns, own.port));
        let open = known.into_iter().flatten().filter_map(|&key| {
            let closed = self.listeners.get(&key).is_none_or(|it| it.closed);
            Some((match_rank(key.address, own.address)?, closed, key))
        });
        let best = open.min_by_key(|&(rank, closed, _)| (closed, rank));
        Some(best.map_or(own, |(_, _, key)| key))
    }

    fn server(&mut self, x: &Transition) {
        let (Some(conn), Some(key)) = (x.subject.conn, self.key_of_child(&x.subject, x.listener))
        else {
            return;
        };
        if x.newstate == State::NewSynRecv {
            if self.half_open.len() < MOST_CONNECTIONS
                && let Some(listener) = self.row(key)
            {
                listener.half_open += 1;
                self.half_open.insert(conn, key);
            }
            return;
        }
        self.no_longer_half_open(conn);
        if x.newstate == State::Established {
            if !self.early.remove(&conn) {
                self.established(x, conn, key);
            }
        } else if let Some(&since_ns) = self.since.get(&conn) {
            let has_owner = [PidSource::Accept, PidSource::Close].map(Some);
            if has_owner.contains(&x.subject.pid_source) {
                // The process closes the connection, so an accept() that no hook saw has returned
                // it.
                self.vanish(conn);
            } else if let Some(waiting) = self.waiting.get_mut(&(since_ns, conn)) {
                waiting.state = x.newstate;
            }
        }
    }

    fn established(&mut self, x: &Transition, conn: u64, key: Key) {
        let window_s = self.window_s;
        let Some(listener) = self.row(key) else {
            return;
        };
        listener.established(x.mono_ns, window_s);
        listener.last_ns = x.mono_ns;
        if self.since.len() == MOST_CONNECTIONS {
            self.untracked += 1;
            return;
        }
        let waiting = Waiting {
            since_ns: x.mono_ns,
            subject: x.subject.clone(),
            state: x.newstate,
            listener: key,
        };
        self.since.insert(conn, x.mono_ns);
        self.waiting.insert((x.mono_ns, conn), waiting);
    }

    fn no_longer_half_open(&mut self, conn: u64) {
        if let Some(key) = self.half_open.remove(&conn)
            && let Some(listener) = self.listeners.get_mut(&key)
        {
            listener.half_open = listener.half_open.saturating_sub(1);
        }
    }

    fn take_waiting(&mut self, conn: u64) -> Option<Waiting> {
        let since_ns = self.since.remove(&conn)?;
        self.waiting.remove(&(since_ns, conn))
    }

    /// Removes a waiting connection that ended without an accept() being seen.
    fn vanish(&mut self, conn: u64) {
        if let Some(waiting) = self.take_waiting(conn)
            && let Some(listener) = self.listeners.get_mut(&waiting.listener)
        {
            listener.vanish();
        }
    }

    fn accept(&mut self, x: &Accept) {
        let of_listener = x.listener.and_then(|conn| self.by_conn.get(&conn).copied());
        let Some(key) = of_listener.or_else(|| self.key_of_child(&x.subject, None)) else {
            return;
        };
        let window_s = self.window_s;
        let Some(listener) = self.row(key) else {
            return;
        };
        // The listener has not appeared in the trace yet, or its line was filtered out.
        if let (Some(conn), None) = (x.listener, of_listener) {
            listener.add_socket(conn);
            self.by_conn.insert(conn, key);
        }
        let listener = self.listeners.get_mut(&key).expect("`row` has created it");
        listener.last_ns = x.mono_ns;
        listener.backlog.backlog_max = Some(x.backlog_max);
        if x.accept_error.is_some() {
            listener.failed_accepts += 1;
            listener.set_reported_length(x.backlog_len.into());
            return;
        }
        listener.acceptor = Owner::of(&x.subject).or(listener.acceptor);
        listener.accept(x.mono_ns, window_s, x.accept_queue_ns, x.backlog_len.into());
        if let (Some(late), Some(ns)) = (&x.late, x.accept_queue_ns) {
            listener.late(x.mono_ns, window_s, Cause::of(late), ns);
        }
        let known_empty = listener.is_known_empty();
        let Some(conn) = x.subject.conn else { return };
        match self.take_waiting(conn) {
            Some(waiting) => {
                if let Some(listener) = self.listeners.get_mut(&waiting.listener) {
                    listener.leave();
                }
            }
            None if x.established_mono_ns.is_none() => {
                if self.early.len() < MOST_CONNECTIONS {
                    self.early.insert(conn);
                }
            }
            None => self.leave_untracked(key),
        }
        if known_empty {
            self.sweep(key);
        }
        if let (Some(verdict), Some(reason)) = (x.verdict, &x.reason) {
            if self.accept_verdicts.len() < MOST_CONNECTIONS {
                self.accept_verdicts.insert(conn, verdict);
            }
            self.add_verdict(x.mono_ns, &x.subject, verdict, reason);
        }
    }

    fn leave_untracked(&mut self, key: Key) {
        if self.untracked > 0 {
            self.untracked -= 1;
            if let Some(listener) = self.listeners.get_mut(&key) {
                listener.leave();
            }
        }
    }

    /// Removes connections that the trace shows as waiting although the kernel has reported an
    /// empty queue. They were waiting when events were last lost, and their accept() events were
    /// among the lost.
    fn sweep(&mut self, key: Key) {
        let Some(lost_ns) = self.lost_ns else { return };
        let before = self.waiting.range(..(lost_ns, u64::MAX));
        let gone: Vec<u64> = before
            .filter(|(_, waiting)| waiting.listener == key)
            .map(|(&(_, conn), _)| conn)
            .collect();
        for conn in gone {
            self.take_waiting(conn);
            if let Some(listener) = self.listeners.get_mut(&key) {
                listener.leave();
            }
        }
    }

    fn overflow(&mut self, x: &Overflow) {
        let of_listener = x.listener.and_then(|conn| self.by_conn.get(&conn).copied());
        let key = of_listener.or_else(|| self.key_of_child(&x.subject, None));
        if let Some(listener) = key.and_then(|key| self.row(key)) {
            listener.overflows += 1;
            listener.last_ns = x.mono_ns;
            if x.queue == ListenQueue::Accept {
                listener.set_reported_length(x.queue_len.into());
                listener.backlog.backlog_max = Some(x.queue_max);
            }
        }
    }

    fn connection(&mut self, x: &Connection) {
        let Some(conn) = x.subject.conn else { return };
        if x.subject.side == Some(Side::Client) {
            return;
        }
        self.no_longer_half_open(conn);
        self.early.remove(&conn);
        let known = self.accept_verdicts.remove(&conn);
        let key = self.key_of_child(&x.subject, x.listener);
        if self.since.contains_key(&conn) && x.closed_mono_ns.is_none() {
            // The connection still waits, but the trace has evicted it because too many were open.
            if let Some(waiting) = self.take_waiting(conn)
                && let Some(listener) = self.listeners.get_mut(&waiting.listener)
            {
                listener.leave();
            }
        } else if self.since.contains_key(&conn) {
            self.vanish(conn);
        } else if x.established_mono_ns.is_some()
            && x.accepted_mono_ns.is_none()
            && let Some(key) = key
        {
            self.leave_untracked(key);
        }
        if x.accepted_mono_ns.is_none()
            && let (Some(late), Some(since_ns)) = (&x.late, x.established_mono_ns)
        {
            let wait_ns = x.mono_ns.saturating_sub(since_ns);
            self.late(key, x.mono_ns, late, wait_ns);
        }
        if let (Some(verdict), Some(reason)) = (x.verdict, &x.reason)
            && known != Some(verdict)
        {
            if verdict == Verdict::NeverAccepted
                && let Some(listener) = key.and_then(|key| self.listeners.get_mut(&key))
            {
                listener.never_accepted += 1;
            }
            self.add_verdict(x.mono_ns, &x.subject, verdict, reason);
        }
    }

    fn late(&mut self, key: Option<Key>, mono_ns: u64, late: &Late, wait_ns: u64) {
        let window_s = self.window_s;
        if let Some(listener) = self.at(key) {
            listener.late(mono_ns, window_s, Cause::of(late), wait_ns);
        }
    }

    fn add_verdict(&mut self, mono_ns: u64, subject: &Subject, verdict: Verdict, reason: &str) {
        if self.verdicts.len() == MOST_VERDICTS {
            self.verdicts.pop_front();
        }
        self.verdicts.push_back(VerdictEntry {
            mono_ns,
            subject: subject.clone(),
            verdict,
            reason: shown(reason),
        });
    }

    /// Returns the view at `now_ns` (CLOCK_MONOTONIC, nanoseconds).
    pub fn view(&mut self, now_ns: u64) -> View {
        self.forget_closed(now_ns);
        let began_ns = self.session.as_ref().map_or(now_ns, |it| it.mono_ns);
        let (visible, window_s) = (self.visible, self.window_s);
        let all = self.listeners.iter_mut();
        let mut listeners: Vec<Row> = all
            .map(|(&key, listener)| {
                listener.row(Row::new(key), visible, now_ns, began_ns, window_s)
            })
            .collect();
        listeners.sort_by_key(|row| row.key.order());
        let unnamed = self.listeners.values().map(Listener::unnamed);
        let unnamed = unnamed.fold(0, u64::saturating_add);
        let waiting: Vec<Waiting> = self.waiting.values().take(MOST_SHOWN).cloned().collect();
        let session = self.session.as_ref();
        View {
            now_ns,
            began_ns,
            window_s,
            explains: self.explains,
            filters: session
                .into_iter()
                .flat_map(|it| &it.filters)
                .map(|(name, value)| (shown(name), shown(value)))
                .collect(),
            unseen: session
                .into_iter()
                .flat_map(|it| &it.unseen)
                .map(|what| shown(what))
                .collect(),
            lost: self.lost.clone(),
            listeners,
            left_out: self.left_out.len() as u64,
            waiting_more: (self.waiting.len() - waiting.len()) as u64 + self.untracked,
            waiting_unnamed: unnamed.saturating_sub(self.untracked),
            waiting,
            verdicts: self.verdicts.iter().rev().cloned().collect(),
        }
    }

    fn forget_closed(&mut self, now_ns: u64) {
        let is_old =
            |it: &Listener| it.closed && it.last_ns.saturating_add(CLOSED_FOR_NS) <= now_ns;
        let old: Vec<Key> = (self.listeners.extract_if(|_, it| is_old(it)))
            .map(|(key, _)| key)
            .collect();
        old.into_iter().for_each(|key| self.no_longer_at_port(key));
    }
}

fn shown(text: &str) -> String {
    printable(text).into_owned()
}
