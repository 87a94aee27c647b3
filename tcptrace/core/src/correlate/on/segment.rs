//! Segments: their connections, relative sequence numbers, and repeats at other devices.
//!
//! A sent segment names its socket. A received one does not. Therefore the endpoints of flows are
//! remembered with their sockets and initial sequence numbers.

use rustc_hash::FxHashMap;

use crate::correlate::judge::lookahead::{begins, is_answered_by_rst, is_by_syn, may_be_late_data};
use crate::correlate::state::Correlator;
use crate::correlate::state::connection::Connection;
use crate::correlate::state::half_open::HalfOpen;
use crate::correlate::state::processes::{current_owner, presumed};
use crate::correlate::state::segments::{FlowKey, Holder};
use crate::correlate::state::socket::Socket;
use crate::correlate::state::table::{Kept, Table};
use crate::event::{Event, Kind, Segment, Sk, State};
use crate::fields::{self, Line, Side, Subject};

impl Correlator {
    /// Declares that segments are traced.
    pub fn expect_segments(&mut self) {
        self.segments.expected = true;
    }

    /// Looks ahead for a fact about an event that only the following events show. If it returns
    /// true, call [`note_lookahead`](Self::note_lookahead) before the event.
    ///
    /// - A segment: whether a connection begins right after it with its tuple. The segment then
    ///   gets that connection's number before any other line.
    /// - The birth of a server's socket: whether a SYN made it, see `lookahead::is_by_syn`.
    /// - An event that data received after close() may have caused: whether this host answers with
    ///   a RST.
    ///
    /// `later`: the following events in order of time, for at least `lookahead::LOOKAHEAD_NS`.
    /// `order::HOLD_BACK_NS` is longer than that.
    pub fn look_ahead(&self, event: &Event, later: &[Event]) -> bool {
        match &event.kind {
            // Other segments have a connection already, and the lookahead costs time.
            Kind::Segment(segment) if self.segments.is_vacant(segment) => {
                begins(event.mono_ns, segment, later)
            }
            Kind::SetState(change) if is_by_syn(event, change, later) => true,
            kind => may_be_late_data(kind)
                .is_some_and(|sk| is_answered_by_rst(event.mono_ns, sk, later)),
        }
    }

    /// Notes that [`look_ahead`](Self::look_ahead) is true for the next event.
    pub fn note_lookahead(&mut self) {
        self.lookahead = true;
    }

    /// Returns the number of remembered endpoints of flows.
    #[cfg(test)]
    pub(crate) fn remembered_flows(&self) -> usize {
        self.segments.flows.len()
    }

    /// Handles a segment that passed a network device.
    pub(super) fn segment(&mut self, event: &Event, segment: &Segment, out: &mut Vec<Line>) {
        let Some(relative) = self.segments.pass(event.mono_ns, segment, self.losses) else {
            return;
        };
        let subject = self.subject_of(event, segment);
        if !self.wants(fields::Kind::Segment) {
            return;
        }
        out.push(Line::Segment(fields::Segment {
            mono_ns: event.mono_ns,
            subject,
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

    /// Returns the subject of the connection that the lookahead found to begin after this or an
    /// earlier segment.
    fn upcoming(&mut self, event: &Event, segment: &Segment) -> Option<Subject> {
        let (netns, tuple) = (segment.netns, segment.tuple);
        let own = FlowKey::of(netns, &tuple)?;
        let upcoming = self.segments.flows.get(&own).and_then(|flow| flow.upcoming);
        let conn = match upcoming {
            Some(conn) => conn,
            None if self.lookahead => self.next_conn(),
            None => return None,
        };
        self.segments.flow(own, event.mono_ns).upcoming = Some(conn);
        let socket = HalfOpen::socket(conn, netns, tuple);
        let listener = self.listeners.of_child(&socket, event.mono_ns, false);
        Some(socket.subject(self.presumed(listener)))
    }

    /// Returns the subject of a segment: the socket that sent it, or else the socket at its local
    /// endpoint.
    fn subject_of(&mut self, event: &Event, segment: &Segment) -> Subject {
        let (netns, tuple) = (segment.netns, &segment.tuple);
        let may_be = |socket: &Socket| socket.netns == netns && socket.may_be(tuple);
        if let Some(sk) = segment.sk
            && let Some(it) = connection_at(&mut self.open, &mut self.queued_closed, sk, may_be)
        {
            // A SYN is the first event with the port that the kernel has chosen.
            it.socket.learn(tuple, None);
            self.segments.bind(event.mono_ns, sk, &it.socket);
            let orphaned = it.socket.was_orphaned;
            let owner = current_owner(&self.listeners, &self.processes, it, orphaned);
            return it.socket.subject(owner);
        }
        match self.segments.holder(netns, tuple) {
            Some(Holder::Ended(subject)) => return (**subject).clone(),
            Some(&Holder::Connection { sk, conn }) => {
                let is_it = |socket: &Socket| socket.conn == conn;
                if let Some(it) = connection_at(&mut self.open, &mut self.queued_closed, sk, is_it)
                {
                    let orphaned = it.socket.was_orphaned;
                    let owner = current_owner(&self.listeners, &self.processes, it, orphaned);
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
            Some(Holder::Vacant) | None => {}
        }
        if let Some(subject) = self.upcoming(event, segment) {
            return subject;
        }
        let own = FlowKey::of(netns, tuple).and_then(|own| self.segments.flows.get(&own));
        let side = own
            .is_some_and(|flow| flow.is_half_open)
            .then_some(Side::Server);
        let unknown = Socket::with_state(0, side, netns, *tuple, State::NewSynRecv);
        Subject {
            conn: None,
            ..unknown.subject(None)
        }
    }
}

/// Returns the connection at a kernel address, if `is_meant` is true for its socket.
fn connection_at<'a>(
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
