//! Segments that met a full queue of their listener, and the connections of those segments.

use crate::correlate::state::Correlator;
use crate::correlate::state::connection::Connection;
use crate::correlate::state::half_open::HalfOpen;
use crate::correlate::state::listener::ListenerId;
use crate::correlate::state::peers::Peer;
use crate::event::{self, Event, OverflowSegment};
use crate::fields::{self, Line, Side};

impl Correlator {
    /// Handles a segment that met a full queue.
    pub(super) fn overflow(
        &mut self,
        event: &Event,
        overflow: &event::Overflow,
        out: &mut Vec<Line>,
    ) {
        let listener =
            (self.listeners).of_pointer(overflow.listener, overflow.netns, event.mono_ns);
        let owner = self.presumed(listener);
        let listener_conn = listener.map(ListenerId::conn);
        if let Some(isn) = overflow.isn {
            self.dropped_syns.note(event, overflow, isn, listener_conn);
        }
        let client = self.client_of(event, overflow, listener_conn);
        let half_open = overflow
            .req
            .and_then(|req| self.requests.half_open(req))
            .filter(|half_open| half_open.key() == (overflow.netns, overflow.tuple));
        let subject = match half_open {
            Some(half_open) => {
                let drops = &mut half_open.handshake.drops;
                drops.note(event.mono_ns, overflow, listener_conn);
                half_open.aborted |= overflow.aborted;
                half_open.peer = client.or(half_open.peer);
                half_open.subject(owner)
            }
            None => fields::Subject {
                conn: None,
                ..HalfOpen::socket(0, overflow.netns, overflow.tuple).subject(None)
            },
        };
        if let Some(id) = listener
            && !overflow.reserve
        {
            self.listeners.limited(id, overflow.backlog_max);
        }
        if self.select.wants_overflow(listener_conn, &subject) {
            let (netns, tuple) = (overflow.netns, &overflow.tuple);
            self.listeners.stats(listener, netns, tuple).overflows += 1;
        }
        out.push(Line::Overflow(fields::Overflow {
            mono_ns: event.mono_ns,
            subject,
            listener: listener_conn,
            dropped: overflow.segment,
            queue: overflow.queue,
            queue_len: overflow.backlog_len,
            queue_max: overflow.backlog_max,
            reserve: overflow.reserve,
            aborted: overflow.aborted,
        }));
    }

    /// Returns the client on this host that sent the final ACK, and notes the drop at that client.
    fn client_of(
        &mut self,
        event: &Event,
        overflow: &event::Overflow,
        listener: Option<u64>,
    ) -> Option<Peer> {
        let is_ack = overflow.segment == OverflowSegment::Ack;
        let waiting = self.peers.waiting_for(overflow.netns, &overflow.tuple);
        let (sk, peer) = waiting.filter(|_| is_ack)?;
        let client = self.open.get_mut(sk)?;
        if client.socket.conn != peer.conn {
            return None;
        }
        let drops = &mut client.handshake.drops;
        drops.note(event.mono_ns, overflow, listener);
        Some(peer)
    }

    /// Looks for drops of a client's SYN when the client leaves SYN_SENT or ends there.
    pub(super) fn ask_after_syn(&self, client: &mut Connection) {
        let Some((syn_ns, _)) = client.handshake.syn else {
            return;
        };
        if client.socket.side == Some(Side::Client)
            && let Some(drops) =
                self.dropped_syns
                    .of_client(client.socket.netns, &client.socket.tuple, syn_ns)
        {
            client.handshake.drops.syn = drops.syn;
        }
    }
}
