//! Listeners: who they are, which of them a child belongs to, and what happened at each.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::accept_queue::{AcceptQueue, Full};
use super::backlog;
use super::handshake::Sight;
use super::socket::{Owner, Socket};
use super::stats::Stats;
use crate::event::{Sk, State, Tuple};
use crate::fields::{Backlog, ListenerSummary, Side, Subject};

/// Upper bound on closed listeners that have a row of their own in the summary, and on the rows
/// that those beyond it share.
const MANY: usize = 1024;

/// Every listener of the trace. Those that closed last stay for the summary; the earlier ones are
/// folded together.
pub struct Listeners {
    all: FxHashMap<ListenerId, Listener>,
    /// Closed listeners, oldest close first.
    closed: VecDeque<ListenerId>,
    /// The last listener at each pointer. It stays after its end, as an accept() that was under
    /// way returns after it, until the pointer is born again or the listener is folded.
    at_sk: FxHashMap<Sk, ListenerId>,
    /// By network namespace and port.
    at_port: FxHashMap<(u32, u16), Vec<ListenerId>>,
    /// The network namespaces that have had one.
    namespaces: BTreeSet<u32>,
    /// Listeners whose accept queue is full now.
    full: Vec<ListenerId>,
    /// Counts that belong to no listener of `all`: of folded ones, and of connections whose listener
    /// is not known.
    places: FxHashMap<Place, Folded>,
    /// The sums of all places beyond [`MANY`].
    elsewhere: Folded,
    /// [`MANY`], or less in tests.
    limit: usize,
}

/// Number of a listener in the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ListenerId(u64);

/// Network namespace and own end.
type Place = (u32, IpAddr, Option<u16>);

pub struct Listener {
    pub socket: Socket,
    sk: Sk,
    /// `None`: before the trace.
    opened_ns: Option<u64>,
    closed_ns: Option<u64>,
    /// True once a line has shown the listener: its transition to LISTEN, or its `preexisting` line.
    announced: bool,
    /// The limit of its queues, as last seen.
    pub backlog: Backlog,
    pub queue: AcceptQueue,
    /// The address that the last child was reached at.
    reached_at: Option<IpAddr>,
    /// The length of its accept queue as the last look at the sockets found it.
    pub queued: Option<u32>,
    stats: Stats,
}

/// Sums over listeners that share one row of the summary.
#[derive(Default)]
struct Folded {
    listeners: u64,
    stats: Stats,
}

impl ListenerId {
    pub fn conn(self) -> u64 {
        self.0
    }
}

impl Listener {
    /// Notes that a line says what this listener is; false when one did already.
    pub fn announce(&mut self) -> bool {
        !std::mem::replace(&mut self.announced, true)
    }

    fn listened_at(&self, ns: u64) -> bool {
        self.opened_ns.is_none_or(|opened| opened <= ns)
            && self.closed_ns.is_none_or(|closed| ns <= closed)
    }

    /// Whether the summary has a row for it. One that is older than the trace and that nobody used
    /// has its line already.
    fn has_row(&self, is_shown: impl Fn(u64) -> bool) -> bool {
        !self.stats.is_empty() || (self.opened_ns.is_some() && is_shown(self.socket.conn))
    }
}

impl Default for Listeners {
    fn default() -> Listeners {
        Listeners::of_size(MANY)
    }
}

impl Listeners {
    /// Keeps so many closed listeners.
    pub fn of_size(limit: usize) -> Listeners {
        Listeners {
            all: FxHashMap::default(),
            closed: VecDeque::new(),
            at_sk: FxHashMap::default(),
            at_port: FxHashMap::default(),
            namespaces: BTreeSet::new(),
            full: vec![],
            places: FxHashMap::default(),
            elsewhere: Folded::default(),
            limit,
        }
    }

    /// Adds a listener. `opened_ns` is `None` for one that began before the trace.
    pub fn open(&mut self, sk: Sk, socket: Socket, opened_ns: Option<u64>) -> ListenerId {
        let id = ListenerId(socket.conn);
        self.at_sk.insert(sk, id);
        self.namespaces.insert(socket.netns);
        let listener = Listener {
            socket,
            sk,
            opened_ns,
            closed_ns: None,
            announced: opened_ns.is_some(),
            backlog: Backlog::default(),
            queue: AcceptQueue::default(),
            reached_at: None,
            queued: None,
            stats: Stats::default(),
        };
        self.all.insert(id, listener);
        self.index(id);
        id
    }

    /// Makes a listener findable by its port, if that is known by now.
    fn index(&mut self, id: ListenerId) {
        let Some(listener) = self.all.get(&id) else {
            return;
        };
        let Some(port) = listener.socket.tuple.lport else {
            return;
        };
        let all = &self.all;
        let is_open = |id: &ListenerId| all.get(id).is_some_and(|it| it.closed_ns.is_none());
        let ids = self
            .at_port
            .entry((listener.socket.netns, port))
            .or_default();
        // A port that is opened again and again would grow this list, and the search in it.
        ids.retain(|other| *other != id && is_open(other));
        ids.push(id);
    }

    pub fn at_sk(&self, sk: Sk) -> Option<ListenerId> {
        self.at_sk.get(&sk).copied()
    }

    /// `None` when it has closed and was folded.
    pub fn get(&self, id: ListenerId) -> Option<&Listener> {
        self.all.get(&id)
    }

    pub fn get_mut(&mut self, id: ListenerId) -> Option<&mut Listener> {
        self.all.get_mut(&id)
    }

    /// The listener at a pointer that listens now and did at this time.
    pub fn open_at(&self, sk: Sk, ns: u64) -> Option<ListenerId> {
        let id = self.at_sk(sk)?;
        let listener = self.get(id)?;
        (listener.closed_ns.is_none() && listener.listened_at(ns)).then_some(id)
    }

    /// The owners of those that listen.
    pub fn open_owners(&mut self) -> impl Iterator<Item = &mut Owner> {
        let open = self.all.values_mut().filter(|it| it.closed_ns.is_none());
        open.filter_map(|it| it.socket.owner.as_mut())
    }

    pub fn is_closed(&self, id: ListenerId) -> bool {
        self.get(id).is_none_or(|it| it.closed_ns.is_some())
    }

    /// A listener's own end, as an event shows it. The kernel chooses the port of an unbound
    /// socket only after CLOSE→LISTEN.
    pub fn learn(&mut self, id: ListenerId, tuple: &Tuple) {
        let Some(Listener { socket, .. }) = self.all.get_mut(&id) else {
            return;
        };
        let port_was_known = socket.tuple.lport.is_some();
        socket.learn(tuple, None);
        if !port_was_known {
            self.index(id);
        }
    }

    /// The limit of a listener's queues, as an event shows it.
    pub fn limited(&mut self, id: ListenerId, max: u32) {
        if let Some(Listener { backlog, .. }) = self.all.get_mut(&id) {
            *backlog = backlog::now(*backlog, max);
        }
    }

    pub fn close(&mut self, id: ListenerId, mono_ns: u64) {
        if let Some(listener) = self.all.get_mut(&id)
            && listener.closed_ns.is_none()
        {
            listener.closed_ns = Some(mono_ns);
            listener.queue.ends(mono_ns);
            self.full.retain(|it| *it != id);
            self.closed.push_back(id);
        }
    }

    /// An event shows how many connections a listener's accept queue holds.
    pub fn queue_holds(&mut self, id: ListenerId, mono_ns: u64, held: u32, limit: u32) {
        let Some(Listener { queue, .. }) = self.all.get_mut(&id) else {
            return;
        };
        queue.holds(mono_ns, held, limit);
        let is_full = queue.full().is_some();
        match (is_full, self.full.contains(&id)) {
            (true, false) => self.full.push(id),
            (false, true) => self.full.retain(|it| *it != id),
            _ => {}
        }
    }

    /// A child of this listener is put into its accept queue, behind `ahead` others.
    pub fn queues(&mut self, id: ListenerId, mono_ns: u64, child: &Tuple, ahead: u32, limit: u32) {
        if let Some(listener) = self.all.get_mut(&id) {
            listener.reached_at = Some(child.laddr);
        }
        self.queue_holds(id, mono_ns, ahead.saturating_add(1), limit);
    }

    /// The numbers of those listeners of a namespace whose accept queue was full since this was
    /// last asked.
    pub fn full_since_last_reading(&mut self, netns: u32) -> Vec<u64> {
        let here = self.all.values_mut().filter(|it| it.socket.netns == netns);
        let full = here.filter_map(|it| it.queue.was_full().then_some(it.socket.conn));
        let mut full: Vec<u64> = full.collect();
        full.sort_unstable();
        full
    }

    /// The listener that a client on this host calls, if its accept queue is full now.
    pub fn full_for(&self, client: &Socket) -> Option<(u64, Full)> {
        if self.full.is_empty() {
            return None;
        }
        let (called, port) = (client.tuple.raddr?, client.tuple.rport?);
        let mut all = self.full.iter().filter_map(|&id| {
            let listener = self.get(id)?;
            let (netns, own) = (listener.socket.netns, &listener.socket.tuple);
            let is_here = netns == client.netns;
            // A listener at a wildcard address is called only at addresses of its own host.
            let is_its_address = own.laddr == called
                || listener.reached_at == Some(called)
                || (is_here && (called.is_loopback() || called == client.tuple.laddr));
            let is_called = own.lport == Some(port)
                && is_its_address
                && (is_here || !called.is_loopback())
                && self.is_only_candidate(id, netns, called, port);
            let full = listener.queue.full()?;
            is_called.then_some((is_here, listener.socket.conn, full))
        });
        // Namespaces may use the same addresses: the client's own comes first, else one may answer.
        let first = all.next()?;
        let one = match all.find(|(is_here, ..)| *is_here) {
            Some(here) if !first.0 => here,
            Some(_) => return None,
            None => first,
        };
        (one.0 || self.full.len() == 1).then_some((one.1, one.2))
    }

    /// Whether the kernel can give a connection to this address to no other listener.
    fn is_only_candidate(&self, id: ListenerId, netns: u32, called: IpAddr, port: u16) -> bool {
        let own = Tuple {
            laddr: called,
            lport: Some(port),
            raddr: None,
            rport: None,
        };
        let child = Socket::found(0, Some(Side::Server), netns, own, State::Listen);
        let mut candidates = self.candidates(&child, u64::MAX);
        candidates.all(|it| it == id)
    }

    /// The network namespaces that have had a listener.
    pub fn namespaces(&self) -> &BTreeSet<u32> {
        &self.namespaces
    }

    /// The pointer's next life has begun; the listener that lived there is over.
    pub fn vacate(&mut self, sk: Sk, mono_ns: u64) {
        if let Some(id) = self.at_sk.remove(&sk) {
            self.close(id, mono_ns);
        }
    }

    /// Folds the listener that closed first, if too many have; gives its number.
    pub fn fold(&mut self, is_shown: impl Fn(u64) -> bool) -> Option<u64> {
        if self.closed.len() <= self.limit {
            return None;
        }
        let id = self.closed.pop_front()?;
        let listener = self.all.remove(&id)?;
        if self.at_sk.get(&listener.sk) == Some(&id) {
            self.at_sk.remove(&listener.sk);
        }
        let Socket { netns, tuple, .. } = listener.socket;
        if let Some(port) = tuple.lport
            && let Some(ids) = self.at_port.get_mut(&(netns, port))
        {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.at_port.remove(&(netns, port));
            }
        }
        if listener.has_row(is_shown) {
            let folded = self.place((netns, tuple.laddr, tuple.lport));
            folded.listeners += 1;
            folded.stats.add(listener.stats);
        }
        Some(id.conn())
    }

    /// The listener at a pointer that a child born at this time was cloned from, or that a request
    /// or a segment of this time was for.
    pub fn of_pointer(&self, sk: Sk, netns: u32, mono_ns: u64) -> Option<ListenerId> {
        self.at_sk(sk).filter(|&id| {
            let listener = self.get(id);
            listener.is_some_and(|it| it.socket.netns == netns && it.listened_at(mono_ns))
        })
    }

    /// The listener that a child born at `born_ns` was cloned from, going by its address, if only
    /// one can be: listeners may share an address (SO_REUSEPORT). Of several, the one that has
    /// closed if `dropped`: only a listener that closes drops a child.
    pub fn of_child(&self, child: &Socket, born_ns: u64, dropped: bool) -> Option<ListenerId> {
        let only = |mut candidates: Box<dyn Iterator<Item = ListenerId> + '_>| {
            let first = candidates.next()?;
            candidates.next().is_none().then_some(first)
        };
        let all = self.candidates(child, born_ns);
        only(Box::new(all)).or_else(|| {
            let closed = self.candidates(child, born_ns);
            let closed = closed.filter(|&id| dropped && self.is_closed(id));
            only(Box::new(closed))
        })
    }

    /// Whether every listener that the child can come from has closed, and there is one; for a
    /// `dropped` child, whether any of them has.
    pub fn closed_for(&self, child: &Socket, born_ns: u64, dropped: bool) -> bool {
        let mut candidates = self.candidates(child, born_ns).peekable();
        if dropped {
            return candidates.any(|id| self.is_closed(id));
        }
        candidates.peek().is_some() && candidates.all(|id| self.is_closed(id))
    }

    /// The listeners at the child's birth that match its own end best.
    fn candidates(&self, child: &Socket, born_ns: u64) -> impl Iterator<Item = ListenerId> {
        let laddr = child.tuple.laddr;
        let at_port = child
            .tuple
            .lport
            .and_then(|port| self.at_port.get(&(child.netns, port)));
        let matches = move || {
            at_port.into_iter().flatten().filter_map(move |&id| {
                let listener = self.get(id)?;
                let rank = match_rank(listener.socket.tuple.laddr, laddr)?;
                // Two links may use the same link-local address.
                if let (Some(its), Some(own)) = (listener.socket.scope, child.scope)
                    && its != own
                {
                    return None;
                }
                listener.listened_at(born_ns).then_some((rank, id))
            })
        };
        let best = matches().map(|(rank, _)| rank).min();
        matches().filter_map(move |(rank, id)| (Some(rank) == best).then_some(id))
    }

    /// The counts that belong to a connection or a failed accept at this end.
    pub fn stats(&mut self, listener: Option<ListenerId>, netns: u32, own: &Tuple) -> &mut Stats {
        match listener.filter(|id| self.all.contains_key(id)) {
            Some(id) => &mut self.all.get_mut(&id).expect("it is there").stats,
            None => &mut self.place((netns, own.laddr, own.lport)).stats,
        }
    }

    fn place(&mut self, place: Place) -> &mut Folded {
        if self.places.len() >= self.limit && !self.places.contains_key(&place) {
            return &mut self.elsewhere;
        }
        self.places.entry(place).or_default()
    }

    /// The same, of a line about it.
    pub fn stats_of(&mut self, listener: Option<ListenerId>, of: &Subject) -> &mut Stats {
        let own = Tuple {
            laddr: of.laddr,
            lport: of.lport,
            raddr: None,
            rport: None,
        };
        self.stats(listener, of.netns, &own)
    }

    /// What happened at each listener, by port, address and number; where nothing did that counts,
    /// only of those that are shown.
    pub fn summarize(self, sight: Sight, is_shown: impl Fn(u64) -> bool) -> Vec<ListenerSummary> {
        let listeners = self.all.into_values();
        let used = listeners.filter(|it| it.has_row(&is_shown));
        let listeners = used.map(|listener| {
            let Socket {
                conn,
                netns,
                tuple,
                scope,
                ..
            } = listener.socket;
            let of = ListenerSummary {
                scope_id: scope,
                backlog: listener.backlog,
                ..summary(Some(conn), netns, tuple.laddr, tuple.lport)
            };
            listener.stats.summarize(of, sight)
        });
        let nowhere = (0, Ipv6Addr::UNSPECIFIED.into(), None);
        let elsewhere = Some((nowhere, self.elsewhere))
            .filter(|(_, it)| it.listeners > 0 || !it.stats.is_empty());
        let others = self.places.into_iter().chain(elsewhere);
        let others = others.map(|((netns, laddr, lport), folded)| {
            let of = ListenerSummary {
                folded: folded.listeners,
                ..summary(None, netns, laddr, lport)
            };
            folded.stats.summarize(of, sight)
        });
        let mut all: Vec<ListenerSummary> = listeners.chain(others).collect();
        all.sort_by_key(|l| (l.lport, l.laddr, l.conn, l.netns));
        all
    }
}

fn summary(conn: Option<u64>, netns: u32, laddr: IpAddr, lport: Option<u16>) -> ListenerSummary {
    ListenerSummary {
        conn,
        laddr,
        lport,
        scope_id: None,
        netns,
        connections: 0,
        accepted: 0,
        never_accepted: 0,
        failed_accepts: 0,
        folded: 0,
        half_open_failed: None,
        overflows: None,
        backlog: Backlog::default(),
        accept_queue_p50_ns: None,
        accept_queue_p99_ns: None,
        accept_queue_max_ns: None,
    }
}

/// Ranks how well a listener's address fits a child's, best first; `None` if it does not. The kernel asks
/// in this order (`inet_lookup_listener`, net/ipv4/inet_hashtables.c): the address itself, the
/// wildcard of its family, then for IPv4 the wildcard of a dual-stack IPv6 socket.
pub fn match_rank(listener: IpAddr, child: IpAddr) -> Option<u8> {
    let any4 = listener == IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let any6 = listener == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    match child {
        _ if listener == child => Some(0),
        IpAddr::V4(_) if any4 => Some(1),
        IpAddr::V4(_) if any6 => Some(2),
        IpAddr::V6(_) if any6 => Some(1),
        _ => None,
    }
}
