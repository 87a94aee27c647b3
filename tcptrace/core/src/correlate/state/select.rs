//! Conditions on lines that the kernel side cannot decide: owner, side and states of a connection.
//! In the kernel, a softirq runs on top of an unrelated task, and the owner is often known late.
//!
//! Every line passes through here. Lines of a connection whose owner is unknown are held back. They
//! are written with their own times when the owner turns out to be selected. A connection that was
//! selected once stays selected to its end, so that its lines are complete.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Display;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::event::{Comm, State};
use crate::fields::{Line, PidSource, Side, Subject};

/// Upper bound on held-back lines of one connection. The oldest lines are dropped first.
const HELD_EACH: usize = 64;

/// Upper bound on held-back lines of all connections. Those of the oldest connection are dropped
/// first.
const HELD: usize = 16_384;

/// The conditions that choose lines. A line passes if every given condition holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// Process ids of the owner; empty: any.
    pub pids: Vec<u32>,
    /// Names of the owner's thread or process; empty: any.
    pub comms: Vec<Comm>,
    /// Empty: any.
    pub sides: Vec<Side>,
    /// Empty: any.
    pub states: Vec<State>,
    /// True if the kernel side filters by a property that only sockets have. A segment or RST that
    /// belongs to no traced connection is then left out, because the filter did not judge it.
    pub traced_only: bool,
}

impl Selection {
    /// Returns the conditions by name, as they were given.
    pub fn describe(&self) -> BTreeMap<&'static str, String> {
        let mut conditions = BTreeMap::new();
        conditions.extend(condition("pid", self.pids.iter()));
        conditions.extend(condition("comm", self.comms.iter()));
        conditions.extend(condition("side", self.sides.iter().map(|side| side.name())));
        conditions.extend(condition("state", self.states.iter()));
        conditions
    }

    /// Returns whether a line's owner and side are selected.
    fn fit(&self, subject: &Subject) -> Fit {
        self.fit_owner(subject).min(self.fit_side(subject.side))
    }

    fn fit_side(&self, side: Option<Side>) -> Fit {
        match side {
            _ if self.sides.is_empty() => Fit::Yes,
            Some(side) if self.sides.contains(&side) => Fit::Yes,
            Some(_) => Fit::No,
            None => Fit::Open,
        }
    }

    fn fit_owner(&self, subject: &Subject) -> Fit {
        fn among<T: PartialEq>(wanted: &[T], it: Option<&T>) -> bool {
            wanted.is_empty() || it.is_some_and(|it| wanted.contains(it))
        }
        let is_named = among(&self.comms, subject.comm.as_ref())
            || among(&self.comms, subject.process.as_ref());
        let is_asked_for = among(&self.pids, subject.pid.as_ref()) && is_named;
        match subject.pid_source {
            _ if is_asked_for => Fit::Yes,
            // Another process may accept the connection, or may have a descriptor of it.
            None | Some(PidSource::Presumed | PidSource::Snapshot | PidSource::Holder) => Fit::Open,
            Some(_) => Fit::No,
        }
    }

    fn wants_state(&self, state: Option<State>) -> bool {
        self.states.is_empty() || state.is_some_and(|state| self.states.contains(&state))
    }
}

fn condition<T: Display>(
    name: &'static str,
    values: impl Iterator<Item = T>,
) -> Option<(&'static str, String)> {
    let values: Vec<String> = values.map(|value| value.to_string()).collect();
    (!values.is_empty()).then(|| (name, values.join(",")))
}

/// Whether a line or a connection meets the conditions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    No,
    /// Not decided yet.
    #[default]
    Open,
    Yes,
}

/// The selection of lines and the lines that it holds back.
#[derive(Default)]
pub struct Select {
    selection: Selection,
    /// True if there is a condition. Every event checks this.
    chooses: bool,
    known: FxHashMap<u64, Known>,
    /// The highest connection number so far. Connections are numbered in the order of their
    /// beginning.
    latest: u64,
    /// Held lines by connection, and therefore the oldest connection first.
    held: BTreeMap<u64, VecDeque<Line>>,
    /// Number of lines in `held`.
    held_lines: usize,
    /// Lines given up because too many were held back.
    pub dropped: u64,
}

/// A connection or a listener as its lines have shown it.
#[derive(Clone, Copy, Default)]
struct Known {
    fit: Fit,
    state: Option<State>,
    /// True if the connection was in a selected state.
    was_in: bool,
}

impl Select {
    pub fn new(selection: Selection) -> Select {
        Select {
            chooses: selection != Selection::default(),
            selection,
            ..Select::default()
        }
    }

    /// Returns whether there is a condition.
    pub fn chooses(&self) -> bool {
        self.chooses
    }

    /// Keeps only the selected lines from index `first` on. Inserts lines that were held back until
    /// now before the line that released them.
    #[inline]
    pub fn sift(&mut self, first: usize, lines: &mut Vec<Line>) {
        if !self.chooses {
            return;
        }
        for line in lines.split_off(first) {
            self.take(line, lines);
        }
    }

    /// Returns whether a line without a connection is selected.
    pub fn wants(&self, line: &Line) -> bool {
        let Some(subject) = line.subject() else {
            return true;
        };
        let fits = self.selection.fit(subject) == Fit::Yes;
        let wants = |state| fits && self.selection.wants_state(state);
        match line {
            Line::Segment(_) => !self.selection.traced_only && wants(None),
            Line::Reset(x) => !self.selection.traced_only && wants(x.state),
            Line::Retransmit(x) => wants(Some(x.state)),
            Line::Overflow(x) => self.wants_overflow(x.listener, subject),
            // A failed call belongs to its listener.
            _ => wants(Some(State::Listen)),
        }
    }

    /// Returns whether an overflow is selected. It belongs to its listener and to its connection.
    pub fn wants_overflow(&self, listener: Option<u64>, subject: &Subject) -> bool {
        let is_listeners = listener.is_some_and(|conn| self.shows(conn));
        let fits = is_listeners || self.selection.fit(subject) == Fit::Yes;
        fits && self.selection.wants_state(Some(State::Listen))
    }

    /// Forgets a listener that no later line is about.
    pub fn forget(&mut self, conn: u64) {
        self.known.remove(&conn);
    }

    /// Returns whether a listener is selected.
    pub fn shows(&self, conn: u64) -> bool {
        let known = || self.known.get(&conn);
        !self.chooses
            || known().is_some_and(|it| {
                it.fit == Fit::Yes && (it.was_in || self.selection.states.is_empty())
            })
    }

    fn take(&mut self, line: Line, out: &mut Vec<Line>) {
        let Some(subject) = line.subject() else {
            out.push(line);
            return;
        };
        let Some(conn) = subject.conn else {
            if self.wants(&line) {
                out.push(line);
            }
            return;
        };
        let known = self.known.get(&conn).copied();
        let is_stray = known.is_none() && is_aside(&line) && conn <= self.latest;
        self.latest = self.latest.max(conn);
        let mut it = known.unwrap_or_default();
        let fit = match it.fit {
            Fit::Yes => Fit::Yes,
            _ => self.selection.fit(subject),
        };
        // A socket may be passed to another process, and its new owner may be selected.
        if it.fit == Fit::Open || fit == Fit::Yes {
            it.fit = fit;
        }
        let is_wanted = self.enter(&mut it, &line);
        if it.fit == Fit::Open && (is_over(&line) || is_stray) {
            it.fit = Fit::No;
        }
        let is_forgotten = is_stray || is_last(&line);
        match it.fit {
            Fit::Open if is_wanted => self.hold(conn, line),
            Fit::Open => {}
            Fit::Yes => {
                out.extend(self.release(conn));
                out.extend(is_wanted.then_some(line));
            }
            Fit::No => drop(self.release(conn)),
        }
        match is_forgotten {
            true => drop(self.known.remove(&conn)),
            false => drop(self.known.insert(conn, it)),
        }
    }

    /// Updates the state from a line; returns whether the line is about a selected state.
    fn enter(&self, it: &mut Known, line: &Line) -> bool {
        let selection = &self.selection;
        let is_wanted = match line {
            Line::Transition(x) => {
                it.state = Some(x.bucket.unwrap_or(x.newstate));
                selection.wants_state(Some(x.oldstate)) || selection.wants_state(Some(x.newstate))
            }
            Line::Preexisting(x) => {
                it.state = Some(x.state);
                selection.wants_state(it.state)
            }
            Line::Connection(x) => it.was_in || selection.wants_state(Some(x.state)),
            Line::TimeWait(x) => selection.wants_state(Some(x.state)),
            Line::Retransmit(x) => selection.wants_state(Some(x.state)),
            Line::Reset(x) => selection.wants_state(x.state),
            _ => selection.wants_state(it.state),
        };
        it.was_in |= is_wanted;
        is_wanted
    }

    fn hold(&mut self, conn: u64, line: Line) {
        let lines = self.held.entry(conn).or_default();
        lines.push_back(line);
        self.held_lines += 1;
        if lines.len() > HELD_EACH {
            lines.pop_front();
            self.held_lines -= 1;
            self.dropped += 1;
        }
        if self.held_lines > HELD
            && let Some((_, oldest)) = self.held.pop_first()
        {
            self.held_lines -= oldest.len();
            self.dropped += oldest.len() as u64;
        }
    }

    /// Removes and returns the held lines of a connection.
    fn release(&mut self, conn: u64) -> VecDeque<Line> {
        let lines = self.held.remove(&conn).unwrap_or_default();
        self.held_lines -= lines.len();
        lines
    }
}

/// Returns whether a line may come after the connection's end, because the kernel answers in
/// TIME_WAIT.
fn is_aside(line: &Line) -> bool {
    matches!(
        line,
        Line::Segment(_) | Line::Retransmit(_) | Line::Reset(_) | Line::TimeWait(_)
    )
}

/// Returns whether no process can become the owner after this line.
fn is_over(line: &Line) -> bool {
    match line {
        Line::Connection(_) | Line::TimeWait(_) => true,
        Line::Transition(x) => x.subject.side == Some(Side::Listener) && x.newstate == State::Close,
        _ => false,
    }
}

/// Returns whether no more lines follow. A connection with a bucket has one more line.
fn is_last(line: &Line) -> bool {
    match line {
        Line::Connection(x) => x.bucket.is_none(),
        Line::TimeWait(_) => true,
        _ => false,
    }
}
