//! From the lines of a connection to its diagram.

use std::net::IpAddr;

use super::*;
use crate::event::{Direction, Retransmitted};
use crate::fields::{Ended, Line, Preexisting, Retransmit, Side, Verdict};

impl Diagram {
    /// Draws up one connection; `None` when there is no line with its number.
    pub fn of(group: &Group) -> Option<Diagram> {
        let mut lines: Vec<&Line> = group.lines.iter().collect();
        lines.sort_by_key(|line| line.mono_ns());
        let mut builder = Builder::new(&lines)?;
        for line in &lines {
            builder.line(line);
        }
        Some(builder.done(group.left_out))
    }
}

struct Builder {
    ends: [Traced; 2],
    items: Vec<Item>,
    segments: bool,
    /// No segment was ever sent: connect() found no port.
    silent: bool,
}

/// An end while it is drawn.
#[derive(Default)]
struct Traced {
    conn: Option<u64>,
    end: End,
    /// Its initial sequence number.
    isn: Option<u32>,
    /// The state that it is in, an item.
    state: Option<usize>,
    /// Its connect(), while that has not returned.
    connecting: Option<usize>,
    accepted: bool,
    ended: Option<Ended>,
    last_ns: u64,
}

impl Builder {
    fn new(lines: &[&Line]) -> Option<Builder> {
        let mut conns: Vec<(u64, Option<Side>)> = vec![];
        for subject in lines.iter().filter_map(|line| line.subject()) {
            let Some(conn) = subject.conn else { continue };
            match conns.iter_mut().find(|it| it.0 == conn) {
                Some((_, side)) => *side = side.or(subject.side),
                None => conns.push((conn, subject.side)),
            }
        }
        // The caller is on the left; where the side is not known, or is the same, the lower number.
        conns.sort_by_key(|&(conn, side)| (side == Some(Side::Server), conn));
        conns.truncate(2);
        let mut ends = [Traced::default(), Traced::default()];
        match conns[..] {
            [] => return None,
            [(conn, Some(Side::Server))] => ends[1].conn = Some(conn),
            [(conn, _)] => ends[0].conn = Some(conn),
            [left, right, ..] => {
                ends[0].conn = Some(left.0);
                ends[1].conn = Some(right.0);
            }
        }
        let mut builder = Builder {
            ends,
            items: vec![],
            segments: lines.iter().any(|line| matches!(line, Line::Segment(_))),
            silent: false,
        };
        for line in lines {
            builder.get_to_know(line);
        }
        let mut ended = builder.ends.iter().map(|it| it.ended);
        builder.silent = ended.any(|it| it == Some(Ended::NoFreePort));
        Some(builder)
    }

    /// Addresses and initial sequence numbers, before anything is drawn.
    fn get_to_know(&mut self, line: &Line) {
        let Some((place, subject)) = line.subject().and_then(|it| Some((self.place(it)?, it)))
        else {
            return;
        };
        let own = &mut self.ends[place as usize].end;
        own.addr = own.addr.or(Some(subject.laddr));
        own.port = own.port.or(subject.lport);
        own.subject = Some(subject.clone());
        let peer = &mut self.ends[place.other() as usize].end;
        peer.addr = peer.addr.or(subject.raddr);
        peer.port = peer.port.or(subject.rport);
        if let Line::Connection(x) = line {
            self.ends[place as usize].ended = x.ending.ended;
        }
        if let Line::Segment(x) = line {
            let from = sender(place, x.direction);
            let isn =
                |number: Option<u32>, relative: Option<u32>| Some(number?.wrapping_sub(relative?));
            let sender = &mut self.ends[from as usize].isn;
            *sender = sender.or(isn(Some(x.seq), x.rel_seq));
            let receiver = &mut self.ends[from.other() as usize].isn;
            *receiver = receiver.or(isn(x.ack, x.rel_ack));
        }
    }

    fn place(&self, subject: &Subject) -> Option<Place> {
        let conn = subject.conn?;
        let is = |place: &Place| self.ends[*place as usize].conn == Some(conn);
        Place::BOTH.into_iter().find(is)
    }

    /// Whose addresses these are, of a line without a number.
    fn place_by_address(&self, subject: &Subject) -> Option<Place> {
        let [left, right] = &self.ends;
        let end = |end: &End| Some((end.addr?, end.port?));
        let own: (IpAddr, u16) = (subject.laddr, subject.lport?);
        let peer = (subject.raddr?, subject.rport?);
        match (end(&left.end)?, end(&right.end)?) {
            // A socket that is connected to itself.
            (left, right) if left == right => None,
            (left, right) if (own, peer) == (left, right) => Some(Place::Left),
            (left, right) if (peer, own) == (left, right) => Some(Place::Right),
            _ => None,
        }
    }

    fn line(&mut self, line: &Line) {
        let Some(subject) = line.subject() else {
            return;
        };
        if let Some(place) = self.place(subject) {
            let last = &mut self.ends[place as usize].last_ns;
            *last = line.mono_ns().max(*last);
            match line {
                Line::Preexisting(x) => self.preexisting(place, x),
                Line::Transition(x) => self.transition(place, x),
                Line::Accept(x) => self.accept(place, x),
                Line::Overflow(x) => self.mark(place, x.mono_ns, MarkKind::Overflow(x.clone())),
                Line::Segment(x) => self.segment(place, x),
                Line::Retransmit(x) => self.retransmit(place, x),
                Line::Reset(x) => self.reset(place, x),
                Line::Connection(x) => self.connection(place, x),
                Line::TimeWait(x) => {
                    // A change of state has told of all others.
                    if let Some(ended) = x.ended
                        && self.in_bucket(place)
                    {
                        self.leave(place, x.mono_ns);
                        self.mark(place, x.mono_ns, MarkKind::BucketEnded(ended));
                    } else if x.ended.is_none() {
                        let state = x.state;
                        self.mark(place, x.mono_ns, MarkKind::TraceEnds { state });
                    }
                }
                Line::Session(_) | Line::Histogram(_) | Line::Lost(_) | Line::Summary(_) => {}
            }
            return;
        }
        let Some(place) = self.place_by_address(subject) else {
            return;
        };
        match line {
            Line::Segment(x) if self.is_ours(place, x) => self.segment(place, x),
            Line::Reset(x) if self.is_here(subject, x.mono_ns) => self.reset(place, x),
            Line::Overflow(x) if self.is_here(subject, x.mono_ns) => {
                self.mark(place, x.mono_ns, MarkKind::Overflow(x.clone()));
            }
            _ => {}
        }
    }

    /// A segment without a number is of this connection when its own numbers say so.
    fn is_ours(&self, place: Place, x: &Segment) -> bool {
        let from = sender(place, x.direction);
        let begins_at = |isn: Option<u32>, number: u32, relative: Option<u32>| {
            let syn = x.flags.has(TcpFlags::SYN).then_some(0);
            isn.is_some() && isn == relative.or(syn).map(|it| number.wrapping_sub(it))
        };
        let acknowledges = || {
            let receiver = self.ends[from.other() as usize].isn;
            let isn = x.ack.zip(x.rel_ack).map(|(ack, rel)| ack.wrapping_sub(rel));
            receiver.is_some() && receiver == isn
        };
        begins_at(self.ends[from as usize].isn, x.seq, x.rel_seq) || acknowledges()
    }

    /// Addresses are unique in a namespace, for as long as a connection has them.
    fn is_here(&self, subject: &Subject, mono_ns: u64) -> bool {
        let known = self.ends.iter().filter_map(|it| it.end.subject.as_ref());
        let begun = self.items.first().is_some_and(|it| it.at_ns <= mono_ns);
        begun && known.into_iter().any(|it| it.netns == subject.netns)
    }

    fn preexisting(&mut self, place: Place, x: &Preexisting) {
        self.enter(place, x.mono_ns, x.state, false, None);
    }

    fn transition(&mut self, place: Place, x: &Transition) {
        let at = x.mono_ns;
        if x.cause
            .is_some_and(|it| matches!(it, Cause::Close | Cause::Abort))
        {
            self.closed(place, x);
        }
        if x.oldstate == State::Close && x.newstate == State::SynSent {
            let call = Call {
                place,
                name: CallName::Connect,
                begun: true,
                until_ns: None,
                error: None,
                accept: None,
            };
            self.ends[place as usize].connecting = Some(self.items.len());
            self.push(at, What::Call(call));
        }
        if let Some(kind) = received_before(x)
            && !(kind == Kind::Ack && self.has_come(place, kind))
        {
            self.receives(place, at, kind);
        }
        match x.bucket {
            Some(bucket) if x.newstate == State::Close => {
                let now = self.ends[place as usize].state.map(|it| self.state_of(it));
                if now != Some(Some(bucket)) {
                    self.leave(place, at);
                    self.enter(place, at, bucket, true, Some(x));
                }
                self.mark(place, at, MarkKind::SocketFreed { bucket });
            }
            _ => {
                self.leave(place, at);
                self.enter(place, at, x.newstate, true, Some(x));
            }
        }
        if matches!(x.newstate, State::Established | State::Close)
            && let Some(call) = self.ends[place as usize].connecting.take()
            && let What::Call(call) = &mut self.items[call].what
        {
            call.until_ns = Some(at);
            call.error = x.error.as_ref().map(|it| it.to_string());
        }
        if let Some(kind) = sent_after(x) {
            self.sends(place, at, kind, Evidence::Inferred);
        }
    }

    /// The process, or its end, is what led to it.
    fn closed(&mut self, place: Place, x: &Transition) {
        let name = match x.cause {
            Some(Cause::Abort) => CallName::Abort,
            _ => CallName::Close,
        };
        let call = Call {
            place,
            name,
            begun: true,
            until_ns: Some(x.mono_ns),
            error: None,
            accept: None,
        };
        self.push(x.mono_ns, What::Call(call));
    }

    fn accept(&mut self, place: Place, x: &Accept) {
        if x.error.is_some() {
            return;
        }
        let call = Call {
            place,
            name: CallName::Accept,
            begun: x.called_mono_ns.is_some(),
            until_ns: Some(x.mono_ns),
            error: None,
            accept: Some(x.clone()),
        };
        self.ends[place as usize].accepted = true;
        self.push(x.called_mono_ns.unwrap_or(x.mono_ns), What::Call(call));
        let established = x.established_mono_ns;
        self.wait(place, established, x.mono_ns, true);
    }

    fn wait(&mut self, place: Place, from_ns: Option<u64>, until_ns: u64, taken: bool) {
        if let Some(at) = from_ns.filter(|&at| at < until_ns) {
            let wait = Wait {
                place,
                until_ns,
                taken,
            };
            self.push(at, What::Wait(wait));
        }
    }

    fn segment(&mut self, place: Place, x: &Segment) {
        let from = sender(place, x.direction);
        let header = Header::of(x);
        if x.direction == Direction::Received {
            // Its own sending, if that was seen: the latest that has not come yet, since an earlier
            // one may have been lost.
            let same = self
                .items
                .iter_mut()
                .rev()
                .find_map(|item| match &mut item.what {
                    What::Arrow(it)
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
            What::Arrow(it) => it.from == from && it.header.is_some_and(|it| it.is_same(&header)),
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
        self.push(x.mono_ns, What::Arrow(arrow));
    }

    fn retransmit(&mut self, place: Place, x: &Retransmit) {
        let what = match x.what {
            Retransmitted::Syn => Kind::Syn,
            Retransmitted::SynAck => Kind::SynAck,
            Retransmitted::Fin => Kind::Fin,
            Retransmitted::Data => Kind::Data,
        };
        if !self.segments {
            self.sends(place, x.mono_ns, what, Evidence::Seen);
            if let Some(Item {
                what: What::Arrow(arrow),
                ..
            }) = self.items.last_mut()
            {
                arrow.again = true;
            }
        }
        let so_far = x.retransmits;
        self.mark(place, x.mono_ns, MarkKind::Retransmit { what, so_far });
    }

    fn reset(&mut self, place: Place, x: &Reset) {
        match x.direction {
            _ if self.segments => {}
            Direction::Sent => self.sends_reset(place, x),
            Direction::Received => {
                // The kernel says received, too, of data that nobody reads any more.
                let surely = matches!(
                    self.ends[place as usize].ended,
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

    /// The change of state that sends it may have told already.
    fn sends_reset(&mut self, place: Place, x: &Reset) {
        let arrow = match self.unanswered(place, Kind::Rst) {
            Some(known) if known.evidence == Evidence::Inferred => Some(known),
            _ => {
                self.sends(place, x.mono_ns, Kind::Rst, Evidence::Seen);
                self.unanswered(place, Kind::Rst)
            }
        };
        if let Some(arrow) = arrow {
            arrow.evidence = Evidence::Seen;
            arrow.sent_ns = Some(x.mono_ns);
            arrow.reason = x.reason.clone();
        }
    }

    fn connection(&mut self, place: Place, x: &Connection) {
        self.ends[place as usize].end.connection = Some(x.clone());
        if self.ends[place as usize].state.is_none() {
            self.outline(place, x);
        }
        if x.syn_source == Some(Source::Srtt)
            && !self.segments
            && let Some(syn) = x.syn_mono_ns
        {
            self.estimated_syn_ack(place, syn);
        }
        if x.verdict == Some(Verdict::NeverAccepted) {
            self.wait(place, x.established_mono_ns, x.mono_ns, false);
        }
        if x.state != State::Close && x.bucket.is_none() {
            self.mark(place, x.mono_ns, MarkKind::TraceEnds { state: x.state });
        }
    }

    /// All that there is at the lighter depths.
    fn outline(&mut self, place: Place, x: &Connection) {
        let mut step = |at: Option<u64>, state: State, until: Option<u64>| {
            let Some(at_ns) = at else { return };
            let span = StateSpan {
                place,
                state,
                begun: true,
                until_ns: until,
                transition: None,
            };
            self.push(at_ns, What::State(span));
        };
        if x.subject.side == Some(Side::Client) {
            step(x.syn_mono_ns, State::SynSent, x.established_mono_ns);
        }
        step(x.established_mono_ns, State::Established, None);
        step(x.closed_mono_ns, State::Close, None);
        if let Some(accepted) = x.accepted_mono_ns
            && !self.ends[place as usize].accepted
        {
            let call = Call {
                place,
                name: CallName::Accept,
                begun: x.accept_called_mono_ns.is_some(),
                until_ns: Some(accepted),
                error: None,
                accept: None,
            };
            self.push(
                x.accept_called_mono_ns.unwrap_or(accepted),
                What::Call(call),
            );
            self.wait(place, x.established_mono_ns, accepted, true);
        }
    }

    /// The first round trip tells when the SYN-ACK left.
    fn estimated_syn_ack(&mut self, place: Place, at_ns: u64) {
        let known = self.items.iter_mut().find_map(|item| match &mut item.what {
            What::Arrow(it) if it.from == place && it.kind == Kind::SynAck => Some(it),
            _ => None,
        });
        match known {
            // Its arrival; an estimate would put the sending beside it, or behind.
            Some(_) => {}
            None => {
                let arrow = Arrow {
                    from: place,
                    kind: Kind::SynAck,
                    evidence: Evidence::Estimated,
                    sent_ns: Some(at_ns),
                    received_ns: None,
                    again: false,
                    header: None,
                    reason: None,
                };
                self.push(at_ns, What::Arrow(arrow));
            }
        }
    }

    /// A state was entered that sends a segment.
    fn sends(&mut self, place: Place, at_ns: u64, kind: Kind, evidence: Evidence) {
        if evidence == Evidence::Inferred && (self.segments || self.silent) {
            return;
        }
        let arrow = Arrow {
            from: place,
            kind,
            evidence,
            sent_ns: Some(at_ns),
            received_ns: None,
            again: false,
            header: None,
            reason: None,
        };
        self.push(at_ns, What::Arrow(arrow));
    }

    /// A state was entered because a segment has come.
    fn receives(&mut self, place: Place, at_ns: u64, kind: Kind) {
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
        // The kernel has said so, and the change of state that it leads to follows.
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
        self.push(at_ns, What::Arrow(arrow));
    }

    fn has_come(&self, place: Place, kind: Kind) -> bool {
        self.items.iter().any(|item| match &item.what {
            What::Arrow(it) => it.from != place && it.kind == kind && it.received_ns.is_some(),
            _ => false,
        })
    }

    /// The latest of a kind that was sent and has not come.
    fn unanswered(&mut self, from: Place, kind: Kind) -> Option<&mut Arrow> {
        self.items
            .iter_mut()
            .rev()
            .find_map(|item| match &mut item.what {
                What::Arrow(it)
                    if it.from == from && it.kind == kind && it.received_ns.is_none() =>
                {
                    Some(it)
                }
                _ => None,
            })
    }

    fn enter(
        &mut self,
        place: Place,
        at_ns: u64,
        state: State,
        begun: bool,
        transition: Option<&Transition>,
    ) {
        let span = StateSpan {
            place,
            state,
            begun,
            until_ns: None,
            transition: transition.cloned(),
        };
        self.ends[place as usize].state = Some(self.items.len());
        self.push(at_ns, What::State(span));
    }

    fn leave(&mut self, place: Place, at_ns: u64) {
        let state = self.ends[place as usize].state;
        if let Some(Item {
            what: What::State(span),
            ..
        }) = state.and_then(|it| self.items.get_mut(it))
        {
            span.until_ns = Some(at_ns);
        }
    }

    fn in_bucket(&self, place: Place) -> bool {
        let state = self.ends[place as usize].state;
        let state = state.and_then(|it| self.state_of(it));
        matches!(state, Some(State::TimeWait | State::FinWait2))
    }

    fn state_of(&self, item: usize) -> Option<State> {
        match &self.items.get(item)?.what {
            What::State(span) => Some(span.state),
            _ => None,
        }
    }

    fn mark(&mut self, place: Place, at_ns: u64, kind: MarkKind) {
        self.push(at_ns, What::Mark(Mark { place, kind }));
    }

    fn push(&mut self, at_ns: u64, what: What) {
        self.items.push(Item { at_ns, what });
    }

    fn done(mut self, left_out: u64) -> Diagram {
        // Stable, so that equal times stay in the order of the kernel's work.
        self.items.sort_by_key(|item| item.at_ns);
        let own = |item: &&Item| !matches!(&item.what, What::Call(call) if call.name == CallName::Accept && call.begun);
        let first = self.items.iter().find(own).or(self.items.first());
        let zero_ns = first.map_or(0, |item| item.at_ns);
        let last = self.ends.iter().map(|it| it.last_ns).max();
        let [left, right] = self.ends.map(|it| it.end);
        Diagram {
            left,
            right,
            zero_ns,
            end_ns: last.unwrap_or(zero_ns),
            segments: self.segments,
            left_out,
            items: self.items,
        }
    }
}

impl Header {
    /// A segment and itself, at both its ends or sent again. The window may differ.
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

fn sender(place: Place, direction: Direction) -> Place {
    match direction {
        Direction::Sent => place,
        Direction::Received => place.other(),
    }
}

/// What must have come before this change of state.
fn received_before(x: &Transition) -> Option<Kind> {
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

/// What is sent with it.
fn sent_after(x: &Transition) -> Option<Kind> {
    Some(match (x.cause?, x.newstate) {
        (Cause::Connect, State::SynSent) => Kind::Syn,
        (Cause::SynReceived, State::NewSynRecv | State::SynRecv) => Kind::SynAck,
        (Cause::SynAckReceived, State::Established) => Kind::Ack,
        (Cause::Close, State::FinWait1 | State::LastAck) => Kind::Fin,
        (Cause::Abort, _) => Kind::Rst,
        _ => return None,
    })
}
