//! Suspected drops at full accept queues, where no hook sees drops.
//!
//! A dropped SYN shows only as a SYN retransmission, a dropped final ACK as a SYN-ACK
//! retransmission. If the accept queue was full at that time, the full queue is reported as the
//! likely cause.

use crate::correlate::state::Correlator;
use crate::correlate::state::connection::Connection;
use crate::correlate::state::half_open::HalfOpen;
use crate::event::Sk;

impl Correlator {
    /// Handles a SYN that a client sends.
    pub(super) fn suspect_syn(&self, mono_ns: u64, client: &mut Connection) {
        if !self.visibility.overflows
            && let Some((listener, full)) = self.listeners.full_for(&client.socket)
        {
            let suspected = &mut client.handshake.suspected;
            suspected.note_syn(mono_ns, listener, full);
        }
    }

    /// Handles a SYN retransmission of an open client.
    pub(super) fn suspect_syn_again(&mut self, mono_ns: u64, sk: Sk) {
        let Some(client) = self.open.get_mut(sk) else {
            return;
        };
        let suspected = &mut client.handshake.suspected;
        suspected.syn_again = suspected.syn_again.saturating_add(1);
        if !self.visibility.overflows
            && let Some((listener, full)) = self.listeners.full_for(&client.socket)
        {
            suspected.note_syn(mono_ns, listener, full);
        }
    }

    /// Handles a SYN-ACK retransmission of a half-open connection.
    pub(super) fn suspect_ack(&mut self, mono_ns: u64, half_open: &mut HalfOpen) {
        // A request socket with TCP_DEFER_ACCEPT waits for data, and meanwhile the kernel
        // retransmits its SYN-ACK.
        if self.visibility.overflows || half_open.handshake.defer_accept == Some(true) {
            return;
        }
        let Some(id) = half_open.listener else {
            return;
        };
        let (netns, tuple) = half_open.key();
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
