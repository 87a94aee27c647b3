//! Facts about the end of a connection from its changes of state: the first FIN, whether a FIN was
//! sent, and the socket's last counters.

use serde::{Deserialize, Serialize};

use crate::event::State::{CloseWait, Closing, FinWait1, FinWait2, LastAck, SynSent};
use crate::event::{SetState, State, Stats};
use crate::fields::{self, ClosedFirst, Ended, Side};

/// Facts about the end of one connection.
#[derive(Default, Serialize, Deserialize)]
pub struct Ending {
    pub closed_first: Option<ClosedFirst>,
    /// Whether this side's FIN was sent; false if it will never be sent.
    pub fin_sent: Option<bool>,
    pub syn_retransmits: Option<u32>,
    /// Number of received segments with data when the process closed the socket.
    pub data_segs_at_fin: Option<u32>,
    /// True if the kernel's count of received bytes does not include the peer's FIN.
    pub fin_uncounted: bool,
    /// True if the socket connected in TCP_REPAIR mode. Then its SYN is not in the kernel's count
    /// of acknowledged bytes.
    pub repaired: bool,
    /// True if the kernel sent a RST from this socket.
    pub reset_sent: bool,
    pub end: Option<End>,
}

/// The change of state to CLOSE.
#[derive(Serialize, Deserialize)]
pub struct End {
    pub ended: Option<Ended>,
    pub stats: Option<Stats>,
    pub srtt_ns: Option<u64>,
    pub fin_received: bool,
    pub fin_acked: bool,
}

impl Ending {
    /// Returns how often a client retransmitted its SYN; `None` while it may retransmit again.
    pub fn syn_retransmits(&self) -> Option<u32> {
        self.syn_retransmits
    }

    /// Takes the next change of state. `ended`: how this change ended the connection, if that is
    /// certain.
    pub fn transition(&mut self, change: &SetState, ended: Option<Ended>) {
        self.closed_first = self.closed_first.or(closed_first(change));
        self.fin_sent = fin_sent(change).or(self.fin_sent);
        self.fin_uncounted |= change.fin_uncounted;
        self.repaired |= change.repair && change.newstate == State::Established;
        if change.oldstate == SynSent {
            // Until now, a socket can only have retransmitted its SYN.
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

    /// Returns whether data can have arrived after the process shut down reading. The kernel
    /// answers such data with a RST.
    pub fn data_may_have_come_too_late(&self, change: &SetState) -> bool {
        matches!(change.oldstate, FinWait1 | FinWait2)
            && change.stats.is_none_or(|stats| {
                stats.rcv_shutdown && self.data_segs_at_fin != Some(stats.data_segs_in)
            })
    }

    /// Returns the fields of the `connection` line.
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
        // The kernel makes a child socket after its SYN-ACK was acknowledged. A client's SYN counts
        // as a byte until it is acknowledged.
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
            // Reading the end of the stream consumes the FIN as well.
            unread_bytes: Some(stats.unread.saturating_sub(end.fin_received.into())),
            ..path
        }
    }
}

/// Returns the side that sent the first FIN, as far as this change shows.
///
/// In FIN_WAIT1, this side's FIN may wait behind data that the peer has no room for, and may never
/// be sent. The peer's ACK of the FIN proves that it was sent. So does a socket without unsent
/// data.
pub fn closed_first(change: &SetState) -> Option<ClosedFirst> {
    let unsent = change.stats.is_some_and(|stats| stats.unsent);
    match (change.oldstate, change.newstate) {
        // Each side sent its FIN before it received the other's.
        (Closing, _) | (_, Closing) if !unsent => Some(ClosedFirst::Both),
        (Closing, _) | (_, Closing) => Some(ClosedFirst::Remote),
        (FinWait2, _) | (_, FinWait2) => Some(ClosedFirst::Local),
        (CloseWait | LastAck, _) | (_, CloseWait | LastAck) => Some(ClosedFirst::Remote),
        (FinWait1, State::Close) if !unsent => Some(ClosedFirst::Local),
        _ => None,
    }
}

/// Returns whether this side's FIN was sent; `None` if this change does not show it.
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
        // The process never closed this side.
        (_, State::Close) => Some(false),
        _ => None,
    }
}

/// Returns whether the peer has acknowledged this side's FIN.
pub fn fin_acked(change: &SetState) -> bool {
    use State::*;
    matches!(change.oldstate, FinWait1 | FinWait2 | Closing | LastAck)
        && change.stats.is_some_and(|stats| stats.unacked == 0)
}
