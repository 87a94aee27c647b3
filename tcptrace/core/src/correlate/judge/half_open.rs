//! The `connection` line of a half-open connection that has no child socket.

use super::connection::{End, overflows};
use crate::correlate::state::dropped_syns::Times;
use crate::correlate::state::half_open::HalfOpen;
use crate::correlate::state::listener::ListenerId;
use crate::correlate::state::peers::Peer;
use crate::correlate::state::socket::Owner;
use crate::fields::{self, Ending, HalfOpenEnd, ListenerSource, Verdict};

impl HalfOpen {
    /// Returns the `connection` line when the request socket has ended without a child socket, or
    /// at the end of the trace. `client`: the client's socket, if it is ESTABLISHED on this host.
    /// `owner`: the process that would accept the connection.
    pub fn line(
        &self,
        end: &End,
        client: Option<Peer>,
        owner: Option<Owner>,
    ) -> fields::Connection {
        let began_before = self
            .handshake
            .syn
            .is_none_or(|(ns, _)| ns < end.attached_ns);
        let lost = self.losses != end.losses;
        let (verdict, reason) = match (self.end, self.child) {
            (_, Some(conn)) => (
                Verdict::Unknown,
                format!(
                    "the handshake finished as connection #{conn}, whose birth did not name its peer"
                ),
            ),
            // The birth of a child socket may be among the lost events.
            (None, None) if lost => (
                Verdict::Unknown,
                format!(
                    "whether the handshake finished is not known: {}",
                    end.why_lost.why()
                ),
            ),
            _ => (Verdict::Unfinished, self.reason(client)),
        };
        let closed_ns = self.end.map(|(ns, _)| ns);
        fields::Connection {
            mono_ns: end.mono_ns,
            subject: self.subject(owner),
            syn_mono_ns: self.handshake.syn.map(|(ns, _)| ns),
            syn_source: self.handshake.syn.map(|(_, source)| source),
            established_mono_ns: None,
            accept_called_mono_ns: None,
            accepted_mono_ns: None,
            closed_mono_ns: closed_ns,
            handshake_ns: None,
            half_open_ns: closed_ns.and_then(|ns| self.half_open_ns(ns)),
            half_open_end: self.end.and_then(|(_, end)| end),
            synack_retransmits: self.handshake.synack_retransmits,
            syncookie: self.handshake.syncookie,
            defer_accept: self.handshake.defer_accept,
            syn_queue_ahead: self.handshake.syn_queue_ahead,
            accept_queue_ns: None,
            backlog_ahead: None,
            backlog_max: None,
            listener: self.listener.map(ListenerId::conn),
            listener_source: Some(ListenerSource::Request),
            verdict: Some(verdict),
            reason: Some(reason),
            reason_follows: false,
            late: None,
            evidence: Some(self.evidence().to_owned()),
            state: self.socket.state,
            error: None,
            peer_conn: client.map(|peer| peer.conn),
            peer_established_mono_ns: client.map(|peer| peer.established_ns),
            overflows: overflows(&self.handshake, end),
            first_overflow_mono_ns: self.handshake.drops.first_ns(),
            explanation: None,
            bucket: None,
            ending: Ending::default(),
            complete: !began_before && !lost && self.child.is_none(),
            evicted: false,
        }
    }

    fn evidence(&self) -> &'static str {
        match self.handshake.drops.times() {
            0 => "request_sock NEW_SYN_RECV",
            _ => "request_sock NEW_SYN_RECV, listen_overflow",
        }
    }

    /// Returns why the handshake did not finish, as text.
    fn reason(&self, client: Option<Peer>) -> String {
        let again = self.handshake.synack_retransmits.unwrap_or(0);
        let sent = Times(1 + again);
        let waited_for = match self.handshake.defer_accept {
            Some(true) => "the ACK or, as TCP_DEFER_ACCEPT wants, the first data",
            _ => "the final ACK",
        };
        let end = self.end.and_then(|(_, end)| end);
        let suspected = self.handshake.suspected.ack_drops();
        let is_suspected = suspected.is_some();
        let missing = match (suspected, client) {
            (Some(series), Some(client)) => format!(
                "the final ACK likely met {series}, and its client, #{}, was ESTABLISHED all the while",
                client.conn
            ),
            (Some(series), None) => format!("{waited_for} did not come, or met {series}"),
            (None, _) => format!("{waited_for} did not come"),
        };
        let series = self.handshake.drops.ack_drops();
        if let (Some(HalfOpenEnd::Overflow), Some(series)) = (end, &series) {
            return format!(
                "the final ACK met {series}, and the peer got a RST (tcp_abort_on_overflow)"
            );
        }
        let why = if let Some(series) = series {
            let then = match end {
                Some(HalfOpenEnd::Timeout) => ", until it timed out",
                Some(HalfOpenEnd::Reset) => ", until it was reset",
                Some(HalfOpenEnd::ListenerClosed) => ", until the listener closed",
                Some(HalfOpenEnd::Overflow) | None => "",
            };
            let believes = client.map(|client| {
                format!(
                    "; its client, #{}, was ESTABLISHED all the while",
                    client.conn
                )
            });
            let believes = believes.unwrap_or_default();
            let again = match again {
                0 => String::new(),
                n => format!(", the SYN-ACK was sent again {}", Times(n)),
            };
            format!("the final ACK met {series}{again}{then}{believes}")
        } else {
            match end {
                Some(HalfOpenEnd::ListenerClosed) => "the listener closed".into(),
                Some(HalfOpenEnd::Reset) => format!("reset before {waited_for} came"),
                Some(_) => format!("{missing}; the SYN-ACK was sent {sent}"),
                None if self.is_gone => "how it ended was not seen".to_owned(),
                None if self.end.is_some() => {
                    "reset by the peer, or by the kernel as the accept queue was full".into()
                }
                None if is_suspected => {
                    format!("{missing}, until the trace ended; the SYN-ACK was sent {sent}")
                }
                None => format!(
                    "{waited_for} had not come when the trace ended; the SYN-ACK was sent {sent}"
                ),
            }
        };
        format!("the handshake did not finish: {why}")
    }
}
