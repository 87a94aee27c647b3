//! Building a diagram from the lines of a connection.

mod arrows;

use std::net::IpAddr;

use self::arrows::{received_before, sender, sent_after};
use super::*;
use crate::event::Direction;
use crate::fields::{Ended, Line, Preexisting, Side, Verdict};

impl Diagram {
    /// Makes the diagram of one connection; `None` if no line has a `conn`.
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
    endpoints: [Traced; 2],
    items: Vec<Item>,
    segments: bool,
    /// True if no segment was ever sent, because connect() found no port.
    silent: bool,
}

/// The state of an end while its diagram is built.
#[derive(Default)]
struct Traced {
    conn: Option<u64>,
    end: Endpoint,
    /// The end's initial sequence number.
    isn: Option<u32>,
    /// The item of the current state.
    state: Option<usize>,
    /// The item of a connect() that has not returned.
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
        // The caller is on the left. If the side is unknown or equal, the end with the lower `conn`
        // is on the left.
        conns.sort_by_key(|&(conn, side)| (side == Some(Side::Server), conn));
        conns.truncate(2);
        let mut endpoints = [Traced::default(), Traced::default()];
        match conns[..] {
            [] => return None,
            [(conn, Some(Side::Server))] => endpoints[1].conn = Some(conn),
            [(conn, _)] => endpoints[0].conn = Some(conn),
            [left, right, ..] => {
                endpoints[0].conn = Some(left.0);
                endpoints[1].conn = Some(right.0);
            }
        }
        let mut builder = Builder {
            endpoints,
            items: vec![],
            segments: lines.iter().any(|line| matches!(line, Line::Segment(_))),
            silent: false,
        };
        for line in lines {
            builder.learn_endpoints(line);
        }
        let mut ended = builder.endpoints.iter().map(|it| it.ended);
        builder.silent = ended.any(|it| it == Some(Ended::NoFreePort));
        Some(builder)
    }

    /// Learns addresses and initial sequence numbers before anything is drawn.
    fn learn_endpoints(&mut self, line: &Line) {
        let Some((place, subject)) = line.subject().and_then(|it| Some((self.place(it)?, it)))
        else {
            return;
        };
        let own = &mut self.endpoints[place as usize].end;
        own.addr = own.addr.or(Some(subject.laddr));
        own.port = own.port.or(subject.lport);
        own.subject = Some(subject.clone());
        let peer = &mut self.endpoints[place.other() as usize].end;
        peer.addr = peer.addr.or(subject.raddr);
        peer.port = peer.port.or(subject.rport);
        if let Line::Connection(x) = line {
            self.endpoints[place as usize].ended = x.ending.ended;
        }
        if let Line::Segment(x) = line {
            let from = sender(place, x.direction);
            let isn =
                |number: Option<u32>, relative: Option<u32>| Some(number?.wrapping_sub(relative?));
            let sender = &mut self.endpoints[from as usize].isn;
            *sender = sender.or(isn(Some(x.seq), x.rel_seq));
            let receiver = &mut self.endpoints[from.other() as usize].isn;
            *receiver = receiver.or(isn(x.ack, x.rel_ack));
        }
    }

    fn place(&self, subject: &Subject) -> Option<Place> {
        let conn = subject.conn?;
        let is = |place: &Place| self.endpoints[*place as usize].conn == Some(conn);
        Place::BOTH.into_iter().find(is)
    }

    /// Returns the end that the addresses of a line without a `conn` belong to.
    fn place_by_address(&self, subject: &Subject) -> Option<Place> {
        let [left, right] = &self.endpoints;
        let end = |end: &Endpoint| Some((end.addr?, end.port?));
        let own: (IpAddr, u16) = (subject.laddr, subject.lport?);
        let peer = (subject.raddr?, subject.rport?);
        match (end(&left.end)?, end(&right.end)?) {
            // A socket that is connected to itself has no distinct ends.
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
            let last = &mut self.endpoints[place as usize].last_ns;
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
                    // All other ends of a bucket have a `transition` line.
                    if let Some(ended) = x.bucket_end
                        && self.in_bucket(place)
                    {
                        self.leave(place, x.mono_ns);
                        self.mark(place, x.mono_ns, MarkKind::BucketEnded(ended));
                    } else if x.bucket_end.is_none() {
                        let state = x.state;
                        self.mark(place, x.mono_ns, MarkKind::TraceEnds { state });
                    }
                }
                Line::Session(_)
                | Line::Histogram(_)
                | Line::Stack(_)
                | Line::Lost(_)
                | Line::Summary(_) => {}
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

    /// Returns whether a line belongs to this connection by namespace and time. Addresses are
    /// unique in a namespace while a connection has them.
    fn is_here(&self, subject: &Subject, mono_ns: u64) -> bool {
        let known = self
            .endpoints
            .iter()
            .filter_map(|it| it.end.subject.as_ref());
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
            self.endpoints[place as usize].connecting = Some(self.items.len());
            self.push(at, ItemKind::Call(call));
        }
        if let Some(kind) = received_before(x)
            // One segment can cause two changes of state.
            && !self.has_come(place, kind)
        {
            self.receives(place, at, kind);
        }
        match x.bucket {
            Some(bucket) if x.newstate == State::Close => {
                let now = self.endpoints[place as usize]
                    .state
                    .map(|it| self.state_of(it));
                if now != Some(Some(bucket)) {
                    self.leave(place, at);
                    self.enter(place, at, bucket, true, Some(x));
                }
                self.mark(place, at, MarkKind::SocketFreed { bucket });
            }
            // MPTCP sets the state that the socket already has.
            _ if x.oldstate == x.newstate => {}
            _ => {
                self.leave(place, at);
                self.enter(place, at, x.newstate, true, Some(x));
            }
        }
        if matches!(x.newstate, State::Established | State::Close)
            && let Some(call) = self.endpoints[place as usize].connecting.take()
            && let ItemKind::Call(call) = &mut self.items[call].what
        {
            call.until_ns = Some(at);
            call.error = x.error.as_ref().map(|it| it.to_string());
        }
        if let Some(kind) = sent_after(x) {
            self.sends(place, at, kind, Evidence::Inferred);
        }
    }

    /// Adds the call of the process that closed the socket.
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
        self.push(x.mono_ns, ItemKind::Call(call));
    }

    fn accept(&mut self, place: Place, x: &Accept) {
        if x.accept_error.is_some() {
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
        self.endpoints[place as usize].accepted = true;
        self.push(x.called_mono_ns.unwrap_or(x.mono_ns), ItemKind::Call(call));
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
            self.push(at, ItemKind::Wait(wait));
        }
    }

    fn connection(&mut self, place: Place, x: &Connection) {
        self.endpoints[place as usize].end.connection = Some(x.clone());
        if self.endpoints[place as usize].state.is_none() {
            self.outline(place, x);
        }
        if x.syn_source == Some(Source::Srtt)
            && !self.segments
            && let Some(syn) = x.syn_mono_ns
        {
            let kind = match x.subject.side {
                Some(Side::Client) => Kind::Syn,
                _ => Kind::SynAck,
            };
            self.estimated(place, kind, syn);
        }
        if x.verdict == Some(Verdict::NeverAccepted) {
            self.wait(place, x.established_mono_ns, x.mono_ns, false);
        }
        if x.state != State::Close && x.bucket.is_none() {
            self.mark(place, x.mono_ns, MarkKind::TraceEnds { state: x.state });
        }
    }

    /// Adds the states that the `connection` line has. `--depth connections` has no other lines.
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
            self.push(at_ns, ItemKind::State(span));
        };
        if x.subject.side == Some(Side::Client) {
            step(x.syn_mono_ns, State::SynSent, x.established_mono_ns);
        }
        step(x.established_mono_ns, State::Established, None);
        step(x.closed_mono_ns, State::Close, None);
        if let Some(accepted) = x.accepted_mono_ns
            && !self.endpoints[place as usize].accepted
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
                ItemKind::Call(call),
            );
            self.wait(place, x.established_mono_ns, accepted, true);
        }
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
        self.endpoints[place as usize].state = Some(self.items.len());
        self.push(at_ns, ItemKind::State(span));
    }

    fn leave(&mut self, place: Place, at_ns: u64) {
        let state = self.endpoints[place as usize].state;
        if let Some(Item {
            what: ItemKind::State(span),
            ..
        }) = state.and_then(|it| self.items.get_mut(it))
        {
            span.until_ns = Some(at_ns);
        }
    }

    fn in_bucket(&self, place: Place) -> bool {
        let state = self.endpoints[place as usize].state;
        let state = state.and_then(|it| self.state_of(it));
        matches!(state, Some(State::TimeWait | State::FinWait2))
    }

    fn state_of(&self, item: usize) -> Option<State> {
        match &self.items.get(item)?.what {
            ItemKind::State(span) => Some(span.state),
            _ => None,
        }
    }

    fn mark(&mut self, place: Place, at_ns: u64, kind: MarkKind) {
        self.push(at_ns, ItemKind::Mark(Mark { place, kind }));
    }

    fn push(&mut self, at_ns: u64, what: ItemKind) {
        self.items.push(Item { at_ns, what });
    }

    /// Returns whether an inferred segment was never sent. A FIN can stay behind unsent data, and
    /// the `connection` line shows that.
    fn was_not_sent(&self, arrow: &Arrow) -> bool {
        let Some(connection) = &self.endpoints[arrow.from as usize].end.connection else {
            return false;
        };
        let is_sent = match arrow.kind {
            Kind::Syn => connection.syn_mono_ns.is_some(),
            Kind::Fin => connection.ending.fin_sent == Some(true),
            _ => true,
        };
        arrow.evidence == Evidence::Inferred && arrow.received_ns.is_none() && !is_sent
    }

    fn done(mut self, left_out: u64) -> Diagram {
        let mut items = std::mem::take(&mut self.items);
        items.retain(|item| match &item.what {
            ItemKind::Arrow(arrow) => !self.was_not_sent(arrow),
            _ => true,
        });
        self.items = items;
        // The sort is stable, so equal times stay in the order of the kernel's work.
        self.items.sort_by_key(|item| item.at_ns);
        let own = |item: &&Item| !matches!(&item.what, ItemKind::Call(call) if call.name == CallName::Accept && call.begun);
        let first = self.items.iter().find(own).or(self.items.first());
        let zero_ns = first.map_or(0, |item| item.at_ns);
        let last = self.endpoints.iter().map(|it| it.last_ns).max();
        let [left, right] = self.endpoints.map(|it| it.end);
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
