//! Flows that segments have shown: the socket at each endpoint and its initial sequence number.

use std::net::SocketAddr;

use rustc_hash::FxHashMap;

use super::socket::Socket;
use crate::event::{Direction, Segment, Sk, TcpFlags, Tuple};
use crate::fields::{self, Side, Source, Subject};

/// A segment that passes another device of the host within this time (in nanoseconds) is a repeat
/// and is not reported again. The time must cover the way between two devices and no more.
pub const REPEAT_NS: u64 = 100_000_000;

/// How long an endpoint without a socket is remembered after its last segment, in nanoseconds. The
/// kernel answers for a closed connection in TIME_WAIT (TCP_TIMEWAIT_LEN, include/net/tcp.h).
pub const REMEMBER_NS: u64 = 60_000_000_000;

/// Below this number of endpoints, none is forgotten.
pub const FEW: usize = 4096;

/// The endpoints of flows that segments have shown. Empty unless segments are traced.
#[derive(Default)]
pub struct Segments {
    pub expected: bool,
    pub flows: FxHashMap<FlowKey, Flow>,
    /// Number of endpoints at which old ones are removed.
    pub prune_at: usize,
    /// Number of segments that another device had already reported.
    pub repeats: u64,
}

/// One endpoint of a flow, in one network namespace.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey {
    pub netns: u32,
    pub own: SocketAddr,
    pub peer: SocketAddr,
}

/// Facts about one endpoint of a flow.
#[derive(Default)]
pub struct Flow {
    /// The initial sequence number of the segments that this endpoint sends.
    pub isn: Option<u32>,
    /// When this endpoint received the first SYN, and the number of event losses noticed by then.
    pub syn: Option<(u64, u64)>,
    /// True if a listener has answered a SYN at this endpoint.
    pub is_half_open: bool,
    pub holder: Holder,
    /// The connection number given in advance to the connection that is about to begin here.
    pub upcoming: Option<u64>,
    /// The segments that this endpoint sent recently, each at the first device that reported it.
    pub recent: Vec<Passage>,
    pub seen_ns: u64,
}

/// The socket at one endpoint of a flow.
#[derive(Default)]
pub enum Holder {
    #[default]
    Vacant,
    /// A request socket, by its kernel address.
    HalfOpen {
        req: Sk,
        conn: u64,
    },
    Connection {
        sk: Sk,
        conn: u64,
    },
    /// The `connection` line was written. Later segments belong to the TIME_WAIT of that
    /// connection.
    Ended(Box<Subject>),
}

/// A segment at the first device where it was seen.
pub struct Passage {
    pub direction: Direction,
    pub ifindex: u32,
    /// Flags without PSH, which segmentation moves to another segment.
    pub flags: u8,
    /// The sequence number after the last byte. Segmentation does not change it.
    pub seq_end: u32,
    pub ack: Option<u32>,
    pub mono_ns: u64,
}

/// Sequence and acknowledgment number relative to the initial ones.
#[derive(Clone, Copy, Default)]
pub struct Relative {
    pub seq: Option<u32>,
    pub ack: Option<u32>,
}

impl FlowKey {
    /// Returns the local endpoint of a tuple; `None` while an address or a port is unknown.
    pub fn of(netns: u32, tuple: &Tuple) -> Option<FlowKey> {
        Some(FlowKey {
            netns,
            own: SocketAddr::new(tuple.laddr, tuple.lport?),
            peer: SocketAddr::new(tuple.raddr?, tuple.rport?),
        })
    }

    pub fn other(self) -> FlowKey {
        FlowKey {
            own: self.peer,
            peer: self.own,
            ..self
        }
    }
}

impl Flow {
    pub fn is_connection(&self) -> bool {
        matches!(self.holder, Holder::Connection { .. })
    }

    /// Clears the endpoint because another connection with the same addresses begins.
    pub fn begin_again(&mut self) {
        let holder = match std::mem::take(&mut self.holder) {
            Holder::Ended(_) => Holder::Vacant,
            holder => holder,
        };
        *self = Flow {
            holder,
            recent: std::mem::take(&mut self.recent),
            ..Flow::default()
        };
    }

    /// Remembers a segment that this endpoint sent. Returns true if another device had already
    /// reported it. On the same device, a second report is a retransmission.
    pub fn repeats(&mut self, mono_ns: u64, segment: &Segment) -> bool {
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
    pub fn flow(&mut self, at: FlowKey, mono_ns: u64) -> &mut Flow {
        let flow = self.flows.entry(at).or_default();
        flow.seen_ns = mono_ns;
        flow
    }

    pub fn holder(&self, netns: u32, tuple: &Tuple) -> Option<&Holder> {
        let flow = self.flows.get(&FlowKey::of(netns, tuple)?)?;
        Some(&flow.holder)
    }

    /// Learns sequence numbers from a segment. Returns `None` if another device had already
    /// reported it.
    pub fn pass(&mut self, mono_ns: u64, segment: &Segment, losses: u64) -> Option<Relative> {
        let Some(own) = FlowKey::of(segment.netns, &segment.tuple) else {
            return Some(Relative::default());
        };
        let (from, to) = match segment.direction {
            Direction::Sent => (own, own.other()),
            Direction::Received => (own.other(), own),
        };
        if self.flow(from, mono_ns).repeats(mono_ns, segment) {
            self.repeats += 1;
            return None;
        }
        if segment.flags.has(TcpFlags::SYN) {
            self.syn(mono_ns, segment, from, to, losses);
        }
        self.flow(from, mono_ns).is_half_open |= segment.from_half_open;
        let receiver_isn = self.flow(to, mono_ns).isn;
        let sender_isn = self.flow(from, mono_ns).isn;
        Some(Relative {
            seq: sender_isn.map(|isn| segment.seq.wrapping_sub(isn)),
            ack: segment
                .ack
                .zip(receiver_isn)
                .map(|(ack, isn)| ack.wrapping_sub(isn)),
        })
    }

    pub fn syn(
        &mut self,
        mono_ns: u64,
        segment: &Segment,
        from: FlowKey,
        to: FlowKey,
        losses: u64,
    ) {
        let is_syn_ack = segment.ack.is_some();
        // A SYN for an endpoint with an open connection does not begin another connection.
        let is_stray = self.flow(to, mono_ns).is_connection();
        let sender = self.flow(from, mono_ns);
        if !is_syn_ack && !is_stray && sender.isn != Some(segment.seq) {
            sender.begin_again();
            self.flow(to, mono_ns).begin_again();
        }
        let sender = self.flow(from, mono_ns);
        if sender.isn.is_none() || (is_syn_ack && !sender.is_connection()) {
            sender.isn = Some(segment.seq);
        }
        if segment.direction == Direction::Received && !is_syn_ack && !is_stray {
            self.flow(to, mono_ns).syn.get_or_insert((mono_ns, losses));
        }
    }

    /// Returns when a server's endpoint received the first SYN, CLOCK_MONOTONIC in nanoseconds.
    /// Returns `None` if the SYN was not seen. Also returns `None` if events were lost since,
    /// because then the SYN may belong to another connection. `losses`: the number of event losses
    /// noticed so far.
    pub fn syn_received(&self, netns: u32, tuple: &Tuple, losses: u64) -> Option<u64> {
        let (mono_ns, losses_then) = self.flows.get(&FlowKey::of(netns, tuple)?)?.syn?;
        (losses_then == losses).then_some(mono_ns)
    }

    /// Notes the connection at its endpoint, if the tuple is complete.
    pub fn bind(&mut self, mono_ns: u64, sk: Sk, socket: &Socket) {
        if self.expected
            && let Some(own) = FlowKey::of(socket.netns, &socket.tuple)
        {
            let conn = socket.conn;
            self.flow(own, mono_ns).holder = Holder::Connection { sk, conn };
        }
    }

    /// Notes the half-open connection at its endpoint.
    pub fn bind_half_open(&mut self, mono_ns: u64, req: Sk, netns: u32, tuple: &Tuple, conn: u64) {
        if self.expected
            && let Some(own) = FlowKey::of(netns, tuple)
        {
            self.flow(own, mono_ns).holder = Holder::HalfOpen { req, conn };
        }
    }

    /// Notes at its endpoint that a half-open connection has its `connection` line.
    pub fn unbind_half_open(&mut self, netns: u32, tuple: &Tuple, line: &fields::Connection) {
        let own = FlowKey::of(netns, tuple);
        if let Some(flow) = own.and_then(|own| self.flows.get_mut(&own))
            && matches!(flow.holder, Holder::HalfOpen { conn, .. } if Some(conn) == line.subject.conn)
        {
            flow.holder = Holder::Ended(Box::new(line.subject.clone()));
        }
    }

    /// Returns whether no socket is known at a segment's local endpoint, and none is about to begin
    /// there.
    pub fn is_vacant(&self, segment: &Segment) -> bool {
        let own = FlowKey::of(segment.netns, &segment.tuple);
        let flow = own.and_then(|own| self.flows.get(&own));
        flow.is_none_or(|flow| {
            flow.upcoming.is_none() && matches!(flow.holder, Holder::Vacant | Holder::Ended(_))
        })
    }

    /// Takes the connection number that was given in advance to the connection that begins here.
    pub fn take_upcoming(&mut self, netns: u32, tuple: &Tuple) -> Option<u64> {
        let own = FlowKey::of(netns, tuple)?;
        self.flows.get_mut(&own)?.upcoming.take()
    }

    /// Notes at its endpoint that a connection has its `connection` line. Adds the time of the SYN
    /// to the line unless the line has it from better evidence.
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
        let own = FlowKey::of(socket.netns, &socket.tuple);
        if let Some(flow) = own.and_then(|own| self.flows.get_mut(&own))
            && matches!(flow.holder, Holder::Connection { conn, .. } if conn == socket.conn)
        {
            flow.holder = Holder::Ended(Box::new(line.subject.clone()));
            flow.seen_ns = line.mono_ns;
        }
    }

    /// Forgets the endpoints without a socket and without recent segments.
    pub fn prune(&mut self, mono_ns: u64, is_open: impl Fn(Sk, u64) -> bool) {
        if self.flows.len() < self.prune_at.max(FEW) {
            return;
        }
        self.flows.retain(|_, flow| match flow.holder {
            Holder::Connection { sk, conn } if is_open(sk, conn) => true,
            _ => mono_ns.saturating_sub(flow.seen_ns) <= REMEMBER_NS,
        });
        self.prune_at = 2 * self.flows.len();
    }
}
