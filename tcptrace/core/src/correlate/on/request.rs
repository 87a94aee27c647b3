//! Half-open connections: request sockets from the SYN on, to the child socket that the final ACK
//! makes, or to an end without a child.
//!
//! A request socket has a connection number from the SYN on, and its child socket inherits the
//! number. Where functions can be probed, a hook reports just before a child's birth which request
//! socket it comes from. Elsewhere, only a SYN-ACK retransmission shows a request socket. The child
//! of that request socket is then found by its tuple. The time of any other child's SYN is
//! estimated.

use crate::correlate::judge::cause;
use crate::correlate::state::Correlator;
use crate::correlate::state::connection::Connection;
use crate::correlate::state::half_open::HalfOpen;
use crate::correlate::state::handshake::{Handshake, TIMESTAMP_NS};
use crate::correlate::state::requests::{Cloning, Origin};
use crate::event::{CloneOf, Event, Request, RequestStep, SetState, State};
use crate::fields::{Cause, HalfOpenEnd, Kind, Line, ListenerSource, Side, Source};

impl Correlator {
    /// Handles an event of a request socket.
    pub(super) fn request(&mut self, event: &Event, request: &Request, out: &mut Vec<Line>) {
        match request.step {
            RequestStep::Begun => {
                let mut half_open = self.begin(event, request, Some(event.mono_ns), out);
                if let Some(id) = half_open.listener {
                    self.check_presumed_owner(id, event.mono_ns);
                }
                if self.wants(Kind::Transition) {
                    let owner = self.presumed(half_open.listener);
                    let line = half_open.begins(event, owner, cause::half_open());
                    out.push(Line::Transition(line));
                }
                half_open.has_line = true;
                self.segments.bind_half_open(
                    event.mono_ns,
                    request.req,
                    request.netns,
                    &request.tuple,
                    half_open.conn(),
                );
                self.requests.insert(request.req, half_open);
            }
            RequestStep::Cloning(of) => {
                let cloning = Cloning {
                    mono_ns: event.mono_ns,
                    request: *request,
                    of,
                    losses: self.losses,
                };
                self.requests.cloning.insert(event.cpu, cloning);
            }
            RequestStep::SynackRetransmitted => {
                if let Some(child) = self.open.get_mut(request.sk) {
                    child.handshake.synack_retransmits = Some(request.synack_retransmits);
                    return;
                }
                let mut half_open = self.known_or_new(event, request, out);
                half_open.handshake.synack_retransmits = Some(request.synack_retransmits);
                self.suspect_ack(event.mono_ns, &mut half_open);
                // Without a hook for the SYN, this is the first event of the request socket.
                self.segments.bind_half_open(
                    event.mono_ns,
                    request.req,
                    request.netns,
                    &request.tuple,
                    half_open.conn(),
                );
                self.requests.insert(request.req, half_open);
            }
            RequestStep::Dropped {
                by_timer,
                listening,
            } => {
                let mut half_open = self.known_or_new(event, request, out);
                let end = match (listening, by_timer) {
                    (false, _) => Some(HalfOpenEnd::ListenerClosed),
                    (true, true) => Some(HalfOpenEnd::Timeout),
                    (true, false) if half_open.aborted => Some(HalfOpenEnd::Overflow),
                    (true, false) if self.visibility.overflows => Some(HalfOpenEnd::Reset),
                    // The kernel may also have dropped the request socket because
                    // tcp_abort_on_overflow is set and the accept queue is full.
                    (true, false) => None,
                };
                half_open.handshake.synack_retransmits = Some(request.synack_retransmits);
                let owner = self.presumed(half_open.listener);
                let why = end.and_then(cause::half_open_end);
                out.push(Line::Transition(half_open.closes(event, owner, end, why)));
                self.end_half_open(half_open, event.mono_ns, out);
            }
        }
    }

    /// Returns the origin of a new child socket: the request socket that this CPU was about to
    /// clone, or else the one with the same tuple.
    pub(super) fn origin(&mut self, event: &Event, change: &SetState) -> Option<Origin> {
        if !matches!(change.oldstate, State::Listen | State::SynRecv) {
            return None;
        }
        let cloned = self.requests.cloning.remove(&event.cpu).filter(|cloning| {
            let request = &cloning.request;
            let socket = HalfOpen::socket(0, request.netns, request.tuple);
            cloning.losses == self.losses
                && request.netns == change.netns
                && socket.may_be(&change.tuple)
        });
        match cloned {
            Some(cloning) => Some(self.cloned(&cloning)),
            None => self.request_at(change),
        }
    }

    /// Copies the facts about a request socket to its child socket.
    pub(super) fn inherit(&self, child: &mut Connection, origin: Origin) {
        child.handshake = origin.handshake;
        child.born_by = Some(origin.cause);
        if let Some(id) = origin.listener
            && child.listener.is_none()
        {
            child.cloned_from(id, ListenerSource::Request);
        }
    }

    fn cloned(&mut self, cloning: &Cloning) -> Origin {
        let request = &cloning.request;
        let half_open = self.requests.take(request.req);
        let half_open = half_open.filter(|_| cloning.of == CloneOf::Request);
        let now = Handshake::of(request, self.dropped_syns.of_request(request));
        let handshake = match cloning.of {
            CloneOf::Request => Handshake {
                syn: half_open
                    .as_ref()
                    .and_then(|it| it.handshake.syn)
                    .or(now.syn),
                syn_queue_ahead: half_open
                    .as_ref()
                    .and_then(|it| it.handshake.syn_queue_ahead),
                drops: half_open
                    .as_ref()
                    .map_or(now.drops, |it| it.handshake.drops),
                suspected: half_open
                    .as_ref()
                    .map_or(now.suspected, |it| it.handshake.suspected),
                ..now
            },
            CloneOf::Cookie => Handshake {
                syncookie: Some(true),
                defer_accept: now.defer_accept,
                drops: now.drops,
                ..Handshake::default()
            },
            CloneOf::FastOpen => Handshake {
                syn: Some((cloning.mono_ns, Source::RequestSock)),
                synack_retransmits: self.visibility.synack_retransmits.then_some(0),
                ..now
            },
        };
        Origin {
            conn: half_open.map(|it| it.conn()),
            listener: (self.listeners).of_pointer(request.sk, request.netns, cloning.mono_ns),
            handshake,
            cause: match cloning.of {
                CloneOf::Request | CloneOf::Cookie => Cause::AckReceived,
                CloneOf::FastOpen => Cause::SynReceived,
            },
        }
    }

    /// Returns the request socket with the tuple of a child socket, if the tuple is complete.
    fn request_at(&mut self, child: &SetState) -> Option<Origin> {
        let half_open = self.requests.take_at(child.netns, child.tuple)?;
        Some(Origin {
            conn: Some(half_open.conn()),
            listener: half_open.listener,
            handshake: half_open.handshake,
            // The SYN-ACK was retransmitted, so the connection was half-open, and now it has a
            // child socket.
            cause: Cause::AckReceived,
        })
    }

    /// Estimates the time of the SYN when a server's child socket becomes ESTABLISHED, unless a
    /// request socket has shown it.
    ///
    /// The first round-trip time that the kernel measures goes from the SYN-ACK to this ACK, unless
    /// the SYN-ACK was retransmitted or was a cookie. In these cases it comes from a TCP timestamp,
    /// or there is none (`tcp_synack_rtt_meas` and `tcp_ack_update_rtt`, net/ipv4/tcp_input.c,
    /// Linux 6.12). With Fast Open the child is older than the SYN-ACK.
    pub(super) fn estimate_syn(
        &mut self,
        child: &mut Connection,
        event: &Event,
        at: &SetState,
        out: &mut Vec<Line>,
    ) {
        if child.handshake.syn.is_some() || child.handshake.syncookie.is_some() {
            return;
        }
        if let Some(mut half_open) = self.requests.take_at(at.netns, at.tuple) {
            child.handshake = half_open.handshake;
            // The kernel skipped the eBPF program that joins request socket and child socket.
            // Therefore one connection has two connection numbers.
            if half_open.has_line {
                half_open.child = Some(child.socket.conn);
                self.end_half_open(half_open, event.mono_ns, out);
            }
            return;
        }
        let estimate = at
            .srtt_ns
            .filter(|rtt| rtt % TIMESTAMP_NS != 0)
            .and_then(|rtt| event.mono_ns.checked_sub(rtt))
            .filter(|&syn| self.attached_ns <= syn && syn < child.first_seen_ns);
        if let (true, Some(syn)) = (self.visibility.synack_retransmits, estimate) {
            child.handshake.syn = Some((syn, Source::Srtt));
            child.handshake.synack_retransmits = Some(0);
        }
    }

    fn known_or_new(&mut self, event: &Event, request: &Request, out: &mut Vec<Line>) -> HalfOpen {
        match self.requests.take(request.req) {
            Some(known) if known.key() == (request.netns, request.tuple) => known,
            Some(other) => {
                self.end_half_open(other.gone(), event.mono_ns, out);
                self.begin(event, request, None, out)
            }
            None => self.begin(event, request, None, out),
        }
    }

    /// Begins the record of a request socket. Any record at its kernel address or with its tuple
    /// ends.
    fn begin(
        &mut self,
        event: &Event,
        request: &Request,
        syn_ns: Option<u64>,
        out: &mut Vec<Line>,
    ) -> HalfOpen {
        let before = [
            self.requests.take(request.req),
            self.requests.take_at(request.netns, request.tuple),
        ];
        for half_open in before.into_iter().flatten() {
            self.end_half_open(half_open.gone(), event.mono_ns, out);
        }
        let listener = (self.listeners).of_pointer(request.sk, request.netns, event.mono_ns);
        let mut handshake = Handshake::of(request, self.dropped_syns.of_request(request));
        if let Some(ns) = syn_ns {
            handshake.syn = Some((ns, Source::RequestSock));
            handshake.syn_queue_ahead = Some(request.syn_queue_len);
        }
        let upcoming = (self.segments).take_upcoming(request.netns, &request.tuple);
        let conn = upcoming.unwrap_or_else(|| self.next_conn());
        let socket = HalfOpen::socket(conn, request.netns, request.tuple);
        HalfOpen::new(socket, listener, handshake, self.losses)
    }

    /// Ends half-open connections in the order of their connection numbers.
    pub(super) fn end_half_opens(
        &mut self,
        mut all: Vec<HalfOpen>,
        mono_ns: u64,
        out: &mut Vec<Line>,
    ) {
        all.sort_unstable_by_key(HalfOpen::conn);
        for half_open in all {
            self.end_half_open(half_open, mono_ns, out);
        }
    }

    /// Counts a half-open connection that has no child socket, and writes its line.
    fn end_half_open(&mut self, half_open: HalfOpen, mono_ns: u64, out: &mut Vec<Line>) {
        let (netns, tuple) = half_open.key();
        let client = self.peers.waiting_for(netns, &tuple);
        let client = half_open.peer.or(client.map(|(_, peer)| peer));
        let owner = self.presumed(half_open.listener);
        let line = half_open.line(&self.end_at(mono_ns, false), client, owner);
        self.segments.unbind_half_open(netns, &tuple, &line);
        debug_assert_eq!(line.subject.side, Some(Side::Server));
        self.half_open_ended(&half_open);
        out.push(Line::Connection(line));
    }
}
