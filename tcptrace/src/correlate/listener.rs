//! Listeners: who they are, which of them a child belongs to, and what happened at each.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::accept_queue::{AcceptQueue, Full};
use super::backlog;
use super::request::Sight;
use super::socket::{Owner, Socket};
use super::stats::Stats;
use crate::event::{Sk, State, Tuple};
use crate::fields::{Backlog, ListenerSummary, Side, Subject};

/// Every listener of the trace; one that has closed stays for the summary.
#[derive(Default)]
pub(super) struct Listeners {
    all: Vec<Listener>,
    /// The last listener at each pointer. It stays after its end, as an accept() that was under
    /// way returns after it, until the pointer is born again.
    at_sk: FxHashMap<Sk, ListenerId>,
    /// By network namespace and port.
    at_port: FxHashMap<(u32, u16), Vec<ListenerId>>,
    /// The network namespaces that have had one.
    namespaces: BTreeSet<u32>,
    /// Those whose accept queue is full now.
    full: Vec<ListenerId>,
    /// What cannot be laid at one listener's door, by network namespace and own end.
    unattributed: FxHashMap<(u32, IpAddr, Option<u16>), Stats>,
}

/// Index of a listener in [`Listeners`].
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ListenerId(usize);

pub(super) struct Listener {
    pub socket: Socket,
    /// `None`: before the trace.
    opened_ns: Option<u64>,
    closed_ns: Option<u64>,
    /// Its line has been written: that of its beginning, or that of what is older than the trace.
    announced: bool,
    /// The limit of its queues, as last seen.
    pub backlog: Backlog,
    pub queue: AcceptQueue,
    /// The address that the last child was reached at.
    reached_at: Option<IpAddr>,
    stats: Stats,
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
}

impl Listeners {
    /// Adds a listener. `opened_ns` is `None` for one that began before the trace.
    pub fn open(&mut self, sk: Sk, socket: Socket, opened_ns: Option<u64>) -> ListenerId {
        let id = ListenerId(self.all.len());
        self.at_sk.insert(sk, id);
        self.namespaces.insert(socket.netns);
        self.all.push(Listener {
            socket,
            opened_ns,
            closed_ns: None,
            announced: opened_ns.is_some(),
            backlog: Backlog::default(),
            queue: AcceptQueue::default(),
            reached_at: None,
            stats: Stats::default(),
        });
        self.index(id);
        id
    }

    /// Makes a listener findable by its port, if that is known by now.
    fn index(&mut self, id: ListenerId) {
        let socket = &self.all[id.0].socket;
        let Some(port) = socket.tuple.lport else {
            return;
        };
        let ids = self.at_port.entry((socket.netns, port)).or_default();
        // A port that is opened again and again would grow this list, and the search in it.
        ids.retain(|&other| other != id && self.all[other.0].closed_ns.is_none());
        ids.push(id);
    }

    pub fn at_sk(&self, sk: Sk) -> Option<ListenerId> {
        self.at_sk.get(&sk).copied()
    }

    pub fn get(&self, id: ListenerId) -> &Listener {
        &self.all[id.0]
    }

    pub fn get_mut(&mut self, id: ListenerId) -> &mut Listener {
        &mut self.all[id.0]
    }

    /// The listener at a pointer that listens now and did at this time.
    pub fn open_at(&self, sk: Sk, ns: u64) -> Option<ListenerId> {
        let id = self.at_sk(sk)?;
        let listener = self.get(id);
        (listener.closed_ns.is_none() && listener.listened_at(ns)).then_some(id)
    }

    /// The owners of those that listen.
    pub fn open_owners(&mut self) -> impl Iterator<Item = &mut Owner> {
        let open = self.all.iter_mut().filter(|it| it.closed_ns.is_none());
        open.filter_map(|it| it.socket.owner.as_mut())
    }

    pub fn is_closed(&self, id: ListenerId) -> bool {
        self.get(id).closed_ns.is_some()
    }

    /// A listener's own end, as an event shows it. The kernel chooses the port of an unbound
    /// socket only after CLOSE→LISTEN.
    pub fn learn(&mut self, id: ListenerId, tuple: &Tuple) {
        let socket = &mut self.all[id.0].socket;
        let port_was_known = socket.tuple.lport.is_some();
        socket.learn(tuple, None);
        if !port_was_known {
            self.index(id);
        }
    }

    /// The limit of a listener's queues, as an event shows it.
    pub fn limited(&mut self, id: ListenerId, max: u32) {
        let backlog = &mut self.all[id.0].backlog;
        *backlog = backlog::now(*backlog, max);
    }

    pub fn close(&mut self, id: ListenerId, mono_ns: u64) {
        self.all[id.0].closed_ns.get_or_insert(mono_ns);
        self.all[id.0].queue.ends(mono_ns);
        self.full.retain(|it| *it != id);
    }

    /// An event shows how many connections a listener's accept queue holds.
    pub fn queue_holds(&mut self, id: ListenerId, mono_ns: u64, held: u32, limit: u32) {
        let queue = &mut self.all[id.0].queue;
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
        self.all[id.0].reached_at = Some(child.laddr);
        self.queue_holds(id, mono_ns, ahead.saturating_add(1), limit);
    }

    /// The numbers of those listeners of a namespace whose accept queue was full since this was
    /// last asked.
    pub fn full_since_last_reading(&mut self, netns: u32) -> Vec<u64> {
        let here = self.all.iter_mut().filter(|it| it.socket.netns == netns);
        let full = here.filter_map(|it| it.queue.was_full().then_some(it.socket.conn));
        full.collect()
    }

    /// The listener that a client on this host calls, if its accept queue is full now.
    pub fn full_for(&self, client: &Socket) -> Option<(u64, Full)> {
        if self.full.is_empty() {
            return None;
        }
        let (called, port) = (client.tuple.raddr?, client.tuple.rport?);
        let mut all = self.full.iter().filter_map(|&id| {
            let listener = self.get(id);
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

    /// The listener that a child born at `born_ns` was cloned from, if only one can be: listeners
    /// may share an address (SO_REUSEPORT), and the child does not name its own.
    pub fn of_child(&self, child: &Socket, born_ns: u64) -> Option<ListenerId> {
        let mut candidates = self.candidates(child, born_ns);
        let first = candidates.next()?;
        candidates.next().is_none().then_some(first)
    }

    /// Whether every listener that the child can come from has closed, and there is one.
    pub fn all_closed(&self, child: &Socket, born_ns: u64) -> bool {
        let mut candidates = self.candidates(child, born_ns).peekable();
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
                let listener = self.get(id);
                let rank = match_rank(listener.socket.tuple.laddr, laddr)?;
                listener.listened_at(born_ns).then_some((rank, id))
            })
        };
        let best = matches().map(|(rank, _)| rank).min();
        matches().filter_map(move |(rank, id)| (Some(rank) == best).then_some(id))
    }

    /// The counts that belong to a connection or a failed accept at this end.
    pub fn stats(&mut self, listener: Option<ListenerId>, netns: u32, own: &Tuple) -> &mut Stats {
        match listener {
            Some(id) => &mut self.all[id.0].stats,
            None => self
                .unattributed
                .entry((netns, own.laddr, own.lport))
                .or_default(),
        }
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
        let listeners = self.all.into_iter();
        // One that is older than the trace and that nobody used has its line already.
        let used = listeners.filter(|it| {
            !it.stats.is_empty() || (it.opened_ns.is_some() && is_shown(it.socket.conn))
        });
        let listeners = used.map(|listener| {
            let Socket {
                conn, netns, tuple, ..
            } = listener.socket;
            let of = ListenerSummary {
                backlog: listener.backlog,
                ..summary(Some(conn), netns, tuple.laddr, tuple.lport)
            };
            listener.stats.summarize(of, sight)
        });
        let others = self
            .unattributed
            .into_iter()
            .map(|((netns, laddr, lport), stats)| {
                stats.summarize(summary(None, netns, laddr, lport), sight)
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
        netns,
        connections: 0,
        accepted: 0,
        never_accepted: 0,
        failed_accepts: 0,
        half_open_failed: None,
        overflows: None,
        backlog: Backlog::default(),
        accept_queue_p50_ns: None,
        accept_queue_p99_ns: None,
        accept_queue_max_ns: None,
    }
}

/// How well a listener's address fits a child's, best first; `None` if not at all. The kernel asks
/// in this order (`inet_lookup_listener`, net/ipv4/inet_hashtables.c): the address itself, the
/// wildcard of its family, then for IPv4 the wildcard of a dual-stack IPv6 socket.
pub(crate) fn match_rank(listener: IpAddr, child: IpAddr) -> Option<u8> {
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
