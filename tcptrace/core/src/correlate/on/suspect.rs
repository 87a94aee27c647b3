//! Drops at full accept queues that no hook sees.
//!
//! A dropped SYN shows only as a SYN that is sent again, a dropped final ACK as a SYN-ACK that is.
//! If the accept queue was full at that time, that is the likely cause, and is called so.

use crate::correlate::state::Correlator;
use crate::correlate::state::connection::Connection;
use crate::correlate::state::half_open::HalfOpen;
use crate::event::Sk;

impl Correlator {
    /// A client's SYN is sent.
    pub(super) fn suspect_syn(&self, mono_ns: u64, client: &mut Connection) {
        if !self.sight.overflows
            && let Some((listener, full)) = self.listeners.full_for(&client.socket)
        {
            let suspected = &mut client.handshake.suspected;
            suspected.note_syn(mono_ns, listener, full);
        }
    }

    /// The SYN of an open client is sent again.
    pub(super) fn suspect_syn_again(&mut self, mono_ns: u64, sk: Sk) {
        let Some(client) = self.open.get_mut(sk) else {
            return;
        };
        let suspected = &mut client.handshake.suspected;
        suspected.syn_again = suspected.syn_again.saturating_add(1);
        if !self.sight.overflows
            && let Some((listener, full)) = self.listeners.full_for(&client.socket)
        {
            suspected.note_syn(mono_ns, listener, full);
        }
    }

    /// The SYN-ACK of a half-open connection is sent again.
    pub(super) fn suspect_ack(&mut self, mono_ns: u64, half_open: &mut HalfOpen) {
        // A deferred connection waits for data, and gets its SYN-ACK again meanwhile.
        if self.sight.overflows || half_open.handshake.defer_accept == Some(true) {
            return;
        }
        let Some(id) = half_open.listener else {
            return;
        };
        let (netns, tuple) = half_open.ends();
        let client = self.peers.waiting_for(netns, &tuple);
        let Some(listener) = self.listeners.get(id) else {
            return;
        };
        let queue = &listener.queue;
        let at_ack = || queue.full_at(client?.1.established_ns);
        let Some(full) = queue.full().or_else(at_ack) else {
            return;
        };
        let conn = listener.socket.conn;
        let suspected = &mut half_open.handshake.suspected;
        suspected.note_ack(mono_ns, conn, full);
        if let Some((sk, peer)) = client
            && let Some(client) = self.open.get_mut(sk)
            && client.socket.conn == peer.conn
        {
            half_open.peer = Some(peer);
            client.handshake.suspected.note_ack(mono_ns, conn, full);
        }
    }
}
