//! How a connection ended: from its last changes of state and what the socket said at them.
//!
//! The code paths named here are those of net/ipv4/tcp.c, tcp_input.c and tcp_timer.c, alike from
//! Linux 5.10 to 6.18.

use serde::{Deserialize, Serialize};

use crate::errno;
use crate::event::State::{CloseWait, Closing, FinWait1, FinWait2, LastAck, SynSent};
use crate::event::{Context, SetState, State, Stats};
use crate::fields::{self, ClosedFirst, Ended, Side};

/// What one connection's changes of state have told so far.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Ending {
    closed_first: Option<ClosedFirst>,
    syn_retransmits: Option<u32>,
    /// Segments with data that had come when the process closed.
    data_segs_at_fin: Option<u32>,
    /// The kernel has sent a RST from this socket.
    pub reset_sent: bool,
    end: Option<End>,
}

/// The change to CLOSE.
#[derive(Serialize, Deserialize)]
struct End {
    ended: Option<Ended>,
    stats: Option<Stats>,
    srtt_ns: Option<u64>,
    fin_received: bool,
    fin_acked: bool,
}

impl Ending {
    /// How often a client's socket sent its SYN again; `None` while it may still do so.
    pub fn syn_retransmits(&self) -> Option<u32> {
        self.syn_retransmits
    }

    /// Takes the next change of state; `side` is the connection's.
    pub fn transition(&mut self, side: Option<Side>, change: &SetState) {
        for state in [change.oldstate, change.newstate] {
            self.closed_first = match state {
                // Once in CLOSING it is clear that neither had waited for the other.
                Closing => Some(ClosedFirst::Both),
                FinWait1 | FinWait2 => self.closed_first.or(Some(ClosedFirst::Local)),
                CloseWait | LastAck => self.closed_first.or(Some(ClosedFirst::Remote)),
                _ => self.closed_first,
            };
        }
        if change.oldstate == SynSent {
            // All that a socket can have sent again until now.
            self.syn_retransmits = change.stats.map(|stats| stats.retransmits);
        }
        if change.newstate == FinWait1 {
            self.data_segs_at_fin = change.stats.map(|stats| stats.data_segs_in);
        }
        if change.newstate == State::Close {
            self.end = Some(End {
                ended: self.ended(side, change),
                stats: change.stats,
                srtt_ns: change.srtt_ns,
                fin_received: change.fin_received,
                fin_acked: fin_acked(change),
            });
        }
    }

    /// Why a change to CLOSE was made, if that is certain.
    fn ended(&self, side: Option<Side>, change: &SetState) -> Option<Ended> {
        let error = change.err.map(errno::name);
        let error = error.as_deref();
        let is_reset = matches!(error, Some("ECONNRESET" | "EPIPE"));
        let by_process = change.context == Some(Context::Process);

        // sock_graft() at accept() and sock_orphan() at close() leave their marks: without both,
        // no process ever had it.
        if side == Some(Side::Server) && !change.held && !change.orphaned {
            match error {
                None => return Some(Ended::ClosedInQueue),
                Some(_) if is_reset => return Some(Ended::ResetInQueue),
                Some(_) => {}
            }
        }
        if change.oldstate == SynSent {
            return connecting(change, error, by_process);
        }
        match error {
            Some("ETIMEDOUT") => return Some(Ended::Timeout),
            // Data that comes after close() is answered with a RST, and the socket ended by
            // tcp_reset() as if one had come.
            Some(_) if is_reset => {
                return (!self.data_may_have_come_too_late(change)).then_some(Ended::ResetReceived);
            }
            // tcp_abort()
            Some("ECONNABORTED") => return Some(Ended::Aborted),
            _ => {}
        }
        // An error that is left now may be an old one that the process has not asked for yet.
        if matches!(change.oldstate, FinWait2 | Closing | LastAck)
            && fin_acked(change)
            && change.fin_received
        {
            return Some(Ended::Orderly);
        }
        match error {
            // tcp_write_err() prefers what ICMP has said to ETIMEDOUT.
            Some(error) if is_unreachable(error) && change.context == Some(Context::Softirq) => {
                Some(Ended::Unreachable)
            }
            // Closing by FIN orphans the socket first; what ends it before does without.
            _ if by_process && !change.orphaned => Some(Ended::Aborted),
            Some(_) => None,
            // Into a FIN_WAIT2 bucket, tcp_time_wait().
            None if change.oldstate == FinWait2
                && change.stats.is_some_and(|stats| !stats.no_fin_wait2)
                && !self.data_may_have_come_too_late(change) =>
            {
                Some(Ended::Orderly)
            }
            None if self.reset_sent && !by_process => Some(Ended::ResetSent),
            None => None,
        }
    }

    /// Whether data can have come for a socket that was closed to it already, which the kernel
    /// answers with a RST.
    fn data_may_have_come_too_late(&self, change: &SetState) -> bool {
        matches!(change.oldstate, FinWait1 | FinWait2)
            && change.stats.is_none_or(|stats| {
                stats.rcv_shutdown && self.data_segs_at_fin != Some(stats.data_segs_in)
            })
    }

    /// As the `connection` line has it.
    pub fn fields(&self, side: Option<Side>) -> fields::Ending {
        let path = fields::Ending {
            closed_first: self.closed_first,
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
            Some(Side::Client) => Some(1),
            Some(Side::Server) => Some(0),
            _ => None,
        };
        fields::Ending {
            bytes_acked: syn.map(|syn| {
                stats
                    .bytes_acked
                    .saturating_sub(syn + u64::from(end.fin_acked))
            }),
            bytes_received: Some(stats.bytes_received.saturating_sub(end.fin_received.into())),
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

/// A connect() that came to nothing.
fn connecting(change: &SetState, error: Option<&str>, by_process: bool) -> Option<Ended> {
    match error {
        // A RST, or ICMP's port unreachable.
        Some("ECONNREFUSED") => Some(Ended::Refused),
        Some("ETIMEDOUT") => Some(Ended::Timeout),
        Some(error) if is_unreachable(error) => Some(Ended::Unreachable),
        None if by_process => {
            let segs_out = change.stats?.segs_out;
            if segs_out > 0 {
                Some(Ended::GivenUp)
            } else {
                // tcp_v4_connect() takes SYN_SENT back. Without a port, inet_hash_connect() has
                // found none; with one, several things can have failed.
                change.tuple.lport.is_none().then_some(Ended::NoFreePort)
            }
        }
        _ => None,
    }
}

/// `icmp_err_convert`, net/ipv4/icmp.c, and the like.
fn is_unreachable(error: &str) -> bool {
    matches!(
        error,
        "EHOSTUNREACH" | "ENETUNREACH" | "EHOSTDOWN" | "ENONET" | "ENETDOWN"
    )
}

/// Whether the peer has acknowledged this side's FIN.
fn fin_acked(change: &SetState) -> bool {
    matches!(change.oldstate, FinWait1 | FinWait2 | Closing | LastAck)
        && change.stats.is_some_and(|stats| stats.unacked == 0)
}
