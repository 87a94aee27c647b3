//! The state of a trace: connections, listeners, half-open requests, buckets and flows.

pub mod accept_queue;
pub mod acceptors;
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

use self::acceptors::Acceptors;
use self::buckets::Buckets;
use self::counters::Counters;
use self::dropped_syns::DroppedSyns;
use self::handshake::Visibility;
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
use crate::syscall::Machine;

/// The per-connection state machines of one trace.
pub struct Correlator {
    /// The time at which all hooks were attached, CLOCK_MONOTONIC in nanoseconds.
    pub(super) attached_ns: u64,
    /// The last connection number (`conn`) given to a connection or listener.
    pub(super) conns: u64,
    /// The kernel side's count of lost event records, modulo 2^32.
    pub(super) lost: u32,
    /// Number of event losses noticed so far. Each connection stores this number when it begins. If
    /// the number has changed since, events of the connection may be lost. Therefore a loss needs
    /// no update of each connection.
    pub(super) losses: u64,
    /// True if the kernel skipped runs of an eBPF program, or event records are unaccounted for.
    pub(super) missed: bool,
    /// True if event records were lost.
    pub(super) has_lost: bool,
    /// True if the current or next event arrived after later events.
    pub(super) is_late: bool,
    /// True if the filter may leave out a birth, see `Connection::first_seen`.
    pub(super) births_hide: bool,
    pub(super) audit: Audit,
    pub(super) open: Table,
    /// Server connections in CLOSE that accept() may still return.
    pub(super) queued_closed: FxHashMap<Sk, Kept>,
    /// The connections of `queued_closed` that an accept() is about to return: time of close,
    /// socket, connection number.
    pub(super) being_accepted: VecDeque<(u64, Sk, u64)>,
    /// The time at which the snapshot at the end of the trace began, by network namespace.
    pub(super) last_snapshots: BTreeMap<u32, u64>,
    /// True if the lookahead returned true for the next event, see [`Correlator::look_ahead`].
    pub(super) lookahead: bool,
    pub(super) listeners: Listeners,
    pub(super) processes: Processes,
    pub(super) requests: Requests,
    pub(super) visibility: Visibility,
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
    /// The connections that ended in the current event.
    pub(super) ended: Vec<Ended>,
    /// At the end of the trace: the connections that are still open, in reverse order.
    pub(super) still_open: Option<Vec<(u64, Sk)>>,
    pub(super) histograms: Histograms,
    pub(super) totals: Totals,
    /// The kernel's names of RST reasons (`enum sk_rst_reason`), by their values.
    pub(super) reset_reasons: BTreeMap<u32, String>,
    /// The threads that accept connections; `None` without `--why`.
    pub(super) acceptors: Option<Box<Acceptors>>,
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
    /// Connections of any side whose end was seen.
    pub closed: u64,
    /// Connections given up while they were open, because too many were open.
    pub evicted: u64,
    /// Segments left out because another device of the same namespace had already reported them.
    pub repeated_segments: u64,
    /// Lines given up because too many were held back until the selection could be decided.
    pub dropped_lines: u64,
    /// Sorted by port, address and connection number.
    pub listeners: Vec<ListenerSummary>,
    /// Sorted by network namespace.
    pub netns_counters: Vec<NetnsCounters>,
}

/// A `connection` line that is not written yet, with facts that the line does not contain.
pub struct Ended {
    pub conn: Option<u64>,
    pub listener: Option<ListenerId>,
    pub is_connection: bool,
}

impl Correlator {
    /// Makes a correlator. `attached_ns`: when all hooks were attached (CLOCK_MONOTONIC,
    /// nanoseconds).
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
            last_snapshots: BTreeMap::new(),
            lookahead: false,
            listeners: Listeners::default(),
            processes: Processes::default(),
            requests: Requests::default(),
            visibility: Visibility::default(),
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
            still_open: None,
            histograms: Histograms::default(),
            totals: Totals::default(),
            reset_reasons: BTreeMap::new(),
            acceptors: None,
        }
    }

    /// Sets the count of lost event records at the beginning of the trace, modulo 2^32.
    pub fn with_lost(self, lost: u32) -> Correlator {
        Correlator { lost, ..self }
    }

    /// Sets the names of the kernel's reasons for sending a RST.
    pub fn with_reset_reasons(mut self, reasons: BTreeMap<u32, String>) -> Correlator {
        self.reset_reasons = reasons;
        self
    }

    /// Sets the attached hooks. Fields that no attached hook can fill are null.
    pub fn with_hooks(self, hooks: impl IntoIterator<Item = Hook>) -> Correlator {
        Correlator {
            visibility: Visibility {
                explains: self.visibility.explains,
                ..Visibility::of(hooks)
            },
            ..self
        }
    }

    /// Sets whether the kernel side's filter may leave out the birth of a server's connection but
    /// pass its later events.
    pub fn with_hidden_births(self, births_hide: bool) -> Correlator {
        Correlator {
            births_hide,
            ..self
        }
    }

    /// Declares that the hooks see every accept(), not only those by its system call.
    pub fn sees_all_accepts(&mut self) {
        self.visibility.all_accepts = true;
    }

    /// Writes and counts only the lines that the selection asks for.
    pub fn with_selection(self, selection: Selection) -> Correlator {
        Correlator {
            select: Select::new(selection),
            ..self
        }
    }

    /// Explains each wait in the accept queue that is longer than `why_ns` (in nanoseconds).
    /// `is_visible`: a hook sees the scheduling of acceptors.
    pub fn with_why(self, why_ns: u64, machine: Machine, is_visible: bool) -> Correlator {
        let acceptors = Acceptors::new(why_ns, machine, is_visible);
        Correlator {
            acceptors: Some(Box::new(acceptors)),
            visibility: Visibility {
                explains: true,
                ..self.visibility
            },
            ..self
        }
    }

    /// Writes only the lines of a depth. All connections are counted at each depth.
    pub fn with_depth(self, depth: Depth) -> Correlator {
        Correlator { depth, ..self }
    }

    /// Makes only the lines that are wanted. `connection` lines are made in any case, because they
    /// are counted.
    pub fn with_wanted(self, wanted: Wanted) -> Correlator {
        Correlator { wanted, ..self }
    }

    /// Returns whether lines of a kind are made: a reader wants them, or the selection learns a
    /// connection's owner from them.
    #[inline(always)]
    pub(super) fn wants(&self, kind: Kind) -> bool {
        self.is_shown(kind) || self.select.chooses()
    }

    /// Returns whether a reader wants lines of a kind and the trace's depth has them.
    #[inline(always)]
    pub(super) fn is_shown(&self, kind: Kind) -> bool {
        let is_of_depth = match kind {
            Kind::Accept | Kind::Overflow | Kind::Connection => true,
            Kind::Histogram | Kind::Stack | Kind::Lost => true,
            _ => self.depth == Depth::Events,
        };
        is_of_depth && self.wanted.has(kind)
    }

    /// Returns whether a reader wants the lines of [`Wanted::QUEUES`].
    #[inline(always)]
    pub(super) fn wants_queues(&self) -> bool {
        self.depth == Depth::Events && self.wanted.has_queues()
    }

    /// Returns whether a reader wants the lines of [`Wanted::CLOSINGS`].
    #[inline(always)]
    pub(super) fn wants_closings(&self) -> bool {
        self.depth == Depth::Events && self.wanted.has_closings()
    }

    /// Returns the kernel side's count of lost event records at the last event, modulo 2^32.
    pub fn lost(&self) -> u32 {
        self.lost
    }

    /// Returns the number of selected connections that have ended.
    pub fn closed(&self) -> u64 {
        self.totals.closed
    }

    pub(super) fn next_conn(&mut self) -> u64 {
        self.conns += 1;
        self.conns
    }
}
