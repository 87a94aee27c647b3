//! A trace without hooks and outputs: the capturing side pushes inputs, and the trace appends
//! lines.
//!
//! A [`Trace`] decodes records, sorts the events and correlates them. It has no clock and no file,
//! so replaying its recorded inputs gives the same lines.

mod begin;
mod places;

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::balance::{Balance, Counts};
use crate::batch::Batch;
use crate::container::Container;
use crate::correlate::Correlator;
use crate::decode::decode;
use crate::event::{Event, Hook, Kind, Loss, Note, Stack, State, Task, Why};
use crate::fields::{Line, Session, Summary, Wanted};
use crate::order::{HOLD_BACK_NS, Order};
use places::Places;

pub use begin::{Begin, RefusedMethod};
pub use places::Process;

/// An input of a trace. Inputs are pushed in the order in which they were captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Records of the hooks, or of a socket snapshot.
    Records {
        batch: Batch,
        /// Every record that was written before this time (CLOCK_MONOTONIC, nanoseconds) has been
        /// handed over; 0 when unknown.
        complete_until_ns: u64,
    },
    /// Any other input.
    Small(Small),
}

/// An input that is stored as JSON in a recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Small {
    /// Announces the socket snapshot at the start of the trace. The owners of several announcements
    /// are combined.
    Import {
        /// The processes that hold the sockets, by the inodes of their descriptors.
        owners: BTreeMap<u64, Task>,
        /// When the snapshot ended (CLOCK_MONOTONIC, nanoseconds).
        until_ns: u64,
    },
    /// A note of the tracer, with its time (CLOCK_MONOTONIC, nanoseconds).
    Note { mono_ns: u64, note: Note },
    /// A reading of the kernel side's counters.
    Counted {
        /// When the counters were read (CLOCK_MONOTONIC, nanoseconds).
        mono_ns: u64,
        counts: BTreeMap<Hook, Settled>,
    },
    /// The containers that cgroups belong to, by cgroup id; `None` for a cgroup outside a
    /// container.
    Containers(BTreeMap<u64, Option<Container>>),
    /// Processes in PID namespaces or in containers of their own, by the kernel's ids. Precedes the
    /// first record of each. One that has exited becomes a [`Process`] without values.
    Processes {
        /// Whether all earlier ones are void.
        forget: bool,
        processes: BTreeMap<u32, Process>,
    },
    /// Stacks whose addresses have been looked up.
    Stacks(Vec<Stack>),
    /// The hooks are being detached. Events after this time (CLOCK_MONOTONIC, nanoseconds) are not
    /// part of the trace, because some hooks no longer see events.
    Ending { mono_ns: u64 },
    /// The recording ends at this time (CLOCK_MONOTONIC, nanoseconds) while the trace went on.
    Cut { mono_ns: u64 },
    /// The last input, with the final counters.
    End { counts: BTreeMap<Hook, Counts> },
}

/// Counters of a hook at a time when every counted event has settled. A settled event is in a
/// record that was handed over before, or it is counted as filtered or lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// Events that had reached the hook some time before the reading.
    pub seen: u64,
    /// Events that were filtered or lost up to the reading.
    pub filtered_or_lost: u64,
}

impl Input {
    /// Makes the input of a note and its time.
    pub fn note(mono_ns: u64, note: Note) -> Input {
        Input::Small(Small::Note { mono_ns, note })
    }
}

impl From<Small> for Input {
    fn from(small: Small) -> Input {
        Input::Small(small)
    }
}

/// Upper bound on events per call of [`Trace::advance`]. It bounds the lines in memory.
const EVENTS_AT_ONCE: usize = 16;

/// Upper bound on connections that are ended per call of [`Trace::advance`] at the end of the
/// trace. It avoids that the lines of a million open connections are in memory together.
const ENDS_AT_ONCE: usize = 1024;

/// The state of a trace between two inputs.
pub struct Trace {
    /// The session line until it is written.
    session: Option<Session>,
    order: Order,
    correlator: Correlator,
    balance: Balance,
    containers: FxHashMap<u64, Option<Container>>,
    places: Places,
    began_ns: u64,
    /// The trace ends when this many connections have ended.
    count: Option<u64>,
    /// When the last of these connections ended. Later events are not part of the trace.
    counted_ns: Option<u64>,
    /// Events after this time are not part of the trace; `u64::MAX` while it goes on.
    ended_ns: u64,
    undecodable: u64,
    /// Number of `Holders` notes that are held back.
    holders_held: usize,
    ending: Ending,
}

/// Progress of the end of a trace.
enum Ending {
    /// The trace goes on.
    NotYet,
    /// No more inputs come. The final counters are missing if the recording breaks off.
    Begun(Option<BTreeMap<Hook, Counts>>),
    Done,
}

impl Trace {
    /// Makes a trace that has taken no input yet.
    pub fn new(begin: &Begin) -> Trace {
        Trace {
            session: Some(begin.session()),
            order: Order::default(),
            correlator: begin.correlator(),
            balance: Balance::default(),
            containers: FxHashMap::default(),
            places: Places::default(),
            began_ns: begin.mono_ns,
            count: begin.count,
            counted_ns: None,
            ended_ns: u64::MAX,
            undecodable: 0,
            holders_held: 0,
            ending: Ending::NotYet,
        }
    }

    /// Restricts the trace to the lines that are wanted, and to those that the trace counts itself.
    #[must_use]
    pub fn wanting(self, wanted: Wanted) -> Trace {
        Trace {
            correlator: self.correlator.with_wanted(wanted),
            ..self
        }
    }

    /// Takes the next input. Inputs after the end are ignored. Call [`advance`](Trace::advance)
    /// until it returns false before the next input.
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
            Small::Import { owners, until_ns } => {
                let mut owners = owners.clone();
                owners.values_mut().for_each(|it| self.places.put(it));
                self.correlator.import(owners, *until_ns);
            }
            Small::Note { mono_ns, note } => self.note(*mono_ns, note.clone()),
            Small::Counted { mono_ns, counts } => self.counted(*mono_ns, counts),
            Small::Containers(containers) => {
                let containers = containers.iter().map(|(id, name)| (*id, name.clone()));
                self.containers.extend(containers);
            }
            Small::Processes { forget, processes } => self.places.learn(*forget, processes),
            Small::Stacks(stacks) => self.correlator.stacks(stacks),
            Small::Ending { mono_ns } => self.ended_ns = *mono_ns,
            Small::Cut { mono_ns } => {
                self.ended_ns = *mono_ns;
                self.order.release(u64::MAX);
                // The hooks' counters up to the cut are not known.
                self.ending = Ending::Begun(Some(BTreeMap::new()));
            }
            Small::End { counts } => self.end(counts),
        }
    }

    /// Marks a gap in the inputs: every open connection may lack an event.
    pub fn gap(&mut self) {
        self.correlator.unaccounted();
        // The events that are held back may lie before or after the gap, so their connections may
        // lack an event as well.
        let loss = Note::Missed;
        self.note(self.order.latest_ns(), loss);
    }

    /// Ends the trace without its final inputs. The known lines are written, without a summary.
    pub fn break_off(&mut self) {
        if let Ending::NotYet = self.ending {
            self.order.release(u64::MAX);
            self.ending = Ending::Begun(None);
        }
    }

    /// Processes a bounded number of events and appends their lines. Returns false when nothing
    /// more can be processed before the next input.
    pub fn advance(&mut self, lines: &mut Vec<Line>) -> bool {
        let first = lines.len();
        let more = self.step(lines);
        for line in &mut lines[first..] {
            let Some(subject) = line.subject_mut() else {
                continue;
            };
            let of_cgroup = subject
                .cgroup
                .and_then(|it| self.containers.get(&it)?.as_ref());
            if let Some(container) = of_cgroup.or_else(|| self.places.container(subject.place)) {
                subject.set_container(container);
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

    /// Correlates the next event that is due; returns false if none is.
    fn event(&mut self, lines: &mut Vec<Line>) -> bool {
        let Some((event, later, is_late)) = self.order.next() else {
            return false;
        };
        let is_over = self.counted_ns.is_some() || event.mono_ns > self.ended_ns;
        self.holders_held -= usize::from(is_holders(&event.kind));
        // A counter reading after the end is kept, because it bounds the counters at the end.
        let is_exempt = matches!(event.kind, Kind::Note(Note::Counters(_) | Note::Lost(_)));
        if is_over && !is_exempt {
            return true;
        }
        // With `count`, the trace may end at any event, so later events are not used.
        if self.count.is_none() {
            let later = match self.ended_ns {
                u64::MAX => later,
                end_ns => &later[..later.partition_point(|it| it.mono_ns <= end_ns)],
            };
            if self.correlator.look_ahead(event, later) {
                self.correlator.note_lookahead();
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
                Ok(mut event) => {
                    self.places.see(&mut event.kind);
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
            // A loss of events noticed while the hooks are detached happened before the end.
            Note::Lost(_) | Note::Missed => mono_ns.min(self.ended_ns),
            _ => mono_ns,
        };
        let mut kind = Kind::Note(note);
        self.places.see(&mut kind);
        self.holders_held += usize::from(is_holders(&kind));
        self.order.push(Event {
            mono_ns,
            cpu: 0,
            lost: 0,
            kind,
        });
    }

    /// Notes the events of each hook that are neither decoded nor counted as filtered or lost.
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
        // The note comes after every event of the trace.
        self.counted(self.end_ns(), &settled.collect());
        self.order.release(u64::MAX);
        self.ending = Ending::Begun(Some(counts.clone()));
    }

    /// Ends at most [`ENDS_AT_ONCE`] open connections; returns false when the end of the trace is
    /// complete.
    fn step_of_end(&mut self, lines: &mut Vec<Line>) -> bool {
        let Ending::Begun(counts) = &self.ending else {
            return false;
        };
        let end_ns = self.counted_ns.unwrap_or(self.end_ns());
        let lost = counts.as_ref().filter(|counts| !counts.is_empty());
        let lost = lost.map(|counts| {
            let lost = counts.values().map(|count| count.lost);
            // The count of lost records in the records' headers has 32 bits as well.
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

    /// Returns the time of the end, as far as it is known.
    fn end_ns(&self) -> u64 {
        match self.ended_ns {
            u64::MAX => self.order.latest_ns(),
            end_ns => end_ns,
        }
    }

    /// Returns whether the trace has ended because [`Begin::count`] connections have ended.
    pub fn is_counted(&self) -> bool {
        self.counted_ns.is_some()
    }

    /// Returns whether a search through the descriptors of all processes can find an owner that
    /// earlier searches did not.
    pub fn wants_holders(&self) -> bool {
        self.holders_held == 0 && self.correlator.wants_holders()
    }

    /// Returns the network namespaces that need a socket snapshot, because they have buckets that
    /// no hook sees.
    pub fn wants_snapshot(&self) -> BTreeSet<u32> {
        self.correlator.wants_snapshot()
    }

    /// Returns the network namespaces whose counters should be read each second.
    pub fn wants_counters(&self) -> BTreeSet<u32> {
        self.correlator.wants_counters()
    }

    /// Returns the network namespaces to audit, see [`Correlator::wants_audit`].
    pub fn wants_audit(&mut self, mono_ns: u64, is_last: bool) -> BTreeSet<u32> {
        self.correlator.wants_audit(mono_ns, is_last)
    }

    /// Returns the network namespaces of connections that may be in an accept queue. Events that
    /// are held back are included.
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
