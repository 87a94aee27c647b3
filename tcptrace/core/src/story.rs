//! A trace without its hooks and its outputs: everything that enters it, in order, and the lines
//! that follow. Live and replayed it is the same.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::correlate::Correlator;
pub use crate::correlate::Selection;
use crate::event::{Event, Hook, Task};
use crate::fields::{HookCount, Line, Lost, SCHEMA, Session, Summary, Wanted, Why};

/// Whatever can enter a story. The first is [`Input::Begin`], the last [`Input::End`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    Begin(Begin),
    Import(Import),
    /// More is known of the next event than it says, see [`Correlator::foresees`].
    Foreseen {},
    /// The next event is late: a later one has been told already.
    Late {},
    Event(Event),
    /// The kernel skipped runs of a program, and nothing made up for them.
    Missed {},
    /// Records were lost since the last such input.
    Lost(Lost),
    End(End),
}

/// What the trace is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// Wall clock minus CLOCK_MONOTONIC, in nanoseconds.
    pub clock_offset_ns: u64,
    pub session: Session,
    /// Which lines are wanted.
    pub selection: Selection,
    /// The kernel's reasons for sending a RST (`enum sk_rst_reason`), by number.
    pub reset_reasons: BTreeMap<u32, String>,
}

/// Announces a look at the start of the trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Import {
    /// Who has the sockets, by their descriptors' inodes.
    pub owners: BTreeMap<u64, Task>,
    /// When the look was over (CLOCK_MONOTONIC, nanoseconds).
    pub until_ns: u64,
}

/// What is known when nothing more comes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// When the trace ended (CLOCK_MONOTONIC, nanoseconds).
    pub mono_ns: u64,
    pub hooks: BTreeMap<Hook, HookCount>,
    /// Records that could not be decoded.
    pub undecodable: u64,
    /// Events that came too late to be put in order.
    pub late: u64,
}

/// So many connections end at a time when the trace does.
const AT_ONCE: usize = 1024;

/// A trace as it goes on.
pub struct Story {
    correlator: Correlator,
    /// It has come, and not all is told.
    ending: Option<End>,
    began_ns: u64,
}

impl Story {
    pub fn new(begin: &Begin) -> Story {
        let session = &begin.session;
        let carriers = session.hooks.iter();
        let attached = carriers.filter_map(|(&hook, carrier)| carrier.as_ref().map(|_| hook));
        let mut correlator = Correlator::new(session.mono_ns)
            .with_hooks(attached)
            .with_reset_reasons(begin.reset_reasons.clone())
            .with_selection(begin.selection.clone())
            .with_hidden_births(hides_births(session))
            .with_depth(session.depth);
        if let Some(Some(_)) = session.hooks.get(&Hook::TimewaitSock) {
            correlator.sees_buckets();
        }
        let accepts = session.hooks.get(&Hook::InetCskAccept).cloned().flatten();
        if accepts.is_some_and(|carrier| carrier != "syscall") {
            correlator.sees_all_accepts();
        }
        if session.hooks.contains_key(&Hook::Segment) {
            correlator.expect_segments();
        }
        Story {
            correlator,
            ending: None,
            began_ns: session.mono_ns,
        }
    }

    /// Makes only the lines that are wanted, and those that it counts itself.
    pub fn wanting(self, wanted: Wanted) -> Story {
        Story {
            correlator: self.correlator.with_wanted(wanted),
            ..self
        }
    }

    /// Takes the next input, in order of time, and appends the lines that follow from it, or the
    /// first of them: [`Story::more`] has the rest.
    pub fn tell(&mut self, input: &Input, out: &mut Vec<Line>) {
        match input {
            Input::Begin(begin) => out.push(Line::Session(Session {
                schema: SCHEMA,
                ..begin.session.clone()
            })),
            Input::Import(Import { owners, until_ns }) => {
                self.correlator.import(owners.clone(), *until_ns);
            }
            Input::Foreseen {} => self.correlator.foreseen(),
            Input::Event(event) => self.event(event, out),
            Input::Late {} => self.correlator.late(),
            Input::Missed {} => self.correlator.missed(),
            Input::Lost(lost) => {
                // The others are in the running count of `Event::lost`.
                if lost.why == Why::Unaccounted {
                    self.correlator.unaccounted();
                }
                out.push(Line::Lost(lost.clone()));
            }
            Input::End(end) => self.ending = Some(end.clone()),
        }
    }

    /// Appends more lines that follow from what was told last; false when there are none. Of a
    /// million connections that are open at the end not all lines need to be in memory at once.
    pub fn more(&mut self, out: &mut Vec<Line>) -> bool {
        let Some(end) = self.ending.take() else {
            return false;
        };
        let lost: u64 = end
            .hooks
            .values()
            .map(|count| count.lost.saturating_sub(count.unaccounted))
            .fold(0, u64::saturating_add);
        // The header's running count is 32 bits wide as well.
        let lost = lost as u32;
        if self.correlator.end_some(AT_ONCE, end.mono_ns, lost, out) {
            self.ending = Some(end);
        } else {
            self.end(&end, lost, out);
        }
        true
    }

    /// The same as [`Input::Event`].
    pub fn event(&mut self, event: &Event, out: &mut Vec<Line>) {
        self.correlator.event(event, out);
    }

    /// See [`Correlator::foresees`].
    pub fn foresees(&self, event: &Event, later: &[Event]) -> bool {
        self.correlator.foresees(event, later)
    }

    /// How many connections have ended so far, of those that are asked for.
    pub fn closed(&self) -> u64 {
        self.correlator.closed()
    }

    /// See [`Correlator::wants_holders`].
    pub fn wants_holders(&self) -> bool {
        self.correlator.wants_holders()
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

    /// The network namespaces with connections that may be in an accept queue.
    pub fn unproven(&self) -> BTreeSet<u32> {
        self.correlator.unproven()
    }

    fn end(&mut self, end: &End, lost: u32, out: &mut Vec<Line>) {
        let totals = self.correlator.finish(end.mono_ns, lost, out);
        out.push(Line::Summary(Summary {
            mono_ns: end.mono_ns,
            duration_ns: end.mono_ns.saturating_sub(self.began_ns),
            hook_counts: end.hooks.clone(),
            verdicts: totals.verdicts,
            servers: totals.servers,
            clients: totals.clients,
            incomplete: totals.incomplete,
            evicted_connections: totals.evicted,
            undecodable: end.undecodable,
            late: end.late,
            repeated_segments: totals.repeated_segments,
            dropped_lines: totals.dropped_lines,
            listeners: totals.listeners,
            netns_counters: totals.netns_counters,
        }));
    }
}

/// Whether the filter can leave out a server's birth, LISTEN to SYN_RECV, and not what follows: until
/// Linux 6.14 the birth has neither the peer nor, of a wildcard listener's child, the own address.
fn hides_births(session: &Session) -> bool {
    let conditions = [
        "port",
        "remote_port",
        "address",
        "local_address",
        "remote_address",
        "family",
    ];
    let mut numbers = session.kernel.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next()?.parse::<u32>().ok();
    let version = number().zip(number());
    version < Some((6, 15))
        && conditions
            .iter()
            .any(|it| session.filters.contains_key(*it))
}
