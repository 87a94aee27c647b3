//! Handlers, one for each kind of event. A handler changes the state and appends lines.

mod accept;
mod audit;
mod counters;
mod end;
mod listen;
mod overflow;
mod process;
mod request;
mod reset;
mod sched;
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
        self.lookahead = false;
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
            // After `ss -K` of a listener, tcp_done() runs on a socket that is CLOSE already.
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
            Kind::SnapshotEntry(entry) => self.snapshot_entry(event, entry, out),
            Kind::Process(process) => self.process(event, process),
            Kind::Segment(segment) => self.segment(event, segment, out),
            Kind::Sched(sched) => self.sched(event, sched),
            Kind::Note(note) => self.note(event, note, out),
        }
    }

    fn note(&mut self, event: &Event, note: &Note, out: &mut Vec<Line>) {
        match note {
            Note::SnapshotEnd(snapshot) => {
                if snapshot.is_last {
                    self.last_snapshots
                        .insert(snapshot.netns, snapshot.began_ns);
                }
                self.audit(event, snapshot, out);
                self.end_missing_buckets(event, snapshot, out);
            }
            Note::Holders(holders) => self.holders(event, holders),
            Note::Counters(counters) => self.counters(event, counters),
            Note::Tick => self.write_histograms(event.mono_ns, out),
            Note::Lost(loss) => {
                // Other losses are in the counter `Event::lost`.
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

    /// Notes a loss of events that [`Event::lost`] does not count. Every open connection may lack
    /// an event. An accept() whose call was not seen may from now on have been called during the
    /// trace.
    pub fn missed(&mut self) {
        self.noticed_loss();
        self.missed = true;
    }

    /// Notes lost events that are not in [`Event::lost`]. Their time and hook are unknown.
    pub fn unaccounted(&mut self) {
        self.missed();
        self.has_lost = true;
    }

    /// Marks the next event as late: events with a later time have been handled already.
    pub fn late(&mut self) {
        self.is_late = true;
    }

    pub(super) fn noticed_loss(&mut self) {
        self.losses += 1;
        self.audit.wanted = true;
    }

    /// Returns whether to leave out a late event, because its socket already had a later one. The
    /// event counts as lost, and the connection of its socket is marked. A request socket may
    /// belong to any connection, so its late event marks every open connection.
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

    /// Notes a change of the count of lost records. Records of two CPUs may arrive in swapped
    /// order, so only a rise is a new loss.
    pub(super) fn note_lost(&mut self, lost: u32) {
        let rise = lost.wrapping_sub(self.lost);
        if rise != 0 && rise <= u32::MAX / 2 {
            self.lost = lost;
            self.has_lost = true;
            self.noticed_loss();
        }
    }
}

/// Appends a line and builds it in place. A line that is built before it is pushed is copied, and
/// each line has the size of the largest kind. For this to work, the functions that build the usual
/// lines are inlined.
#[inline(always)]
fn append(out: &mut Vec<Line>, build: impl FnOnce() -> Line) {
    // `extend` reserves memory before it builds the line, so a failed reservation drops nothing.
    out.extend(iter::once_with(build));
}
