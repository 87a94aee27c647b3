//! The lookahead: facts about an event that only the following events show.

use crate::correlate::state::connection::birth;
use crate::correlate::state::handshake::TIMESTAMP_NS;
use crate::event::{Direction, Event, Kind, RequestStep, Segment, SetState, Sk, State, TcpFlags};
use crate::fields::Side;

/// Upper bound on the time from a segment to the first event of the socket that it causes, in
/// nanoseconds. The kernel makes a request socket in the softirq of the SYN, and a child socket in
/// the softirq of the final ACK.
pub const LOOKAHEAD_NS: u64 = 1_000_000;

/// Returns whether a request socket or a child socket with this segment's tuple begins right after
/// the segment. Another SYN in between could be its cause, so the result is then false.
pub fn begins(mono_ns: u64, segment: &Segment, later: &[Event]) -> bool {
    let place = (segment.netns, segment.tuple);
    let is_syn = segment.flags.has(TcpFlags::SYN) && segment.ack.is_none();
    later
        .iter()
        .take_while(|it| it.mono_ns.saturating_sub(mono_ns) <= LOOKAHEAD_NS)
        .find_map(|it| match &it.kind {
            Kind::Request(it) if it.step == RequestStep::Begun => {
                let is_its = !is_syn || it.isn == segment.seq;
                ((it.netns, it.tuple) == place).then_some(is_its)
            }
            Kind::SetState(it) => {
                let is_there = birth(it) == Some(Side::Server) && (it.netns, it.tuple) == place;
                is_there.then_some(true)
            }
            Kind::Segment(it) => {
                let is_another = it.flags.has(TcpFlags::SYN)
                    && it.ack.is_none()
                    && (it.netns, it.tuple) == place
                    && !(is_syn && it.seq == segment.seq);
                is_another.then_some(false)
            }
            _ => None,
        })
        .unwrap_or(false)
}

/// Returns whether a SYN (TCP Fast Open) made a server's child socket. If the final ACK made the
/// child, it makes it ESTABLISHED in the same softirq, so that change is the next event on that
/// CPU. The measured round-trip time, which starts at the SYN-ACK, then began before the birth.
pub fn is_by_syn(event: &Event, change: &SetState, later: &[Event]) -> bool {
    if birth(change) != Some(Side::Server) || change.no_fast_open {
        return false;
    }
    let mut same_cpu = later.iter().filter(|it| {
        let is_snapshot = matches!(it.kind, Kind::SnapshotEntry(_) | Kind::Note(_));
        it.cpu == event.cpu && !is_snapshot
    });
    same_cpu.next().is_some_and(|next| match &next.kind {
        _ if next.lost != event.lost => false,
        Kind::SetState(it) if it.sk == change.sk && it.newstate == State::Established => {
            let rtt = it.srtt_ns.filter(|rtt| rtt % TIMESTAMP_NS != 0);
            rtt.is_some_and(|rtt| event.mono_ns <= next.mono_ns.saturating_sub(rtt))
        }
        _ => true,
    })
}

/// How soon the kernel sends a RST after it ends a socket, in nanoseconds. It sends the RST in the
/// same softirq, or before the process continues.
pub const RST_FOLLOWS_NS: u64 = 1_000_000;

/// Returns the socket if this event may be caused by data that arrived after the process closed the
/// socket. The kernel handles such data like a RST (`tcp_reset`) and answers with a RST.
pub fn may_be_late_data(kind: &Kind) -> Option<Sk> {
    use State::{Close, Closing, FinWait1, FinWait2, LastAck};
    let closed = |state| matches!(state, FinWait1 | FinWait2 | Closing | LastAck);
    match kind {
        Kind::SetState(it) if it.newstate == Close && closed(it.oldstate) => Some(it.sk),
        Kind::Reset(it) if it.direction == Direction::Received => {
            it.sk.filter(|_| it.state.is_some_and(closed))
        }
        _ => None,
    }
}

/// Returns whether the kernel sends a RST from this socket right after `mono_ns`. The kernel never
/// answers a received RST with a RST.
pub fn is_answered_by_rst(mono_ns: u64, sk: Sk, later: &[Event]) -> bool {
    later
        .iter()
        .take_while(|it| it.mono_ns.saturating_sub(mono_ns) <= RST_FOLLOWS_NS)
        .find_map(|it| match &it.kind {
            Kind::Reset(it) if it.sk == Some(sk) => Some(it.direction == Direction::Sent),
            Kind::SetState(it) if it.sk == sk && birth(it).is_some() => Some(false),
            _ => None,
        })
        .unwrap_or(false)
}
