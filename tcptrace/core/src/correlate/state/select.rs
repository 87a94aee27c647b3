//! The conditions that the kernel side cannot decide: whose connection it is, on which side, in
//! which states. In the kernel a softirq's task is nobody's, and often the owner is known late.
//!
//! Every line passes here. The lines of a connection whose owner is not known yet are held back,
//! and written with their own times as soon as it turns out to be one that is asked for. What has
//! been let in once stays to its end, so that no connection's story breaks off.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Display;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::event::{Comm, State};
use crate::fields::{Line, PidSource, Side, Subject};

/// Lines held back of one connection; its oldest are given up first.
const HELD_EACH: usize = 64;

/// Lines held back of all connections; those of the oldest one are given up first.
const HELD: usize = 16_384;

/// The conditions that choose lines. A line passes if every given condition holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// The owner's process; empty: any.
    pub pids: Vec<u32>,
    /// The owner's thread or process, by name; empty: any.
    pub comms: Vec<Comm>,
    /// Empty: any.
    pub sides: Vec<Side>,
    /// Empty: any.
    pub states: Vec<State>,
    /// The kernel side filters by something that only sockets have: a segment or a RST that belongs
    /// to no traced connection may be anybody's, and is left out.
    pub traced_only: bool,
}

impl Selection {
    /// The conditions by name, as they were given.
    pub fn describe(&self) -> BTreeMap<&'static str, String> {
        let mut conditions = BTreeMap::new();
        conditions.extend(condition("pid", self.pids.iter()));
        conditions.extend(condition("comm", self.comms.iter()));
        conditions.extend(condition("side", self.sides.iter().map(|side| side.name())));
        conditions.extend(condition("state", self.states.iter()));
        conditions
    }

    /// Whether a line's owner and side are among those asked for.
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
            // Somebody else may accept it, or have a descriptor of it, too.
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

/// Whether something is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    No,
    /// Not known yet.
    #[default]
    Open,
    Yes,
}

/// The lines on their way out.
#[derive(Default)]
pub struct Select {
    selection: Selection,
    /// There is a condition; every event asks.
    chooses: bool,
    known: FxHashMap<u64, Known>,
    /// The highest number met: connections are numbered as they begin.
    latest: u64,
    /// By connection, and so the oldest first.
    held: BTreeMap<u64, VecDeque<Line>>,
    /// Lines in `held`.
    held_lines: usize,
    /// Lines given up because too many were held back.
    pub dropped: u64,
}

/// A connection or a listener, as its lines have shown it.
#[derive(Clone, Copy, Default)]
struct Known {
    fit: Fit,
    state: Option<State>,
    /// The connection was in a state that is asked for.
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

    /// Whether there is a condition.
    pub fn chooses(&self) -> bool {
        self.chooses
    }

    /// Keeps of the lines from `first` on those that are asked for, and puts those before them that
    /// were held back until now.
    #[inline]
    pub fn sift(&mut self, first: usize, lines: &mut Vec<Line>) {
        if !self.chooses {
            return;
        }
        for line in lines.split_off(first) {
            self.take(line, lines);
        }
    }

    /// Whether a line without a connection is asked for.
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
            // A call that failed is its listener's.
            _ => wants(Some(State::Listen)),
        }
    }

    /// Whether an overflow is: it is its listener's as well as its connection's.
    pub fn wants_overflow(&self, listener: Option<u64>, subject: &Subject) -> bool {
        let is_listeners = listener.is_some_and(|conn| self.shows(conn));
        let fits = is_listeners || self.selection.fit(subject) == Fit::Yes;
        fits && self.selection.wants_state(Some(State::Listen))
    }

    /// Nothing more will be asked about a listener.
    pub fn forget(&mut self, conn: u64) {
        self.known.remove(&conn);
    }

    /// Whether a listener is asked for.
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
        // A socket may be handed over: the one who has it now may be asked for.
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

    /// Notes what a line tells of states; whether it is about one that is asked for.
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

    /// The lines of a connection that were held back.
    fn release(&mut self, conn: u64) -> VecDeque<Line> {
        let lines = self.held.remove(&conn).unwrap_or_default();
        self.held_lines -= lines.len();
        lines
    }
}

/// A line that may still come when a connection is over: in TIME_WAIT the kernel answers.
fn is_aside(line: &Line) -> bool {
    matches!(
        line,
        Line::Segment(_) | Line::Retransmit(_) | Line::Reset(_) | Line::TimeWait(_)
    )
}

/// After this line nobody will become the owner any more.
fn is_over(line: &Line) -> bool {
    match line {
        Line::Connection(_) | Line::TimeWait(_) => true,
        Line::Transition(x) => x.subject.side == Some(Side::Listener) && x.newstate == State::Close,
        _ => false,
    }
}

/// A connection whose bucket stays has one line more.
fn is_last(line: &Line) -> bool {
    match line {
        Line::Connection(x) => x.bucket.is_none(),
        Line::TimeWait(_) => true,
        _ => false,
    }
}
