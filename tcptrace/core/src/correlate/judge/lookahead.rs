//! Looks at the events that follow one, for what that one does not say itself.

use crate::correlate::state::connection::birth;
use crate::correlate::state::handshake::TIMESTAMP_NS;
use crate::event::{Direction, Event, Kind, RequestStep, Segment, SetState, Sk, State, TcpFlags};
use crate::fields::Side;

/// How soon the segments that begin a connection are followed by it, in nanoseconds: a request by
/// its SYN in the same softirq, a child by its ACK as well.
pub const FORESEEN_NS: u64 = 1_000_000;

/// Whether a request or a child appears right after this segment, at the end that it came to, and
/// before another SYN could be the one that makes it.
pub fn begins(mono_ns: u64, segment: &Segment, later: &[Event]) -> bool {
    let place = (segment.netns, segment.tuple);
    let is_syn = segment.flags.has(TcpFlags::SYN) && segment.ack.is_none();
    later
        .iter()
        .take_while(|it| it.mono_ns.saturating_sub(mono_ns) <= FORESEEN_NS)
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

/// Whether a SYN has made a server's socket, by TCP Fast Open, and not the final ACK. The ACK makes it
/// ESTABLISHED in the same softirq, so that is the next event of that CPU; and then the round trip
/// that the kernel has measured, from the SYN-ACK on, began before the birth.
pub fn is_by_syn(event: &Event, change: &SetState, later: &[Event]) -> bool {
    if birth(change) != Some(Side::Server) || change.no_fast_open {
        return false;
    }
    let mut same_cpu = later.iter().filter(|it| {
        let is_look = matches!(it.kind, Kind::Found(_) | Kind::Note(_));
        it.cpu == event.cpu && !is_look
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

/// How soon the kernel sends the RST that a socket's end leads to, in nanoseconds: in the same run
/// of the softirq, or before the process goes on.
pub const RST_FOLLOWS_NS: u64 = 1_000_000;

/// The socket, where this may be data that came after its process had closed it: the kernel ends
/// that as if a RST had come (`tcp_reset`), and answers with one.
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

/// Whether the kernel sends a RST from this socket right after `mono_ns`. A RST is never answered.
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
