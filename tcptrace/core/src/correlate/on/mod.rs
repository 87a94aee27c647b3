//! One handler for each kind of event: it changes the state, and appends the lines that follow.

mod accept;
mod audit;
mod counters;
mod end;
mod listen;
mod overflow;
mod process;
mod request;
mod reset;
mod segment;
mod set_state;
mod settle;
mod snapshot;
mod suspect;
mod timewait;

use std::iter;

use super::state::Correlator;
use super::state::connection::birth;
use crate::event::{Event, Kind, Note, Outcome, State, Why};
use crate::fields::{Line, Lost};

impl Correlator {
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
            Kind::Process(process) => self.process(event, process),
            Kind::Segment(segment) => self.segment(event, segment, out),
            Kind::Note(note) => self.note(event, note, out),
        }
    }

    fn note(&mut self, event: &Event, note: &Note, out: &mut Vec<Line>) {
        match note {
            Note::Looked(looked) => {
                if looked.is_last {
                    self.last_looks.insert(looked.netns, looked.began_ns);
                }
                self.audit(event, looked, out);
                self.looked(event, looked, out);
            }
            Note::Holders(holders) => self.holders(event, holders),
            Note::Counters(counters) => self.counters(event, counters),
            Note::Tick => self.tell_histograms(event.mono_ns, out),
            Note::Lost(loss) => {
                // The others are in the running count of `Event::lost`.
                if loss.why == Why::Unaccounted {
                    self.unaccounted();
                }
                out.push(Line::Lost(Lost {
                    mono_ns: event.mono_ns,
                    hook: loss.hook,
                    why: loss.why,
                    count: loss.count,
                }));
            }
            Note::Missed => self.missed(),
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

    pub(super) fn noticed_loss(&mut self) {
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

    /// Records of two CPUs may come with their counts swapped; only a rise is news.
    pub(super) fn note_lost(&mut self, lost: u32) {
        let rise = lost.wrapping_sub(self.lost);
        if rise != 0 && rise <= u32::MAX / 2 {
            self.lost = lost;
            self.has_lost = true;
            self.noticed_loss();
        }
    }
}

/// Appends a line and builds it where it stays. A line that is built first and pushed then is copied,
/// and all of it: whatever its kind, it takes as much room as the largest. For that, what builds the
/// usual lines has to be inlined.
#[inline(always)]
fn append(out: &mut Vec<Line>, build: impl FnOnce() -> Line) {
    // Makes room before it builds: what is built has not to be dropped should there be none.
    out.extend(iter::once_with(build));
}
