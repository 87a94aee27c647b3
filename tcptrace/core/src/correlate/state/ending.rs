//! Facts about a connection's end, gathered from its changes of state: who closed first, whether the FIN
//! left, the socket's last figures.

use serde::{Deserialize, Serialize};

use crate::event::State::{CloseWait, Closing, FinWait1, FinWait2, LastAck, SynSent};
use crate::event::{SetState, State, Stats};
use crate::fields::{self, ClosedFirst, Ended, Side};

/// Facts about one connection's end, as far as it has come.
#[derive(Default, Serialize, Deserialize)]
pub struct Ending {
    pub closed_first: Option<ClosedFirst>,
    /// This side's FIN has left, or will not any more.
    pub fin_sent: Option<bool>,
    pub syn_retransmits: Option<u32>,
    /// Segments with data that had come when the process closed.
    pub data_segs_at_fin: Option<u32>,
    /// The peer's FIN is not in the kernel's count of bytes.
    pub fin_uncounted: bool,
    /// The socket connected in TCP_REPAIR mode, so its SYN is not in the count of bytes either.
    pub repaired: bool,
    /// The kernel has sent a RST from this socket.
    pub reset_sent: bool,
    pub end: Option<End>,
}

/// The change to CLOSE.
#[derive(Serialize, Deserialize)]
pub struct End {
    pub ended: Option<Ended>,
    pub stats: Option<Stats>,
    pub srtt_ns: Option<u64>,
    pub fin_received: bool,
    pub fin_acked: bool,
}

impl Ending {
    /// The number of SYNs that a client's socket sent again; `None` while it may still send more.
    pub fn syn_retransmits(&self) -> Option<u32> {
        self.syn_retransmits
    }

    /// Takes the next change of state. `ended`: how it ended the connection, if it did and that is
    /// certain.
    pub fn transition(&mut self, change: &SetState, ended: Option<Ended>) {
        self.closed_first = self.closed_first.or(closed_first(change));
        self.fin_sent = fin_sent(change).or(self.fin_sent);
        self.fin_uncounted |= change.fin_uncounted;
        self.repaired |= change.repair && change.newstate == State::Established;
        if change.oldstate == SynSent {
            // All that a socket can have sent again until now.
            self.syn_retransmits = change.stats.map(|stats| stats.retransmits);
        }
        if change.newstate == FinWait1 {
            self.data_segs_at_fin = change.stats.map(|stats| stats.data_segs_in);
        }
        if change.newstate == State::Close {
            self.end = Some(End {
                ended,
                stats: change.stats,
                srtt_ns: change.srtt_ns,
                fin_received: change.fin_received,
                fin_acked: fin_acked(change),
            });
        }
    }

    /// Whether data can have come for a socket that was closed to it already, which the kernel
    /// answers with a RST.
    pub fn data_may_have_come_too_late(&self, change: &SetState) -> bool {
        matches!(change.oldstate, FinWait1 | FinWait2)
            && change.stats.is_none_or(|stats| {
                stats.rcv_shutdown && self.data_segs_at_fin != Some(stats.data_segs_in)
            })
    }

    /// As the `connection` line has it.
    pub fn fields(&self, side: Option<Side>) -> fields::Ending {
        let path = fields::Ending {
            closed_first: self.closed_first,
            fin_sent: self.fin_sent,
            syn_retransmits: self.syn_retransmits,
            ..fields::Ending::default()
        };
        let Some(end) = &self.end else {
            return path;
        };
        let path = fields::Ending {
            ended: end.ended,
            srtt_ns: end.srtt_ns,
            ..path
        };
        let Some(stats) = &end.stats else {
            return path;
        };
        // A child is made with its SYN acknowledged; a client's is a byte until then.
        let syn = match side {
            Some(Side::Client) if self.repaired => Some(0),
            Some(Side::Client) => Some(1),
            Some(Side::Server) => Some(0),
            _ => None,
        };
        let fin_counted = end.fin_received && !self.fin_uncounted;
        fields::Ending {
            bytes_acked: syn.map(|syn| {
                stats
                    .bytes_acked
                    .saturating_sub(syn + u64::from(end.fin_acked))
            }),
            bytes_received: Some(stats.bytes_received.saturating_sub(fin_counted.into())),
            segs_out: Some(stats.segs_out),
            segs_in: Some(stats.segs_in),
            retransmits: Some(stats.retransmits),
            snd_cwnd: Some(stats.snd_cwnd),
            // Reading the end of the stream takes the FIN as well.
            unread_bytes: Some(stats.unread.saturating_sub(end.fin_received.into())),
            ..path
        }
    }
}

/// Returns the side that sent the first FIN, as far as this change tells.
///
/// In FIN_WAIT1 this side's FIN waits behind the data that the peer has no room for, and may never
/// leave; so only its ACK, or its sequence number sent, proves it.
pub fn closed_first(change: &SetState) -> Option<ClosedFirst> {
    let unsent = change.stats.is_some_and(|stats| stats.unsent);
    match (change.oldstate, change.newstate) {
        // Neither had waited for the other.
        (Closing, _) | (_, Closing) if !unsent => Some(ClosedFirst::Both),
        (Closing, _) | (_, Closing) => Some(ClosedFirst::Remote),
        (FinWait2, _) | (_, FinWait2) => Some(ClosedFirst::Local),
        (CloseWait | LastAck, _) | (_, CloseWait | LastAck) => Some(ClosedFirst::Remote),
        (FinWait1, State::Close) if !unsent => Some(ClosedFirst::Local),
        _ => None,
    }
}

/// Whether this side's FIN has left; `None` where this change does not tell.
pub fn fin_sent(change: &SetState) -> Option<bool> {
    match (change.oldstate, change.newstate) {
        (FinWait2, _) | (_, FinWait2) => Some(true),
        (FinWait1 | Closing | LastAck, State::Close) | (_, Closing) if fin_acked(change) => {
            Some(true)
        }
        (FinWait1 | Closing | LastAck, State::Close) | (_, Closing) => {
            change.stats.map(|stats| !stats.unsent)
        }
        (FinWait1 | Closing | LastAck, _) => None,
        // This side was never closed.
        (_, State::Close) => Some(false),
        _ => None,
    }
}

/// Whether the peer has acknowledged this side's FIN.
pub fn fin_acked(change: &SetState) -> bool {
    use State::*;
    matches!(change.oldstate, FinWait1 | FinWait2 | Closing | LastAck)
        && change.stats.is_some_and(|stats| stats.unacked == 0)
}
