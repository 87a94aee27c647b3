//! The state of a trace: connections, listeners, half-open requests, buckets and flows.

pub mod accept_queue;
pub mod backlog;
pub mod buckets;
pub mod connection;
pub mod counters;
pub mod dropped_syns;
pub mod ending;
pub mod half_open;
pub mod handshake;
pub mod histograms;
pub mod listener;
pub mod peers;
pub mod processes;
pub mod requests;
pub mod resetting;
pub mod segments;
pub mod select;
pub mod snapshot;
pub mod socket;
pub mod stats;
pub mod suspected;
pub mod table;
pub mod why;

use std::collections::{BTreeMap, VecDeque};

use rustc_hash::FxHashMap;

use self::buckets::Buckets;
use self::counters::Counters;
use self::dropped_syns::DroppedSyns;
use self::handshake::Sight;
use self::histograms::Histograms;
use self::listener::{ListenerId, Listeners};
use self::peers::Peers;
use self::processes::Processes;
use self::requests::Requests;
use self::resetting::Resetting;
use self::segments::Segments;
use self::select::{Select, Selection};
use self::snapshot::{Audit, Import};
use self::table::{Kept, Table};
use crate::event::{Hook, Sk};
use crate::fields::{Depth, Kind, ListenerSummary, NetnsCounters, Verdict, Wanted};

/// The per-connection state machines of one trace.
pub struct Correlator {
    /// The time at which all hooks were attached, CLOCK_MONOTONIC in nanoseconds.
    pub(super) attached_ns: u64,
    /// The last number given to a connection or listener.
    pub(super) conns: u64,
    /// The kernel side's count of lost records, modulo 2^32.
    pub(super) lost: u32,
    /// The number of losses noticed so far. A connection that was met at another value
    /// than it ends at has had losses in its life; so none needs to be told of a loss.
    pub(super) losses: u64,
    /// The kernel has skipped runs of a program, or records are unaccounted.
    pub(super) missed: bool,
    /// Records were lost.
    pub(super) has_lost: bool,
    /// The event at hand, or the next one, is late.
    pub(super) is_late: bool,
    /// The filter may leave out a birth, see [`Connection::met`].
    pub(super) births_hide: bool,
    pub(super) audit: Audit,
    pub(super) open: Table,
    /// Server connections in CLOSE that accept() may still return.
    pub(super) queued_closed: FxHashMap<Sk, Kept>,
    /// The members of `queued_closed` that an accept() is about to return: time of close, socket, number.
    pub(super) being_accepted: VecDeque<(u64, Sk, u64)>,
    /// The time at which the snapshot at the end of the trace began, by network namespace.
    pub(super) last_looks: BTreeMap<u32, u64>,
    /// The lookahead has found something about the next event, see [`Correlator::foresees`].
    pub(super) foreseen: bool,
    pub(super) listeners: Listeners,
    pub(super) processes: Processes,
    pub(super) requests: Requests,
    pub(super) sight: Sight,
    pub(super) dropped_syns: DroppedSyns,
    pub(super) peers: Peers,
    pub(super) buckets: Buckets,
    pub(super) counters: Counters,
    pub(super) import: Import,
    pub(super) segments: Segments,
    pub(super) resetting: Resetting,
    pub(super) select: Select,
    pub(super) depth: Depth,
    pub(super) wanted: Wanted,
    /// The connections that have ended in the event at hand.
    pub(super) ended: Vec<Ended>,
    /// At the end of the trace: the connections that are still open, the last one first.
    pub(super) rest: Option<Vec<(u64, Sk)>>,
    pub(super) histograms: Histograms,
    pub(super) totals: Totals,
    /// `enum sk_rst_reason`
    pub(super) reset_reasons: BTreeMap<u32, String>,
}

/// The correlator's counts for the summary line.
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

/// A `connection` line on its way, and what it does not tell of itself.
pub struct Ended {
    pub conn: Option<u64>,
    pub listener: Option<ListenerId>,
    pub is_connection: bool,
}

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
            dropped_syns: DroppedSyns::default(),
            peers: Peers::default(),
            buckets: Buckets::default(),
            counters: Counters::default(),
            import: Import::default(),
            segments: Segments::default(),
            resetting: Resetting::default(),
            select: Select::default(),
            depth: Depth::Events,
            wanted: Wanted::ALL,
            ended: vec![],
            rest: None,
            histograms: Histograms::default(),
            totals: Totals::default(),
            reset_reasons: BTreeMap::new(),
        }
    }

    /// Begins with this count of lost records, modulo 2^32.
    pub fn with_lost(self, lost: u32) -> Correlator {
        Correlator { lost, ..self }
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

    /// Makes only those lines that are wanted, and whatever else it needs itself: `connection` lines
    /// are made in any case, because they are counted.
    pub fn with_wanted(self, wanted: Wanted) -> Correlator {
        Correlator { wanted, ..self }
    }

    /// Whether lines of a kind are to be made: somebody reads them, or the selection learns from them
    /// whose a connection is.
    #[inline(always)]
    pub(super) fn wants(&self, kind: Kind) -> bool {
        self.is_shown(kind) || self.select.chooses()
    }

    /// Whether lines of a kind are read, and the trace's depth has them.
    #[inline(always)]
    pub(super) fn is_shown(&self, kind: Kind) -> bool {
        let is_of_depth = match kind {
            Kind::Accept | Kind::Overflow | Kind::Connection | Kind::Histogram | Kind::Lost => true,
            _ => self.depth == Depth::Events,
        };
        is_of_depth && self.wanted.has(kind)
    }

    /// The kernel side's count of lost records as the last event had it, modulo 2^32.
    pub fn lost(&self) -> u32 {
        self.lost
    }

    /// How many connections have ended so far, of those that are asked for.
    pub fn closed(&self) -> u64 {
        self.totals.closed
    }

    pub(super) fn next_conn(&mut self) -> u64 {
        self.conns += 1;
        self.conns
    }
}
