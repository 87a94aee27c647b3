//! A trace without its hooks and its outputs: what the capturing side hands over goes in, lines come out.
//!
//! It decodes records, puts the events in order of time, and correlates them. It knows no clock and no
//! file, so a recording of its inputs gives the same lines.

mod begin;

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::balance::{Balance, Counts};
use crate::batch::Batch;
use crate::correlate::Correlator;
use crate::decode::decode;
use crate::event::{Event, Hook, Kind, Loss, Note, State, Task, Why};
use crate::fields::{Line, Session, Summary, Wanted};
use crate::order::{HOLD_BACK_NS, Order};

pub use begin::{Begin, Refused};

/// What enters a trace, in the order in which it was handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Records of the hooks, or of a socket snapshot.
    Records {
        batch: Batch,
        /// Every record that was written before this time (CLOCK_MONOTONIC, nanoseconds) has now been
        /// handed over; 0 when that is not known.
        complete_until_ns: u64,
    },
    /// Everything else.
    Small(Small),
}

/// An input that a recording keeps as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Small {
    /// Announces the socket snapshot at the start of the trace. Several add up.
    Import {
        /// The processes that have the sockets, by the inodes of their descriptors.
        owners: BTreeMap<u64, Task>,
        /// When the snapshot was over (CLOCK_MONOTONIC, nanoseconds).
        until_ns: u64,
    },
    /// Something that the tracer noted at a time (CLOCK_MONOTONIC, nanoseconds).
    Note { mono_ns: u64, note: Note },
    /// A look at the kernel side's counters.
    Counted {
        /// When they were read (CLOCK_MONOTONIC, nanoseconds).
        mono_ns: u64,
        counts: BTreeMap<Hook, Settled>,
    },
    /// The containers that cgroups belong to, by the cgroups' ids; `None` for one that is in none.
    Containers(BTreeMap<u64, Option<String>>),
    /// The hooks are being detached: what happens after this time (CLOCK_MONOTONIC, nanoseconds) is not
    /// part of the trace, because not all of them see it.
    Ending { mono_ns: u64 },
    /// The recording ends at this time (CLOCK_MONOTONIC, nanoseconds), and the trace went on.
    Cut { mono_ns: u64 },
    /// Nothing more comes. The counters are final.
    End { counts: BTreeMap<Hook, Counts> },
}

/// Counters of a hook, of which each event that was seen has settled by now: it is in a record that was
/// handed over before, or among those filtered or lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// Events that had reached the hook a while ago.
    pub seen: u64,
    /// Events that have been filtered or lost up to now.
    pub filtered_or_lost: u64,
}

impl Input {
    /// A note and its time.
    pub fn note(mono_ns: u64, note: Note) -> Input {
        Input::Small(Small::Note { mono_ns, note })
    }
}

impl From<Small> for Input {
    fn from(small: Small) -> Input {
        Input::Small(small)
    }
}

/// Events that [`Trace::advance`] takes on at most.
const EVENTS_AT_ONCE: usize = 16;

/// Connections that end at once when the trace does. Of a million that are open not all lines need to be
/// in memory together.
const ENDS_AT_ONCE: usize = 1024;

/// A trace as it goes on.
pub struct Trace {
    /// The first line, until it is taken.
    session: Option<Session>,
    order: Order,
    correlator: Correlator,
    balance: Balance,
    containers: FxHashMap<u64, Option<String>>,
    began_ns: u64,
    /// The trace is over when so many connections have ended.
    count: Option<u64>,
    /// When the last of them ended: what happened later is not part of the trace.
    counted_ns: Option<u64>,
    /// What happened later is not part of the trace; `u64::MAX` while it goes on.
    ended_ns: u64,
    undecodable: u64,
    /// Looks for the holders of listeners that are not told yet.
    holders_held: usize,
    ending: Ending,
}

/// How far the end of a trace is.
enum Ending {
    /// It has not come.
    NotYet,
    /// The inputs have come to an end; with the final counters, unless the recording breaks off.
    Begun(Option<BTreeMap<Hook, Counts>>),
    Done,
}

impl Trace {
    pub fn new(begin: &Begin) -> Trace {
        Trace {
            session: Some(begin.session()),
            order: Order::default(),
            correlator: begin.correlator(),
            balance: Balance::default(),
            containers: FxHashMap::default(),
            began_ns: begin.mono_ns,
            count: begin.count,
            counted_ns: None,
            ended_ns: u64::MAX,
            undecodable: 0,
            holders_held: 0,
            ending: Ending::NotYet,
        }
    }

    /// Makes only the lines that are wanted, and those that it counts itself.
    #[must_use]
    pub fn wanting(self, wanted: Wanted) -> Trace {
        Trace {
            correlator: self.correlator.with_wanted(wanted),
            ..self
        }
    }

    /// Takes the next input; none after the end. [`advance`](Trace::advance) gives the lines that follow from
    /// it, and is to be called until it has no more before the next input.
    pub fn push(&mut self, input: &Input) {
        if !matches!(self.ending, Ending::NotYet) {
            return;
        }
        match input {
            Input::Records {
                batch,
                complete_until_ns,
            } => self.records(batch, *complete_until_ns),
            Input::Small(small) => self.small(small),
        }
    }

    fn small(&mut self, small: &Small) {
        match small {
            Small::Import { owners, until_ns } => self.correlator.import(owners.clone(), *until_ns),
            Small::Note { mono_ns, note } => self.note(*mono_ns, note.clone()),
            Small::Counted { mono_ns, counts } => self.counted(*mono_ns, counts),
            Small::Containers(containers) => {
                let containers = containers.iter().map(|(id, name)| (*id, name.clone()));
                self.containers.extend(containers);
            }
            Small::Ending { mono_ns } => self.ended_ns = *mono_ns,
            Small::Cut { mono_ns } => {
                self.ended_ns = *mono_ns;
                self.order.release(u64::MAX);
                // Nobody knows what the hooks have counted in this part.
                self.ending = Ending::Begun(Some(BTreeMap::new()));
            }
            Small::End { counts } => self.end(counts),
        }
    }

    /// Some of what came before was lost on the way here: whatever is open may lack an event.
    pub fn gap(&mut self) {
        self.correlator.unaccounted();
        // What is held back begins or ends around the gap, too.
        let loss = Note::Missed;
        self.note(self.order.latest_ns(), loss);
    }

    /// Nothing more comes, although the end has not: what is known is told, without a summary.
    pub fn break_off(&mut self) {
        if let Ending::NotYet = self.ending {
            self.order.release(u64::MAX);
            self.ending = Ending::Begun(None);
        }
    }

    /// Takes the trace on by a bounded number of events, and appends the lines that follow; false when all
    /// that can be told so far has been.
    pub fn advance(&mut self, lines: &mut Vec<Line>) -> bool {
        let first = lines.len();
        let more = self.step(lines);
        for line in &mut lines[first..] {
            if let Some(subject) = line.subject_mut()
                && let Some(cgroup) = subject.cgroup
            {
                subject.container = self.containers.get(&cgroup).cloned().flatten();
            }
        }
        more
    }

    fn step(&mut self, lines: &mut Vec<Line>) -> bool {
        if let Some(session) = self.session.take() {
            lines.push(Line::Session(session));
            return true;
        }
        let events = (0..EVENTS_AT_ONCE).take_while(|_| self.event(lines));
        match events.count() {
            0 => self.step_of_end(lines),
            _ => true,
        }
    }

    /// Tells the next event that is due; false when none is.
    fn event(&mut self, lines: &mut Vec<Line>) -> bool {
        let Some((event, later, is_late)) = self.order.next() else {
            return false;
        };
        let is_over = self.counted_ns.is_some() || event.mono_ns > self.ended_ns;
        self.holders_held -= usize::from(is_holders(&event.kind));
        // A reading after the end bounds what was counted until then.
        let is_told_anyway = matches!(event.kind, Kind::Note(Note::Counters(_) | Note::Lost(_)));
        if is_over && !is_told_anyway {
            return true;
        }
        // A trace that may end at any event does not know what comes.
        if self.count.is_none() {
            let later = match self.ended_ns {
                u64::MAX => later,
                end_ns => &later[..later.partition_point(|it| it.mono_ns <= end_ns)],
            };
            if self.correlator.foresees(event, later) {
                self.correlator.foreseen();
            }
        }
        if is_late {
            self.correlator.late();
        }
        self.correlator.event(event, lines);
        if (self.count).is_some_and(|count| self.correlator.closed() >= count) {
            self.counted_ns.get_or_insert(event.mono_ns);
        }
        true
    }

    fn records(&mut self, batch: &Batch, complete_until_ns: u64) {
        for record in batch.records() {
            match decode(record) {
                Ok(event) => {
                    if let Some(hook) = event.kind.hook() {
                        self.balance.decoded(hook);
                    }
                    self.order.push(event);
                }
                Err(_) => self.undecodable += 1,
            }
        }
        if let Some(until_ns) = complete_until_ns.checked_sub(HOLD_BACK_NS) {
            self.order.release(until_ns);
        }
    }

    fn note(&mut self, mono_ns: u64, note: Note) {
        let mono_ns = match note {
            // What is noticed while the hooks are detached was lost before.
            Note::Lost(_) | Note::Missed => mono_ns.min(self.ended_ns),
            _ => mono_ns,
        };
        let kind = Kind::Note(note);
        self.holders_held += usize::from(is_holders(&kind));
        self.order.push(Event {
            mono_ns,
            cpu: 0,
            lost: 0,
            kind,
        });
    }

    /// Notes the events that are in no count.
    fn counted(&mut self, mono_ns: u64, counts: &BTreeMap<Hook, Settled>) {
        for (&hook, settled) in counts {
            let count = self
                .balance
                .more_unaccounted(hook, settled.seen, settled.filtered_or_lost);
            if count > 0 {
                let why = Why::Unaccounted;
                self.note(mono_ns, Note::Lost(Loss { hook, why, count }));
            }
        }
    }

    fn end(&mut self, counts: &BTreeMap<Hook, Counts>) {
        let settled = |counts: &Counts| Settled {
            seen: counts.seen,
            filtered_or_lost: counts.filtered.saturating_add(counts.lost),
        };
        let settled = counts.iter().map(|(hook, it)| (*hook, settled(it)));
        // Behind every event of the trace.
        self.counted(self.end_ns(), &settled.collect());
        self.order.release(u64::MAX);
        self.ending = Ending::Begun(Some(counts.clone()));
    }

    /// Tells some of what is open at the end; false when all is told.
    fn step_of_end(&mut self, lines: &mut Vec<Line>) -> bool {
        let Ending::Begun(counts) = &self.ending else {
            return false;
        };
        let end_ns = self.counted_ns.unwrap_or(self.end_ns());
        let lost = counts.as_ref().filter(|counts| !counts.is_empty());
        let lost = lost.map(|counts| {
            let lost = counts.values().map(|count| count.lost);
            // The running count in the records' headers is 32 bits wide as well.
            lost.fold(0, u64::wrapping_add) as u32
        });
        let lost = lost.unwrap_or(self.correlator.lost());
        if (self.correlator).end_some(ENDS_AT_ONCE, end_ns, lost, lines) {
            return true;
        }
        let totals = self.correlator.finish(end_ns, lost, lines);
        if let Ending::Begun(Some(counts)) = std::mem::replace(&mut self.ending, Ending::Done) {
            let counts = counts.into_iter();
            let hooks = counts.map(|(hook, counts)| (hook, self.balance.last(hook, counts)));
            lines.push(Line::Summary(Summary {
                mono_ns: end_ns,
                duration_ns: end_ns.saturating_sub(self.began_ns),
                hook_counts: hooks.collect(),
                verdicts: totals.verdicts,
                servers: totals.servers,
                clients: totals.clients,
                incomplete: totals.incomplete,
                evicted_connections: totals.evicted,
                undecodable: self.undecodable,
                late: self.order.late(),
                repeated_segments: totals.repeated_segments,
                dropped_lines: totals.dropped_lines,
                listeners: totals.listeners,
                netns_counters: totals.netns_counters,
            }));
        }
        true
    }

    /// When the trace ends, as far as that is known.
    fn end_ns(&self) -> u64 {
        match self.ended_ns {
            u64::MAX => self.order.latest_ns(),
            end_ns => end_ns,
        }
    }

    /// Whether so many connections have ended as were asked for.
    pub fn is_counted(&self) -> bool {
        self.counted_ns.is_some()
    }

    /// Whether a look through the descriptors of all processes could tell something that one which has been
    /// handed over does not tell.
    pub fn wants_holders(&self) -> bool {
        self.holders_held == 0 && self.correlator.wants_holders()
    }

    /// The network namespaces with buckets that no hook tells of.
    pub fn worth_a_look(&self) -> BTreeSet<u32> {
        self.correlator.worth_a_look()
    }

    /// The network namespaces whose counters are worth a reading now and then.
    pub fn worth_counting(&self) -> BTreeSet<u32> {
        self.correlator.worth_counting()
    }

    /// See [`Correlator::worth_an_audit`].
    pub fn worth_an_audit(&mut self, mono_ns: u64, is_last: bool) -> BTreeSet<u32> {
        self.correlator.worth_an_audit(mono_ns, is_last)
    }

    /// The network namespaces with connections that may be in an accept queue, those among them whose
    /// events are still held back.
    pub fn unproven(&self) -> BTreeSet<u32> {
        let mut namespaces = self.correlator.unproven();
        let held = self.order.held().iter();
        namespaces.extend(held.filter_map(|event| match &event.kind {
            Kind::SetState(change) if change.oldstate == State::Listen => Some(change.netns),
            _ => None,
        }));
        namespaces
    }
}

fn is_holders(kind: &Kind) -> bool {
    matches!(kind, Kind::Note(Note::Holders(_)))
}

#[cfg(test)]
mod tests;
