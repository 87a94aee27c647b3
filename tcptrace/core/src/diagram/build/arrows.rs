//! Arrows of a diagram: segments if they were recorded, otherwise arrows inferred from changes of
//! state, retransmits and resets.

use super::*;
use crate::event::Retransmitted;
use crate::fields::Retransmit;

impl Builder {
    /// Returns whether a segment without a `conn` belongs to this connection, by its sequence
    /// numbers.
    pub(super) fn is_ours(&self, place: Place, x: &Segment) -> bool {
        let from = sender(place, x.direction);
        let begins_at = |isn: Option<u32>, number: u32, relative: Option<u32>| {
            let syn = x.flags.has(TcpFlags::SYN).then_some(0);
            isn.is_some() && isn == relative.or(syn).map(|it| number.wrapping_sub(it))
        };
        let acknowledges = || {
            let receiver = self.endpoints[from.other() as usize].isn;
            let isn = x.ack.zip(x.rel_ack).map(|(ack, rel)| ack.wrapping_sub(rel));
            receiver.is_some() && receiver == isn
        };
        begins_at(self.endpoints[from as usize].isn, x.seq, x.rel_seq) || acknowledges()
    }

    pub(super) fn segment(&mut self, place: Place, x: &Segment) {
        let from = sender(place, x.direction);
        let header = Header::of(x);
        if x.direction == Direction::Received {
            // Find the arrow of this segment's sending, if that was seen. The latest arrow without
            // an arrival is taken, because an earlier segment may have been lost.
            let same = self
                .items
                .iter_mut()
                .rev()
                .find_map(|item| match &mut item.what {
                    ItemKind::Arrow(it)
                        if it.from == from
                            && it.received_ns.is_none()
                            && it.header.is_some_and(|it| it.is_same(&header)) =>
                    {
                        Some(it)
                    }
                    _ => None,
                });
            if let Some(same) = same {
                same.received_ns = Some(x.mono_ns);
                return;
            }
        }
        let again = self.items.iter().any(|item| match &item.what {
            ItemKind::Arrow(it) => {
                it.from == from && it.header.is_some_and(|it| it.is_same(&header))
            }
            _ => false,
        });
        let sent = x.direction == Direction::Sent;
        let arrow = Arrow {
            from,
            kind: header.kind(),
            evidence: Evidence::Seen,
            sent_ns: sent.then_some(x.mono_ns),
            received_ns: (!sent).then_some(x.mono_ns),
            again,
            header: Some(header),
            reason: None,
        };
        self.push(x.mono_ns, ItemKind::Arrow(arrow));
    }

    pub(super) fn retransmit(&mut self, place: Place, x: &Retransmit) {
        let what = match x.retransmitted {
            Retransmitted::Syn => Kind::Syn,
            Retransmitted::SynAck => Kind::SynAck,
            Retransmitted::Fin => Kind::Fin,
            Retransmitted::Data => Kind::Data,
        };
        if !self.segments {
            self.sends(place, x.mono_ns, what, Evidence::Seen);
            if let Some(Item {
                what: ItemKind::Arrow(arrow),
                ..
            }) = self.items.last_mut()
            {
                arrow.again = true;
            }
        }
        let so_far = x.retransmits;
        self.mark(place, x.mono_ns, MarkKind::Retransmit { what, so_far });
    }

    pub(super) fn reset(&mut self, place: Place, x: &Reset) {
        match x.direction {
            _ if self.segments => {}
            Direction::Sent => self.sends_reset(place, x),
            Direction::Received => {
                // The kernel also reports a received RST for data that no process reads any more.
                let surely = matches!(
                    self.endpoints[place as usize].ended,
                    Some(Ended::ResetReceived | Ended::ResetInQueue | Ended::Refused)
                );
                let sent = self.unanswered(place.other(), Kind::Rst).is_some();
                if surely || sent {
                    self.comes(place, x.mono_ns, Kind::Rst, Evidence::Seen);
                }
            }
        }
        self.mark(place, x.mono_ns, MarkKind::Reset(x.clone()));
    }

    /// Marks the arrow of a sent RST as seen. The change of state that sends the RST has already
    /// made an inferred arrow. Items between that change and the `reset` line may include the RST's
    /// arrival.
    fn sends_reset(&mut self, place: Place, x: &Reset) {
        let inferred = |it: &Arrow| {
            it.from == place && it.kind == Kind::Rst && it.evidence == Evidence::Inferred
        };
        let mut known = self.items.iter().rposition(|item| match &item.what {
            ItemKind::Arrow(it) => inferred(it) && it.sent_ns.is_some(),
            _ => false,
        });
        if known.is_none() {
            known = Some(self.items.len());
            self.sends(place, x.mono_ns, Kind::Rst, Evidence::Seen);
        }
        if let Some(ItemKind::Arrow(arrow)) = known.map(|at| &mut self.items[at].what) {
            arrow.evidence = Evidence::Seen;
            arrow.reason = x.rst_reason.clone();
        }
    }

    /// Adds an arrow at an estimated time. The first round-trip time gives the sending of the
    /// SYN-ACK, or of the SYN of a client that deferred it.
    pub(super) fn estimated(&mut self, place: Place, kind: Kind, at_ns: u64) {
        let known = self.items.iter_mut().find_map(|item| match &mut item.what {
            ItemKind::Arrow(it) if it.from == place && it.kind == kind => Some(it),
            _ => None,
        });
        match known {
            // The arrival is known. The estimated sending may be later than it.
            Some(_) => {}
            None => {
                let arrow = unrecorded(place, kind, Evidence::Estimated, at_ns);
                self.push(at_ns, ItemKind::Arrow(arrow));
            }
        }
    }

    /// Adds an arrow for a segment that is sent on entering a state.
    pub(super) fn sends(&mut self, place: Place, at_ns: u64, kind: Kind, evidence: Evidence) {
        if evidence == Evidence::Inferred && (self.segments || self.silent) {
            return;
        }
        let arrow = unrecorded(place, kind, evidence, at_ns);
        self.push(at_ns, ItemKind::Arrow(arrow));
    }

    /// Adds the arrival of a segment that must precede a change of state.
    pub(super) fn receives(&mut self, place: Place, at_ns: u64, kind: Kind) {
        if !self.segments {
            self.comes(place, at_ns, kind, Evidence::Inferred);
        }
    }

    fn comes(&mut self, place: Place, at_ns: u64, kind: Kind, evidence: Evidence) {
        let from = place.other();
        if let Some(sent) = self.unanswered(from, kind) {
            sent.received_ns = Some(at_ns);
            return;
        }
        // The `reset` line has already made the arrow of this RST. The change of state comes after
        // it.
        if kind == Kind::Rst && self.has_come(place, kind) {
            return;
        }
        let arrow = Arrow {
            from,
            kind,
            evidence,
            sent_ns: None,
            received_ns: Some(at_ns),
            again: false,
            header: None,
            reason: None,
        };
        self.push(at_ns, ItemKind::Arrow(arrow));
    }

    pub(super) fn has_come(&self, place: Place, kind: Kind) -> bool {
        self.items.iter().any(|item| match &item.what {
            ItemKind::Arrow(it) => it.from != place && it.kind == kind && it.received_ns.is_some(),
            _ => false,
        })
    }

    /// Returns the latest arrow of a kind that has no arrival.
    fn unanswered(&mut self, from: Place, kind: Kind) -> Option<&mut Arrow> {
        self.items
            .iter_mut()
            .rev()
            .find_map(|item| match &mut item.what {
                ItemKind::Arrow(it)
                    if it.from == from && it.kind == kind && it.received_ns.is_none() =>
                {
                    Some(it)
                }
                _ => None,
            })
    }
}

impl Header {
    /// Returns whether both headers belong to the same segment, seen at both ends or sent again.
    /// The window may differ.
    fn is_same(&self, other: &Header) -> bool {
        let numbers = |it: &Header| (it.flags, it.seq, it.ack, it.len);
        numbers(self) == numbers(other)
    }

    fn kind(&self) -> Kind {
        const FIN: TcpFlags = TcpFlags(1);
        const RST: TcpFlags = TcpFlags(1 << 2);
        match self.flags {
            flags if flags.has(RST) => Kind::Rst,
            flags if flags.has(TcpFlags::SYN) && flags.has(TcpFlags::ACK) => Kind::SynAck,
            flags if flags.has(TcpFlags::SYN) => Kind::Syn,
            flags if flags.has(FIN) => Kind::Fin,
            _ if self.len > 0 => Kind::Data,
            _ => Kind::Ack,
        }
    }
}

pub(super) fn sender(place: Place, direction: Direction) -> Place {
    match direction {
        Direction::Sent => place,
        Direction::Received => place.other(),
    }
}

/// Returns the segment that must have been received before this change of state.
pub(super) fn received_before(x: &Transition) -> Option<Kind> {
    Some(match x.cause? {
        Cause::SynReceived => Kind::Syn,
        Cause::SynAckReceived => Kind::SynAck,
        Cause::AckReceived => Kind::Ack,
        Cause::FinReceived => Kind::Fin,
        Cause::AckOfFin => Kind::AckOfFin,
        Cause::RstReceived => Kind::Rst,
        _ => return None,
    })
}

/// Returns the segment that is sent on this change of state.
pub(super) fn sent_after(x: &Transition) -> Option<Kind> {
    Some(match (x.cause?, x.newstate) {
        (Cause::Connect, State::SynSent) => Kind::Syn,
        (Cause::SynReceived, State::NewSynRecv | State::SynRecv) => Kind::SynAck,
        (Cause::SynAckReceived, State::Established) => Kind::Ack,
        (Cause::Close, State::FinWait1 | State::LastAck) => Kind::Fin,
        (Cause::Abort | Cause::DataReceived, _) => Kind::Rst,
        // tcp_need_reset(), net/ipv4/tcp.c
        (Cause::Disconnect | Cause::Killed, _) if has_peer(x.oldstate) => Kind::Rst,
        _ => return None,
    })
}

fn has_peer(state: State) -> bool {
    use State::{CloseWait, Established, FinWait1, FinWait2, SynRecv};
    matches!(
        state,
        SynRecv | Established | CloseWait | FinWait1 | FinWait2
    )
}

/// Makes an arrow for a sent segment that was not recorded as a segment.
fn unrecorded(from: Place, kind: Kind, evidence: Evidence, sent_ns: u64) -> Arrow {
    Arrow {
        from,
        kind,
        evidence,
        sent_ns: Some(sent_ns),
        received_ns: None,
        again: false,
        header: None,
        reason: None,
    }
}
