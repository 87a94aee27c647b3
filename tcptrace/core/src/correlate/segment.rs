//! Segments on the wire: whose they are, numbers relative to the first ones, repeats.
//!
//! A sent segment names its socket. A received one does not, so the ends of flows are remembered:
//! who lives there, with which initial sequence number it began.

use std::net::SocketAddr;

use rustc_hash::FxHashMap;

use super::Correlator;
use super::connection::{Connection, birth};
use super::half_open::HalfOpen;
use super::notices::{is_answered_by_rst, may_be_late_data};
use super::owners::{presumed, whose};
use super::request::TIMESTAMP_NS;
use super::socket::Socket;
use super::table::{Kept, Table};
use crate::event::{
    Direction, Event, Kind, RequestStep, Segment, SetState, Sk, State, TcpFlags, Tuple,
};
use crate::fields::{self, Line, Side, Source, Subject};

/// A segment is a repeat if it passes another device no later than this, in nanoseconds. It must
/// cover the way from device to device and no more.
const REPEAT_NS: u64 = 100_000_000;

/// How long the end of a flow is remembered when nothing lives there, in nanoseconds: the kernel
/// answers for a closed connection in TIME_WAIT (TCP_TIMEWAIT_LEN, include/net/tcp.h).
const REMEMBER_NS: u64 = 60_000_000_000;

/// With fewer ends than this nothing is ever forgotten.
const FEW: usize = 4096;

/// The ends of flows that segments have shown. Empty unless segments are expected.
#[derive(Default)]
pub(super) struct Segments {
    expected: bool,
    ends: FxHashMap<FlowEnd, End>,
    /// Number of ends at which to look for those that can be forgotten.
    prune_at: usize,
    /// Segments that had been told at another device.
    pub repeats: u64,
}

/// One end of a flow, in one network namespace.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct FlowEnd {
    netns: u32,
    own: SocketAddr,
    peer: SocketAddr,
}

/// What is known of it.
#[derive(Default)]
struct End {
    /// The initial sequence number of what it sends.
    isn: Option<u32>,
    /// When the first SYN for it came, and how often loss had been noticed by then.
    syn: Option<(u64, u64)>,
    /// A listener has answered a SYN here: a half-open connection.
    is_half_open: bool,
    holder: Holder,
    /// The number of the connection that is about to begin here.
    promised: Option<u64>,
    /// What it has sent lately, once for each direction in which that was seen.
    recent: Vec<Passage>,
    seen_ns: u64,
}

/// Who lives at an end.
#[derive(Default)]
enum Holder {
    #[default]
    Nobody,
    /// A request socket, by its address.
    HalfOpen {
        req: Sk,
        conn: u64,
    },
    Connection {
        sk: Sk,
        conn: u64,
    },
    /// The connection has its line; what the kernel still sends and receives is TIME_WAIT's.
    Ended(Box<Subject>),
}

/// A segment at the first device where it was seen.
struct Passage {
    direction: Direction,
    ifindex: u32,
    /// Without PSH, which segmentation moves.
    flags: u8,
    /// Behind the last byte: a large segment may be cut on its way, and its end stays.
    seq_end: u32,
    ack: Option<u32>,
    mono_ns: u64,
}

/// Sequence and acknowledgment number relative to the initial ones.
#[derive(Clone, Copy, Default)]
struct Relative {
    seq: Option<u32>,
    ack: Option<u32>,
}

impl FlowEnd {
    /// `None` while an address or a port is not known.
    fn of(netns: u32, tuple: &Tuple) -> Option<FlowEnd> {
        Some(FlowEnd {
            netns,
            own: SocketAddr::new(tuple.laddr, tuple.lport?),
            peer: SocketAddr::new(tuple.raddr?, tuple.rport?),
        })
    }

    fn other(self) -> FlowEnd {
        FlowEnd {
            own: self.peer,
            peer: self.own,
            ..self
        }
    }
}

impl End {
    fn is_connection(&self) -> bool {
        matches!(self.holder, Holder::Connection { .. })
    }

    /// The beginning of another connection between the same ends.
    fn begin_again(&mut self) {
        let holder = match std::mem::take(&mut self.holder) {
            Holder::Ended(_) => Holder::Nobody,
            holder => holder,
        };
        *self = End {
            holder,
            recent: std::mem::take(&mut self.recent),
            ..End::default()
        };
    }

    /// Remembers what this end has sent; true when it had been seen at another device. On the same
    /// device it was sent once more.
    fn repeats(&mut self, mono_ns: u64, segment: &Segment) -> bool {
        const PSH: u8 = 1 << 3;
        self.recent
            .retain(|it| mono_ns.saturating_sub(it.mono_ns) <= REPEAT_NS);
        let this = Passage {
            direction: segment.direction,
            ifindex: segment.ifindex,
            flags: segment.flags.0 & !PSH,
            seq_end: segment.seq.wrapping_add(segment.len),
            ack: segment.ack,
            mono_ns,
        };
        let is_same = |it: &&mut Passage| {
            (it.direction, it.flags, it.seq_end, it.ack)
                == (this.direction, this.flags, this.seq_end, this.ack)
        };
        match self.recent.iter_mut().find(is_same) {
            Some(first) if first.ifindex != this.ifindex => return true,
            Some(first) => *first = this,
            None => self.recent.push(this),
        }
        false
    }
}

impl Segments {
    fn end(&mut self, at: FlowEnd, mono_ns: u64) -> &mut End {
        let end = self.ends.entry(at).or_default();
        end.seen_ns = mono_ns;
        end
    }

    fn holder(&self, netns: u32, tuple: &Tuple) -> Option<&Holder> {
        let end = self.ends.get(&FlowEnd::of(netns, tuple)?)?;
        Some(&end.holder)
    }

    /// Learns from a segment. `None` when it is a repeat.
    fn pass(&mut self, mono_ns: u64, segment: &Segment, losses: u64) -> Option<Relative> {
        let Some(own) = FlowEnd::of(segment.netns, &segment.tuple) else {
            return Some(Relative::default());
        };
        let (from, to) = match segment.direction {
            Direction::Sent => (own, own.other()),
            Direction::Received => (own.other(), own),
        };
        if self.end(from, mono_ns).repeats(mono_ns, segment) {
            self.repeats += 1;
            return None;
        }
        if segment.flags.has(TcpFlags::SYN) {
            self.syn(mono_ns, segment, from, to, losses);
        }
        self.end(from, mono_ns).is_half_open |= segment.from_half_open;
        let receiver_isn = self.end(to, mono_ns).isn;
        let sender_isn = self.end(from, mono_ns).isn;
        Some(Relative {
            seq: sender_isn.map(|isn| segment.seq.wrapping_sub(isn)),
            ack: segment
                .ack
                .zip(receiver_isn)
                .map(|(ack, isn)| ack.wrapping_sub(isn)),
        })
    }

    fn syn(&mut self, mono_ns: u64, segment: &Segment, from: FlowEnd, to: FlowEnd, losses: u64) {
        let is_syn_ack = segment.ack.is_some();
        // A connection does not begin again because of a SYN that happens to come.
        let is_stray = self.end(to, mono_ns).is_connection();
        let sender = self.end(from, mono_ns);
        if !is_syn_ack && !is_stray && sender.isn != Some(segment.seq) {
            sender.begin_again();
            self.end(to, mono_ns).begin_again();
        }
        let sender = self.end(from, mono_ns);
        if sender.isn.is_none() || (is_syn_ack && !sender.is_connection()) {
            sender.isn = Some(segment.seq);
        }
        if segment.direction == Direction::Received && !is_syn_ack && !is_stray {
            self.end(to, mono_ns).syn.get_or_insert((mono_ns, losses));
        }
    }

    /// When the first SYN came for a server's end, CLOCK_MONOTONIC in nanoseconds. `None` when it
    /// was not seen, or may be another one's because events were lost since (`losses`: how often
    /// that has been noticed).
    pub fn syn_received(&self, netns: u32, tuple: &Tuple, losses: u64) -> Option<u64> {
        let (mono_ns, losses_then) = self.ends.get(&FlowEnd::of(netns, tuple)?)?.syn?;
        (losses_then == losses).then_some(mono_ns)
    }

    /// A connection lives at its end, as soon as that is known.
    pub fn bind(&mut self, mono_ns: u64, sk: Sk, socket: &Socket) {
        if self.expected
            && let Some(own) = FlowEnd::of(socket.netns, &socket.tuple)
        {
            let conn = socket.conn;
            self.end(own, mono_ns).holder = Holder::Connection { sk, conn };
        }
    }

    /// A half-open connection lives at its end.
    pub fn bind_half_open(&mut self, mono_ns: u64, req: Sk, netns: u32, ends: &Tuple, conn: u64) {
        if self.expected
            && let Some(own) = FlowEnd::of(netns, ends)
        {
            self.end(own, mono_ns).holder = Holder::HalfOpen { req, conn };
        }
    }

    /// It has its line.
    pub fn unbind_half_open(&mut self, netns: u32, ends: &Tuple, line: &fields::Connection) {
        let own = FlowEnd::of(netns, ends);
        if let Some(end) = own.and_then(|own| self.ends.get_mut(&own))
            && matches!(end.holder, Holder::HalfOpen { conn, .. } if Some(conn) == line.subject.conn)
        {
            end.holder = Holder::Ended(Box::new(line.subject.clone()));
        }
    }

    /// Whether nobody lives at a segment's own end, and nobody is known to come.
    fn is_vacant(&self, segment: &Segment) -> bool {
        let own = FlowEnd::of(segment.netns, &segment.tuple);
        let end = own.and_then(|own| self.ends.get(&own));
        end.is_none_or(|end| {
            end.promised.is_none() && matches!(end.holder, Holder::Nobody | Holder::Ended(_))
        })
    }

    /// The number that a segment was told under, and that is the connection's which begins here.
    pub fn take_promise(&mut self, netns: u32, ends: &Tuple) -> Option<u64> {
        let own = FlowEnd::of(netns, ends)?;
        self.ends.get_mut(&own)?.promised.take()
    }

    /// A connection has its line, which learns here when the SYN came, unless that is known better.
    pub fn unbind(&mut self, socket: &Socket, losses: u64, line: &mut fields::Connection) {
        if !self.expected {
            return;
        }
        let is_server = socket.side == Some(Side::Server);
        if let Some(syn) = self.syn_received(socket.netns, &socket.tuple, losses)
            && is_server
            && matches!(line.syn_source, None | Some(Source::Srtt))
            && line.established_mono_ns.is_none_or(|ns| syn <= ns)
        {
            line.syn_mono_ns = Some(syn);
            line.syn_source = Some(Source::Segment);
            line.handshake_ns = line.established_mono_ns.map(|ns| ns - syn);
        }
        let own = FlowEnd::of(socket.netns, &socket.tuple);
        if let Some(end) = own.and_then(|own| self.ends.get_mut(&own))
            && matches!(end.holder, Holder::Connection { conn, .. } if conn == socket.conn)
        {
            end.holder = Holder::Ended(Box::new(line.subject.clone()));
            end.seen_ns = line.mono_ns;
        }
    }

    /// Forgets the ends where nothing has happened for long and nobody lives.
    fn prune(&mut self, mono_ns: u64, lives: impl Fn(Sk, u64) -> bool) {
        if self.ends.len() < self.prune_at.max(FEW) {
            return;
        }
        self.ends.retain(|_, end| match end.holder {
            Holder::Connection { sk, conn } if lives(sk, conn) => true,
            _ => mono_ns.saturating_sub(end.seen_ns) <= REMEMBER_NS,
        });
        self.prune_at = 2 * self.ends.len();
    }
}

impl Correlator {
    /// Segments will be among the events.
    pub fn expect_segments(&mut self) {
        self.segments.expected = true;
    }

    /// Looks ahead before an event is told, for what it does not say itself; if this says yes,
    /// [`foreseen`](Self::foreseen) is to be said.
    ///
    /// A segment: whether a connection begins right after it, at the end that it came to. Then it has
    /// that connection's number, which it is the first to show. The birth of a server's socket:
    /// whether a SYN has made it, see [`is_by_syn`]. An event that may be late data: whether this host
    /// answers it with a RST.
    ///
    /// `later`: what follows, in order of time, for at least [`FORESEEN_NS`]
    /// (`order::HOLD_BACK_NS` is more than that).
    pub fn foresees(&self, event: &Event, later: &[Event]) -> bool {
        match &event.kind {
            // The others are somebody's already, and looking costs time.
            Kind::Segment(segment) if self.segments.is_vacant(segment) => {
                begins(event.mono_ns, segment, later)
            }
            Kind::SetState(change) if is_by_syn(event, change, later) => true,
            kind => may_be_late_data(kind)
                .is_some_and(|sk| is_answered_by_rst(event.mono_ns, sk, later)),
        }
    }

    /// The next event is one for which [`foresees`](Self::foresees) is true.
    pub fn foreseen(&mut self) {
        self.foreseen = true;
    }

    /// How many ends of flows are remembered.
    #[cfg(test)]
    pub(super) fn remembered_ends(&self) -> usize {
        self.segments.ends.len()
    }

    /// A segment passed a device.
    pub(super) fn segment(&mut self, event: &Event, segment: &Segment, out: &mut Vec<Line>) {
        let Some(relative) = self.segments.pass(event.mono_ns, segment, self.losses) else {
            return;
        };
        out.push(Line::Segment(fields::Segment {
            mono_ns: event.mono_ns,
            subject: self.subject_of(event, segment),
            direction: segment.direction,
            flags: segment.flags,
            seq: segment.seq,
            ack: segment.ack,
            rel_seq: relative.seq,
            rel_ack: relative.ack,
            len: segment.len,
            win: segment.window,
            ifindex: segment.ifindex,
            cpu: event.cpu,
        }));
        self.segments.prune(event.mono_ns, |sk, conn| {
            let closed = self.queued_closed.get(&sk).map(|it| it.socket.conn);
            [self.open.conn_at(sk), closed].contains(&Some(conn))
        });
    }

    /// The connection that has been foreseen, or was when an earlier segment came.
    fn promised(&mut self, event: &Event, segment: &Segment) -> Option<Subject> {
        let (netns, tuple) = (segment.netns, segment.tuple);
        let own = FlowEnd::of(netns, &tuple)?;
        let promised = self.segments.ends.get(&own).and_then(|end| end.promised);
        let conn = match promised {
            Some(conn) => conn,
            None if self.foreseen => self.next_conn(),
            None => return None,
        };
        self.segments.end(own, event.mono_ns).promised = Some(conn);
        let socket = HalfOpen::socket(conn, netns, tuple);
        let listener = self.listeners.of_child(&socket, event.mono_ns, false);
        Some(socket.subject(self.presumed(listener)))
    }

    /// Whose segment it is: the socket's that sent it, or else whoever lives at the own end.
    fn subject_of(&mut self, event: &Event, segment: &Segment) -> Subject {
        let (netns, tuple) = (segment.netns, &segment.tuple);
        let may_be = |socket: &Socket| socket.netns == netns && socket.may_be(tuple);
        if let Some(sk) = segment.sk
            && let Some(it) = living(&mut self.open, &mut self.queued_closed, sk, may_be)
        {
            // A SYN is the first to know the port that the kernel has chosen.
            it.socket.learn(tuple, None);
            self.segments.bind(event.mono_ns, sk, &it.socket);
            let orphaned = it.socket.was_orphaned;
            let owner = whose(&self.listeners, &self.processes, it, orphaned);
            return it.socket.subject(owner);
        }
        match self.segments.holder(netns, tuple) {
            Some(Holder::Ended(subject)) => return (**subject).clone(),
            Some(&Holder::Connection { sk, conn }) => {
                let is_it = |socket: &Socket| socket.conn == conn;
                if let Some(it) = living(&mut self.open, &mut self.queued_closed, sk, is_it) {
                    let orphaned = it.socket.was_orphaned;
                    let owner = whose(&self.listeners, &self.processes, it, orphaned);
                    return it.socket.subject(owner);
                }
            }
            Some(&Holder::HalfOpen { req, conn }) => {
                let half_open = self.requests.half_open(req);
                if let Some(half_open) = half_open.filter(|it| it.conn() == conn) {
                    let owner = (half_open.listener)
                        .and_then(|id| presumed(&self.listeners, &self.processes, id));
                    return half_open.subject(owner);
                }
            }
            Some(Holder::Nobody) | None => {}
        }
        if let Some(subject) = self.promised(event, segment) {
            return subject;
        }
        let own = FlowEnd::of(netns, tuple).and_then(|own| self.segments.ends.get(&own));
        let side = own
            .is_some_and(|end| end.is_half_open)
            .then_some(Side::Server);
        let nobody = Socket::found(0, side, netns, *tuple, State::NewSynRecv);
        Subject {
            conn: None,
            ..nobody.subject(None)
        }
    }
}

/// How soon the segments that begin a connection are followed by it, in nanoseconds: a request by
/// its SYN in the same softirq, a child by its ACK as well.
const FORESEEN_NS: u64 = 1_000_000;

/// Whether a request or a child appears right after this segment, at the end that it came to, and
/// before another SYN could be the one that makes it.
fn begins(mono_ns: u64, segment: &Segment, later: &[Event]) -> bool {
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
fn is_by_syn(event: &Event, change: &SetState, later: &[Event]) -> bool {
    if birth(change) != Some(Side::Server) || change.no_fast_open {
        return false;
    }
    let mut same_cpu = later.iter().filter(|it| {
        let is_look = matches!(it.kind, Kind::Found(_) | Kind::Looked(_));
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

/// The connection at a pointer, if it is the one that is meant.
fn living<'a>(
    open: &'a mut Table,
    queued_closed: &'a mut FxHashMap<Sk, Kept>,
    sk: Sk,
    is_meant: impl Fn(&Socket) -> bool,
) -> Option<&'a mut Connection> {
    let closed = queued_closed.get_mut(&sk).map(Box::as_mut);
    [open.get_mut(sk), closed]
        .into_iter()
        .flatten()
        .find(|connection| is_meant(&connection.socket))
}
