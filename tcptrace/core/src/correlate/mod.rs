//! Events to connections: pure, without I/O, clock or aya type.
//!
//! A socket's identity is its pointer and its birth. Each life of a pointer gets a number; what
//! lived there before has ended by then, whether its end was seen or not. Within one life,
//! ESTABLISHED and accept() are two facts that may come in either order, so the verdict is made at
//! the end, from everything that was seen (`verdict.rs`).

mod accept;
mod accept_queue;
mod audit;
mod backlog;
mod cause;
mod connection;
mod counters;
mod depth;
mod ending;
mod ends;
mod found;
mod half_open;
mod histogram;
mod lines;
mod listener;
mod listening;
mod notices;
mod overflow;
mod owners;
mod peers;
mod request;
mod segment;
mod select;
mod socket;
mod stats;
mod suspect;
mod table;
mod tally;
#[cfg(test)]
mod tests;
mod timewait;
mod verdict;

use std::collections::{BTreeMap, VecDeque};

use rustc_hash::FxHashMap;

use crate::event::{Event, Hook, Kind, Outcome, SetState, Sk, State};
use crate::fields::{
    Cause, Depth, Line, ListenerSource, ListenerSummary, NetnsCounters, PidSource, Side, Source,
    Verdict,
};
use audit::Audit;
use cause::Clues;
use connection::{Connection, End, birth};
use counters::Counters;
use ends::listener_closed;
use found::Import;
use histogram::Histograms;
use lines::append;
pub use listener::match_rank;
use listener::{Listener, ListenerId, Listeners};
use notices::Resetting;
use overflow::RefusedSyns;
use owners::{Processes, whose};
use peers::Peers;
use request::{Requests, Sight};
use segment::Segments;
use select::Select;
pub use select::Selection;
use socket::{Owner, Socket};
use table::{Kept, Table};
use tally::Ended;
use timewait::Buckets;
use verdict::Gap;

/// The per-connection state machines of one trace.
pub struct Correlator {
    /// When all hooks were attached, CLOCK_MONOTONIC in nanoseconds.
    attached_ns: u64,
    /// The last number given to a connection or listener.
    conns: u64,
    /// The kernel side's count of lost records, modulo 2^32.
    lost: u32,
    /// How often that count was seen to have risen. A connection that was met at another value
    /// than it ends at has had losses in its life; so none needs to be told of a loss.
    losses: u64,
    /// The kernel has skipped runs of a program, or records are unaccounted.
    missed: bool,
    /// Records were lost.
    has_lost: bool,
    /// The event at hand, or the next one, is late.
    is_late: bool,
    /// The filter may leave out a birth, see [`Connection::met`].
    births_hide: bool,
    audit: Audit,
    open: Table,
    /// Server connections in CLOSE that accept() may still return.
    queued_closed: FxHashMap<Sk, Kept>,
    /// Those of them that an accept() is about to return: when they closed, and their numbers.
    being_accepted: VecDeque<(u64, Sk, u64)>,
    /// When the look at the end of the trace began, by network namespace.
    last_looks: BTreeMap<u32, u64>,
    /// Of the next event more is known than it says, see [`Correlator::foresees`].
    foreseen: bool,
    listeners: Listeners,
    processes: Processes,
    requests: Requests,
    sight: Sight,
    refused_syns: RefusedSyns,
    peers: Peers,
    buckets: Buckets,
    counters: Counters,
    import: Import,
    segments: Segments,
    resetting: Resetting,
    select: Select,
    depth: Depth,
    /// The connections that have ended in the event at hand.
    ended: Vec<Ended>,
    /// At the end of the trace: the connections that are still open, the last one first.
    rest: Option<Vec<(u64, Sk)>>,
    histograms: Histograms,
    totals: Totals,
    /// `enum sk_rst_reason`
    reset_reasons: BTreeMap<u32, String>,
}

/// What the correlator counted, for the summary line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Server-side connections by verdict.
    pub verdicts: BTreeMap<Verdict, u64>,
    pub servers: u64,
    pub clients: u64,
    /// Connections of any side that are not `complete`.
    pub incomplete: u64,
    /// Connections of any side that were seen to end.
    pub closed: u64,
    /// Connections given up while they were open, because too many were.
    pub evicted: u64,
    /// Segments left out because another device of the same namespace had shown them.
    pub repeated_segments: u64,
    /// Lines given up while it was not known yet whether they are asked for.
    pub dropped_lines: u64,
    /// By port, address and number.
    pub listeners: Vec<ListenerSummary>,
    /// By network namespace.
    pub netns_counters: Vec<NetnsCounters>,
}

/// How long an accept() that has a connection takes to return at most, in nanoseconds.
const ACCEPTING_NS: u64 = 1_000_000_000;

impl Correlator {
    /// `attached_ns`: when all hooks were attached (CLOCK_MONOTONIC).
    pub fn new(attached_ns: u64) -> Correlator {
        Correlator {
            attached_ns,
            conns: 0,
            lost: 0,
            losses: 0,
            missed: false,
            has_lost: false,
            is_late: false,
            births_hide: false,
            audit: Audit::default(),
            open: Table::default(),
            queued_closed: FxHashMap::default(),
            being_accepted: VecDeque::new(),
            last_looks: BTreeMap::new(),
            foreseen: false,
            listeners: Listeners::default(),
            processes: Processes::default(),
            requests: Requests::default(),
            sight: Sight::default(),
            refused_syns: RefusedSyns::default(),
            peers: Peers::default(),
            buckets: Buckets::default(),
            counters: Counters::default(),
            import: Import::default(),
            segments: Segments::default(),
            resetting: Resetting::default(),
            select: Select::default(),
            depth: Depth::Events,
            ended: vec![],
            rest: None,
            histograms: Histograms::default(),
            totals: Totals::default(),
            reset_reasons: BTreeMap::new(),
        }
    }

    /// Names the kernel's reasons for sending a RST.
    pub fn with_reset_reasons(mut self, reasons: BTreeMap<u32, String>) -> Correlator {
        self.reset_reasons = reasons;
        self
    }

    /// Says which hooks are attached: what no hook can show is unknown, not absent.
    pub fn with_hooks(self, hooks: impl IntoIterator<Item = Hook>) -> Correlator {
        Correlator {
            sight: Sight::of(hooks),
            ..self
        }
    }

    /// Says whether the kernel side's filter may leave out the birth of a server's connection and pass
    /// what follows.
    pub fn with_hidden_births(self, births_hide: bool) -> Correlator {
        Correlator {
            births_hide,
            ..self
        }
    }

    /// Says that the hooks show every accept(), not only those by its system call.
    pub fn sees_all_accepts(&mut self) {
        self.sight.all_accepts = true;
    }

    /// Lets only those lines out that are asked for, and counts only them.
    pub fn with_selection(self, selection: Selection) -> Correlator {
        Correlator {
            select: Select::new(selection),
            ..self
        }
    }

    /// Lets only those lines out that a depth tells. All connections are counted at each.
    pub fn with_depth(self, depth: Depth) -> Correlator {
        Correlator { depth, ..self }
    }

    /// How many connections have ended so far, of those that are asked for.
    pub fn closed(&self) -> u64 {
        self.totals.closed
    }

    /// Takes the next event, in order of time, and appends the lines that follow from it.
    pub fn event(&mut self, event: &Event, out: &mut Vec<Line>) {
        let first = out.len();
        self.take_in(event, out);
        self.is_late = false;
        self.foreseen = false;
        self.settle(first, out);
    }

    fn take_in(&mut self, event: &Event, out: &mut Vec<Line>) {
        let losses_before = self.losses;
        self.note_lost(event.lost);
        if self.is_late && self.is_overtaken(event) {
            return;
        }
        self.end_unaccepted(event.mono_ns, out);
        match &event.kind {
            // tcp_done() at a socket that was CLOSE already, after `ss -K` of a listener.
            Kind::SetState(change)
                if (change.oldstate, change.newstate) == (State::Close, State::Close) => {}
            Kind::SetState(change) if change.newstate == State::Listen => {
                self.listen(event, change, out);
            }
            Kind::SetState(change)
                if change.oldstate == State::Listen && birth(change).is_none() =>
            {
                self.unlisten(event, change, out);
            }
            Kind::SetState(change) => self.transition(event, change, losses_before, out),
            Kind::Accept(accept) => self.accept(event, accept, losses_before, out),
            Kind::Retransmit(retransmit) => self.retransmit(event, retransmit, out),
            Kind::Reset(reset) => self.reset(event, reset, out),
            Kind::Request(request) => self.request(event, request, out),
            Kind::Overflow(overflow) => self.overflow(event, overflow, out),
            Kind::Timewait(timewait) => self.timewait(event, timewait, out),
            Kind::Found(found) => self.found(event, found, out),
            Kind::Looked(looked) => {
                if looked.is_last {
                    self.last_looks.insert(looked.netns, looked.began_ns);
                }
                self.audit(event, looked, out);
                self.looked(event, looked, out);
            }
            Kind::Process(process) => self.process(event, process),
            Kind::Holders(holders) => self.holders(event, holders),
            Kind::Segment(segment) => self.segment(event, segment, out),
            Kind::Counters(counters) => self.counters(event, counters),
            Kind::Tick => self.tell_histograms(event.mono_ns, out),
        }
    }

    /// Events were missed that nobody could count in [`Event::lost`]: whatever is open now may
    /// lack one. From now on an accept() without a call need not have begun before the trace.
    pub fn missed(&mut self) {
        self.noticed_loss();
        self.missed = true;
    }

    /// Events were lost that are not in [`Event::lost`] either, because nobody knows where.
    pub fn unaccounted(&mut self) {
        self.missed();
        self.has_lost = true;
    }

    /// The next event is late: later ones have been taken already.
    pub fn late(&mut self) {
        self.is_late = true;
    }

    fn noticed_loss(&mut self) {
        self.losses += 1;
        self.audit.wanted = true;
    }

    /// Leaves out a late event that something later has overtaken, as if it had been lost, and marks what
    /// it is about: its socket, or, as the sockets that a request leads to are many, all that is open.
    fn is_overtaken(&mut self, event: &Event) -> bool {
        let sk = match &event.kind {
            Kind::SetState(change) => change.sk,
            Kind::Accept(accept) => match accept.outcome {
                Outcome::Accepted { sk, .. } => sk,
                Outcome::Failed(_) => return false,
            },
            Kind::Request(_) => {
                self.noticed_loss();
                return true;
            }
            _ => return false,
        };
        let closed = self.queued_closed.get_mut(&sk).map(|it| &mut **it);
        let connection = self.open.get_mut(sk).or(closed);
        let Some(connection) = connection.filter(|it| it.latest_ns() > event.mono_ns) else {
            return false;
        };
        connection.late = true;
        true
    }

    /// Ends the trace, some at a time: appends the `connection` lines of up to so many sockets that
    /// are still open, in order of `conn`; true when there may be more. `lost` is the kernel side's
    /// final count of lost records.
    pub fn end_some(&mut self, many: usize, mono_ns: u64, lost: u32, out: &mut Vec<Line>) -> bool {
        self.note_lost(lost);
        if self.rest.is_none() {
            self.look_into_queues();
        }
        let mut rest = self.rest.take().unwrap_or_else(|| {
            let closed = self.queued_closed.iter();
            let closed = closed.map(|(&sk, it)| (it.socket.conn, sk));
            // A million of them are to take no more room than they need.
            let mut rest = Vec::with_capacity(self.open.len() + closed.len());
            rest.extend(self.open.conns().chain(closed));
            rest.sort_unstable_by(|one, other| other.cmp(one));
            rest
        });
        let first = out.len();
        for (conn, sk) in rest
            .split_off(rest.len().saturating_sub(many))
            .into_iter()
            .rev()
        {
            let connection = self.take(sk, |it| it.socket.conn == conn);
            if let Some(connection) = connection.filter(|it| !it.untouched) {
                self.end(connection, mono_ns, out);
            }
        }
        self.settle(first, out);
        let more = !rest.is_empty();
        self.rest = Some(rest);
        more
    }

    /// Ends the trace: appends the `connection` lines of everything that is still open.
    /// `lost` is the kernel side's final count of lost records.
    pub fn finish(&mut self, mono_ns: u64, lost: u32, out: &mut Vec<Line>) -> Totals {
        self.end_some(usize::MAX, mono_ns, lost, out);
        let first = out.len();
        let half_open = self.requests.drain();
        self.end_half_opens(half_open, mono_ns, out);
        self.finish_buckets(mono_ns, out);
        self.settle(first, out);
        self.tell_histograms(mono_ns, out);
        let netns_counters = self.summarize_counters(mono_ns);
        let is_shown = |conn| self.select.shows(conn);
        Totals {
            listeners: std::mem::take(&mut self.listeners).summarize(self.sight, is_shown),
            dropped_lines: self.select.dropped,
            repeated_segments: self.segments.repeats,
            netns_counters,
            ..std::mem::take(&mut self.totals)
        }
    }

    /// Records of two CPUs may come with their counts swapped; only a rise is news.
    fn note_lost(&mut self, lost: u32) {
        let rise = lost.wrapping_sub(self.lost);
        if rise != 0 && rise <= u32::MAX / 2 {
            self.lost = lost;
            self.has_lost = true;
            self.noticed_loss();
        }
    }

    fn next_conn(&mut self) -> u64 {
        self.conns += 1;
        self.conns
    }

    /// Any transition but a listener's.
    fn transition(
        &mut self,
        event: &Event,
        change: &SetState,
        losses_before: u64,
        out: &mut Vec<Line>,
    ) {
        let is_birth = birth(change).is_some();
        let is_by_syn = is_birth && self.foreseen;
        let reset_follows = std::mem::take(&mut self.foreseen) && !is_birth;
        if birth(change).is_some() {
            self.resetting.forget(change.sk);
        }
        let known = self.take(change.sk, |c| birth(change).is_none() && c.may_make(change));
        let mut connection = known.unwrap_or_else(|| {
            self.vacate(change.sk, event.mono_ns, out);
            // A loss that comes to light with an event after the birth may have been the birth.
            let losses = match birth(change) {
                Some(_) => self.losses,
                None => losses_before,
            };
            let origin = self.origin(event, change);
            let conn = origin.as_ref().and_then(|origin| origin.conn);
            let promised = || self.segments.take_promise(change.netns, &change.tuple);
            let conn = conn.or_else(promised);
            let conn = conn.unwrap_or_else(|| self.next_conn());
            let births_hide = self.births_hide && self.losses == 0;
            let met = Connection::met(conn, event, change, losses, births_hide);
            let mut met = self.open.boxed(met);
            met.clone_of = change.clone_of;
            self.attribute(&mut met);
            if let Some(origin) = origin {
                self.descend(&mut met, origin);
            } else if is_by_syn && birth(change) == Some(Side::Server) {
                met.born_by = Some(Cause::SynReceived);
                met.handshake.syn = Some((event.mono_ns, Source::Tracepoint));
            }
            if let (Some(id), State::Listen | State::SynRecv) = (met.listener, change.oldstate) {
                let (ahead, limit) = (change.backlog_len, change.backlog_max);
                self.listeners
                    .queues(id, event.mono_ns, &change.tuple, ahead, limit);
            }
            if let Some(id) = met.waits_at() {
                self.will_presume(id, event.mono_ns);
            }
            met
        });
        connection.late |= self.is_late;
        if birth(change) == Some(Side::Server) && change.tuple.raddr.is_some() {
            // A kernel that names the peer at a birth does so at each.
            self.births_hide = false;
        }
        if change.newstate == State::Established && connection.is_server() {
            self.estimate_syn(&mut connection, event, change, out);
        }
        if change.oldstate == State::SynSent {
            connection.socket.learn(&change.tuple, change.cookie);
            self.ask_after_syn(&mut connection);
        }
        self.leave_bucket(event, change, &mut connection, reset_follows, out);
        append(out, || {
            let whose =
                |it: &Connection| whose(&self.listeners, &self.processes, it, change.orphaned);
            Line::Transition(connection.transition(event, change, reset_follows, whose))
        });
        if change.newstate == State::Close
            && change.oldstate != State::SynSent
            && let Some(Line::Transition(last)) = out.last()
        {
            self.resetting.add(change.sk, last);
        }
        self.note_failures(&mut connection, change);
        if change.newstate == State::SynSent {
            self.suspect_syn(event.mono_ns, &mut connection);
        }
        self.segments
            .bind(event.mono_ns, change.sk, &connection.socket);
        if change.newstate == State::Established {
            self.meet_peer(event, change.sk, &mut connection);
        }
        if connection.socket.state != State::Close {
            self.keep(event.mono_ns, change.sk, connection, out);
        } else if connection.may_be_queued_closed()
            && (connection.is_being_accepted() || !listener_closed(&self.listeners, &connection))
        {
            if connection.is_being_accepted() {
                let conn = connection.socket.conn;
                self.being_accepted
                    .push_back((event.mono_ns, change.sk, conn));
            }
            self.queued_closed.insert(change.sk, connection);
        } else {
            self.end(connection, event.mono_ns, out);
        }
    }

    /// Introduces a connection that has just become ESTABLISHED to its other end.
    fn meet_peer(&mut self, event: &Event, sk: Sk, connection: &mut Connection) {
        let syn_ns = connection.handshake.syn.map(|(ns, _)| ns);
        let met = (self.peers).meet(sk, &connection.socket, syn_ns, event.mono_ns);
        let Some((other_sk, other, this)) = met else {
            return;
        };
        connection.peer = Some(other);
        let it = self.open.get_mut(other_sk);
        if let Some(it) = it.filter(|it| it.socket.conn == other.conn) {
            it.peer = Some(this);
        }
    }

    /// Puts a connection into the table of those that are open, which is bounded.
    fn keep(&mut self, mono_ns: u64, sk: Sk, connection: Kept, out: &mut Vec<Line>) {
        if let Some(mut given_up) = self.open.insert(sk, connection) {
            given_up.evicted = true;
            self.totals.evicted += 1;
            self.end(given_up, mono_ns, out);
        }
    }

    /// Takes the connection at a pointer out of the maps, if it is the one that is meant.
    fn take(&mut self, sk: Sk, is_meant: impl Fn(&Connection) -> bool) -> Option<Kept> {
        if let Some(open) = self.open.take(sk, &is_meant) {
            return Some(open);
        }
        let closed = &mut self.queued_closed;
        is_meant(closed.get(&sk)?).then(|| closed.remove(&sk))?
    }

    /// Finds the listener of a child whose listener is not known.
    fn attribute(&self, child: &mut Connection) {
        if !child.is_server() || child.listener.is_some() {
            return;
        }
        if let Some(sk) = child.clone_of {
            // Even if the trace does not know it, it is not another one that the address fits.
            child.listener_source = Some(ListenerSource::Clone);
            let id = (self.listeners).of_pointer(sk, child.socket.netns, child.met_ns);
            if let Some(id) = id {
                child.cloned_from(id, ListenerSource::Clone);
            }
        } else if let Some(id) =
            (self.listeners).of_child(&child.socket, child.met_ns, child.is_dropped())
        {
            child.cloned_from(id, ListenerSource::Address);
        }
    }
}
