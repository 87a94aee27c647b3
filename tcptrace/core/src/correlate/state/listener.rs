//! Listeners: their identity, their statistics, and the matching of child sockets to them.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::accept_queue::{AcceptQueue, Full};
use super::backlog;
use super::handshake::Visibility;
use super::socket::{Owner, Socket};
use super::stats::Stats;
use crate::event::{Sk, State, Tuple};
use crate::fields::{Backlog, ListenerSummary, Side, Subject};

/// Upper bound on closed listeners that have their own row in the summary. Also the upper bound on
/// the rows that listeners folded earlier share.
const MANY: usize = 1024;

/// All listeners of the trace. The listeners that closed last are kept for the summary. The counts
/// of those that closed earlier are folded: added up per local address and port.
pub struct Listeners {
    all: FxHashMap<ListenerId, Listener>,
    /// Closed listeners, oldest close first.
    closed: VecDeque<ListenerId>,
    /// The last listener at each kernel address of a socket. It is kept after its end, because an
    /// accept() in progress returns later. It is removed when the address is reused or the listener
    /// is folded.
    at_sk: FxHashMap<Sk, ListenerId>,
    /// By network namespace and port.
    at_port: FxHashMap<(u32, u16), Vec<ListenerId>>,
    /// The network namespaces that have had a listener.
    namespaces: BTreeSet<u32>,
    /// Listeners whose accept queue is full.
    full: Vec<ListenerId>,
    /// Counts that belong to no listener in `all`: those of folded listeners, and those of
    /// connections whose listener is unknown.
    places: FxHashMap<Place, Folded>,
    /// The sums over all places that came after the first [`MANY`].
    elsewhere: Folded,
    /// [`MANY`], or less in tests.
    limit: usize,
}

/// Number of a listener in the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ListenerId(u64);

/// Network namespace, local address and local port.
type Place = (u32, IpAddr, Option<u16>);

pub struct Listener {
    pub socket: Socket,
    sk: Sk,
    /// `None` if it was opened before the trace.
    opened_ns: Option<u64>,
    closed_ns: Option<u64>,
    /// True once a line has shown the listener: its transition to LISTEN, or its `preexisting` line.
    announced: bool,
    /// The last known limit of its queues.
    pub backlog: Backlog,
    pub queue: AcceptQueue,
    /// The local address of its last child socket.
    reached_at: Option<IpAddr>,
    /// The length of its accept queue in the last snapshot.
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
    /// Returns the kernel address of the listener's socket.
    pub fn sk(&self) -> Sk {
        self.sk
    }

    /// Notes that a line describes this listener; returns false if an earlier line did.
    pub fn announce(&mut self) -> bool {
        !std::mem::replace(&mut self.announced, true)
    }

    fn listened_at(&self, ns: u64) -> bool {
        self.opened_ns.is_none_or(|opened| opened <= ns)
            && self.closed_ns.is_none_or(|closed| ns <= closed)
    }

    /// Returns whether the summary has a row for the listener. A listener that is older than the
    /// trace and had no events has only its `preexisting` line.
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
    /// Makes a collection that keeps at most `limit` closed listeners.
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

    /// Adds a listener to the index by port, once its port is known.
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
        // Without this, a port that is opened and closed repeatedly would make the list long and
        // its search slow.
        ids.retain(|other| *other != id && is_open(other));
        ids.push(id);
    }

    pub fn at_sk(&self, sk: Sk) -> Option<ListenerId> {
        self.at_sk.get(&sk).copied()
    }

    /// Returns a listener; `None` if it was folded after its close.
    pub fn get(&self, id: ListenerId) -> Option<&Listener> {
        self.all.get(&id)
    }

    pub fn get_mut(&mut self, id: ListenerId) -> Option<&mut Listener> {
        self.all.get_mut(&id)
    }

    /// Returns the listener at a kernel address that is open now and was open at `ns`.
    pub fn open_at(&self, sk: Sk, ns: u64) -> Option<ListenerId> {
        let id = self.at_sk(sk)?;
        let listener = self.get(id)?;
        (listener.closed_ns.is_none() && listener.listened_at(ns)).then_some(id)
    }

    /// Returns the owners of open listeners.
    pub fn open_owners(&mut self) -> impl Iterator<Item = &mut Owner> {
        let open = self.all.values_mut().filter(|it| it.closed_ns.is_none());
        open.filter_map(|it| it.socket.owner.as_mut())
    }

    pub fn is_closed(&self, id: ListenerId) -> bool {
        self.get(id).is_none_or(|it| it.closed_ns.is_some())
    }

    /// Updates the local address and port of a listener. The kernel chooses the port of an unbound
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

    /// Updates the limit of a listener's queues.
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
            listener.queue.close(mono_ns);
            self.full.retain(|it| *it != id);
            self.closed.push_back(id);
        }
    }

    /// Updates the length of a listener's accept queue.
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

    /// Notes that a child socket is put into its listener's accept queue, behind `ahead` others.
    pub fn queues(&mut self, id: ListenerId, mono_ns: u64, child: &Tuple, ahead: u32, limit: u32) {
        if let Some(listener) = self.all.get_mut(&id) {
            listener.reached_at = Some(child.laddr);
        }
        self.queue_holds(id, mono_ns, ahead.saturating_add(1), limit);
    }

    /// Returns the numbers of the listeners of a namespace whose accept queue was full at some time
    /// since the last call.
    pub fn full_since_last_reading(&mut self, netns: u32) -> Vec<u64> {
        let here = self.all.values_mut().filter(|it| it.socket.netns == netns);
        let full = here.filter_map(|it| it.queue.was_full().then_some(it.socket.conn));
        let mut full: Vec<u64> = full.collect();
        full.sort_unstable();
        full
    }

    /// Returns the listener that a client on this host connects to, if its accept queue is full.
    pub fn full_for(&self, client: &Socket) -> Option<(u64, Full)> {
        if self.full.is_empty() {
            return None;
        }
        let (called, port) = (client.tuple.raddr?, client.tuple.rport?);
        let mut all = self.full.iter().filter_map(|&id| {
            let listener = self.get(id)?;
            let (netns, own) = (listener.socket.netns, &listener.socket.tuple);
            let is_here = netns == client.netns;
            // A listener at a wildcard address is reached only at addresses of the listener's own
            // host.
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
        // Namespaces may use the same addresses. The client's own namespace comes first; otherwise
        // only one listener may match.
        let first = all.next()?;
        let one = match all.find(|(is_here, ..)| *is_here) {
            Some(here) if !first.0 => here,
            Some(_) => return None,
            None => first,
        };
        (one.0 || self.full.len() == 1).then_some((one.1, one.2))
    }

    /// Returns whether the kernel can give a connection to this address to this listener only.
    fn is_only_candidate(&self, id: ListenerId, netns: u32, called: IpAddr, port: u16) -> bool {
        let own = Tuple {
            laddr: called,
            lport: Some(port),
            raddr: None,
            rport: None,
        };
        let child = Socket::with_state(0, Some(Side::Server), netns, own, State::Listen);
        let mut candidates = self.candidates(&child, u64::MAX);
        candidates.all(|it| it == id)
    }

    /// Returns the network namespaces that have had a listener.
    pub fn namespaces(&self) -> &BTreeSet<u32> {
        &self.namespaces
    }

    /// Ends the listener at a kernel address because another socket uses the address now.
    pub fn free_address(&mut self, sk: Sk, mono_ns: u64) {
        if let Some(id) = self.at_sk.remove(&sk) {
            self.close(id, mono_ns);
        }
    }

    /// Folds the listener that closed first if too many have closed; returns its connection number.
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

    /// Returns the listener at a kernel address that was open at `mono_ns`. It is the listener of a
    /// child socket born then, or of a request socket or segment of that time.
    pub fn of_pointer(&self, sk: Sk, netns: u32, mono_ns: u64) -> Option<ListenerId> {
        self.at_sk(sk).filter(|&id| {
            let listener = self.get(id);
            listener.is_some_and(|it| it.socket.netns == netns && it.listened_at(mono_ns))
        })
    }

    /// Returns the listener that a child socket born at `born_ns` was cloned from, if only one
    /// matches its local address. Listeners may share an address (SO_REUSEPORT). If several match
    /// and the kernel `dropped` the child from an accept queue, returns the only closed one. Only a
    /// closing listener drops a child.
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

    /// Returns whether every listener that matches the child socket has closed, and at least one
    /// matches. For a child `dropped` from an accept queue, returns whether any of them has closed.
    pub fn closed_for(&self, child: &Socket, born_ns: u64, dropped: bool) -> bool {
        let mut candidates = self.candidates(child, born_ns).peekable();
        if dropped {
            return candidates.any(|id| self.is_closed(id));
        }
        candidates.peek().is_some() && candidates.all(|id| self.is_closed(id))
    }

    /// Returns the listeners that best match the child socket's local address at its birth.
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

    /// Returns the counts for a connection or a failed accept() with this local address.
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

    /// Like `stats`, for the subject of a line.
    pub fn stats_of(&mut self, listener: Option<ListenerId>, of: &Subject) -> &mut Stats {
        let own = Tuple {
            laddr: of.laddr,
            lport: of.lport,
            raddr: None,
            rport: None,
        };
        self.stats(listener, of.netns, &own)
    }

    /// Returns the summary of each listener, sorted by port, address and connection number. A
    /// listener without counted events is included only if `is_shown`.
    pub fn summarize(
        self,
        visibility: Visibility,
        is_shown: impl Fn(u64) -> bool,
    ) -> Vec<ListenerSummary> {
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
            listener.stats.summarize(of, visibility)
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
            folded.stats.summarize(of, visibility)
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
        late: None,
    }
}

/// Ranks how well a listener's address matches a child's, best first; `None` if it does not match.
/// The kernel uses this order (`inet_lookup_listener`, net/ipv4/inet_hashtables.c): the address
/// itself, the wildcard of its family, then for IPv4 the wildcard of a dual-stack IPv6 socket.
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
