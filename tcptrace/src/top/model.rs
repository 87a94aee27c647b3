//! What `tcptrace top` knows: lines in, a [`View`] out. No clock: times are arguments.
//!
//! Everything is bounded. What is left out is counted, and the view says so.

mod listener;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, VecDeque};

use rustc_hash::{FxHashMap, FxHashSet};

use self::listener::Listener;
pub use self::view::{Depth, Key, Owner, Row, Told, View, Waiting};
use crate::correlate::match_rank;
use crate::event::{Hook, ListenQueue, State};
use crate::fields::{
    Accept, Connection, Kind, Line, Overflow, PidSource, Preexisting, Session, Side, Subject,
    Transition, Verdict, Wanted, Why,
};
use crate::printable::printable;

/// Listening addresses.
const MOST_LISTENERS: usize = 1024;

/// Connections that are followed one by one.
const MOST_CONNECTIONS: usize = 16_384;

/// Waiting connections in a view, the longest first.
const MOST_SHOWN: usize = 1000;

const MOST_VERDICTS: usize = 200;

/// How many seconds a sparkline goes back.
pub const SPARK_S: u64 = 60;

/// A listener that has closed is shown for so long.
const CLOSED_FOR_NS: u64 = 10_000_000_000;

/// What the hooks of this trace can show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    pub accepts: bool,
    pub requests: bool,
    pub overflows: bool,
}

/// A trace as it is now.
pub struct Model {
    /// How many seconds back rates and quantiles look.
    window_s: u64,
    session: Option<Session>,
    sight: Sight,
    listeners: FxHashMap<Key, Listener>,
    /// The same by port, to find that of a connection.
    at_port: FxHashMap<(u32, u16), Vec<Key>>,
    /// By `conn` of their sockets.
    by_conn: FxHashMap<u64, Key>,
    /// Sockets of listeners that there was no room for.
    left_out: FxHashSet<u64>,
    /// ESTABLISHED and not accepted, by when and `conn`.
    waiting: BTreeMap<(u64, u64), Waiting>,
    since: FxHashMap<u64, u64>,
    /// Those that there was no room for.
    untracked: u64,
    half_open: FxHashMap<u64, Key>,
    /// Accepted before they were seen to become ESTABLISHED.
    early: FxHashSet<u64>,
    verdicts: VecDeque<Told>,
    /// The verdicts that accept() has told of connections that are open.
    told: FxHashMap<u64, Verdict>,
    lost: Vec<((Hook, Why), u64)>,
    lost_ns: Option<u64>,
}

impl Model {
    pub fn new(window_s: u64) -> Model {
        Model {
            window_s,
            session: None,
            sight: Sight::default(),
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
            told: FxHashMap::default(),
            lost: vec![],
            lost_ns: None,
        }
    }

    /// The lines that it learns from.
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
            | Line::Summary(_) => {}
        }
    }

    fn session(&mut self, x: &Session) {
        let attached = |hook| matches!(x.hooks.get(&hook), Some(Some(_)));
        self.sight = Sight {
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

    /// A listener's row, made if it must be and can be.
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

    /// A listener that was known by a connection to it has told its own address.
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

    /// The row with this address; `None` when there is no room for it.
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

    /// The address that a server's connection was made at: that of its listener if a line names it,
    /// or of the one which fits best, or its own where none is known.
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
                // Its process closes it: an accept() that no hook could see has taken it.
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

    /// One that waited is gone, and no accept() was seen to take it.
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
        // The trace has not met the listener before, or its line was filtered out.
        if let (Some(conn), None) = (x.listener, of_listener) {
            listener.met(conn);
            self.by_conn.insert(conn, key);
        }
        let listener = self.listeners.get_mut(&key).expect("a row that is there");
        listener.last_ns = x.mono_ns;
        listener.backlog.backlog_max = Some(x.backlog_max);
        if x.accept_error.is_some() {
            listener.failed_accepts += 1;
            listener.kernel_says(x.backlog_len.into());
            return;
        }
        listener.acceptor = Owner::of(&x.subject).or(listener.acceptor);
        listener.accept(x.mono_ns, window_s, x.accept_queue_ns, x.backlog_len.into());
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
            if self.told.len() < MOST_CONNECTIONS {
                self.told.insert(conn, verdict);
            }
            self.tell(x.mono_ns, &x.subject, verdict, reason);
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

    /// The kernel says that a queue is empty: what was taken for waiting since before the last loss
    /// has been accepted, and the event that said so was lost.
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
                listener.kernel_says(x.queue_len.into());
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
        let told = self.told.remove(&conn);
        let key = self.key_of_child(&x.subject, x.listener);
        if self.since.contains_key(&conn) && x.closed_mono_ns.is_none() {
            // It waits on, but the trace follows it no more: too many were open.
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
        if let (Some(verdict), Some(reason)) = (x.verdict, &x.reason)
            && told != Some(verdict)
        {
            if verdict == Verdict::NeverAccepted
                && let Some(listener) = key.and_then(|key| self.listeners.get_mut(&key))
            {
                listener.never_accepted += 1;
            }
            self.tell(x.mono_ns, &x.subject, verdict, reason);
        }
    }

    fn tell(&mut self, mono_ns: u64, subject: &Subject, verdict: Verdict, reason: &str) {
        if self.verdicts.len() == MOST_VERDICTS {
            self.verdicts.pop_front();
        }
        self.verdicts.push_back(Told {
            mono_ns,
            subject: subject.clone(),
            verdict,
            reason: shown(reason),
        });
    }

    /// What is there to see now (CLOCK_MONOTONIC, nanoseconds).
    pub fn view(&mut self, now_ns: u64) -> View {
        self.forget_closed(now_ns);
        let began_ns = self.session.as_ref().map_or(now_ns, |it| it.mono_ns);
        let (sight, window_s) = (self.sight, self.window_s);
        let all = self.listeners.iter_mut();
        let mut listeners: Vec<Row> = all
            .map(|(&key, listener)| listener.row(Row::new(key), sight, now_ns, began_ns, window_s))
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
