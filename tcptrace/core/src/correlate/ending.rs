//! How a connection ended: from its last changes of state and what the socket said at them.
//!
//! The code paths named here are those of net/ipv4/tcp.c, tcp_input.c and tcp_timer.c, alike from
//! Linux 5.10 to 6.18.

use serde::{Deserialize, Serialize};

use super::cause::{Clues, Why, fin_acked};
use crate::errno;
use crate::event::State::{CloseWait, Closing, FinWait1, FinWait2, LastAck, SynRecv, SynSent};
use crate::event::{Context, SetState, State, Stats};
use crate::fields::{self, Cause, ClosedFirst, Ended, Side};

/// What one connection's changes of state have told so far.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Ending {
    closed_first: Option<ClosedFirst>,
    /// This side's FIN has left, or will not any more.
    fin_sent: Option<bool>,
    syn_retransmits: Option<u32>,
    /// Segments with data that had come when the process closed.
    data_segs_at_fin: Option<u32>,
    /// The peer's FIN is not in the kernel's count of bytes.
    fin_uncounted: bool,
    /// It was in TCP_REPAIR mode as it connected: its SYN is not in the count of bytes either.
    repaired: bool,
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

    /// Takes the next change of state; `side` is the connection's. `clues`, `why`: what is known
    /// beside it, and what led to it.
    pub fn transition(
        &mut self,
        side: Option<Side>,
        was_held: bool,
        change: &SetState,
        clues: Clues,
        why: Option<Why>,
    ) {
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
                ended: self.ended(side, was_held, change, clues, why),
                stats: change.stats,
                srtt_ns: change.srtt_ns,
                fin_received: change.fin_received,
                fin_acked: fin_acked(change),
            });
        }
    }

    /// Why a change to CLOSE was made, if that is certain.
    fn ended(
        &self,
        side: Option<Side>,
        was_held: bool,
        change: &SetState,
        clues: Clues,
        why: Option<Why>,
    ) -> Option<Ended> {
        let error = change.err.map(errno::name);
        let error = error.as_deref();
        let is_reset = matches!(error, Some("ECONNRESET" | "EPIPE"));
        let by_process = change.context == Some(Context::Process);

        // sock_graft() at accept() and sock_orphan() at close() leave their marks: without both,
        // no process ever had it. But MPTCP takes its subflows from a socket that is closed without
        // sock_orphan() (`__mptcp_close`, net/mptcp/protocol.c).
        let is_queued = !was_held && !change.held && !change.orphaned;
        if side == Some(Side::Server) && is_queued {
            match error {
                None => return Some(Ended::ClosedInQueue),
                Some(_) if is_reset => return Some(Ended::ResetInQueue),
                Some(_) => {}
            }
        }
        if change.oldstate == SynSent {
            return connecting(change, error, why?.cause);
        }
        match why.map(|why| why.cause) {
            Some(Cause::Killed) => return Some(Ended::Killed),
            Some(Cause::Disconnect) => return Some(Ended::Disconnected),
            Some(Cause::Repair) => return Some(Ended::Repair),
            Some(Cause::Abort) => return Some(Ended::Aborted),
            Some(Cause::DataReceived) => return Some(Ended::ResetSent),
            Some(Cause::RstReceived) => return Some(Ended::ResetReceived),
            _ if is_reset => return None,
            _ => {}
        }
        if error == Some("ETIMEDOUT") {
            return Some(Ended::Timeout);
        }
        // An error that is left now may be an old one that the process has not asked for yet.
        if matches!(change.oldstate, FinWait2 | Closing | LastAck)
            && fin_acked(change)
            && change.fin_received
        {
            return Some(Ended::Orderly);
        }
        match error {
            // A Fast Open child in SYN_RECV fails by a RST, a timeout, or what ICMP has said, which
            // tcp_v4_err() takes at once there.
            Some(error)
                if side == Some(Side::Server) && change.oldstate == SynRecv && is_icmp(error) =>
            {
                Some(Ended::Unreachable)
            }
            // tcp_write_err() prefers what ICMP has said to ETIMEDOUT.
            Some(error) if is_unreachable(error) && change.context == Some(Context::Softirq) => {
                Some(Ended::Unreachable)
            }
            Some(_) => None,
            // TCP_LINGER2: a RST instead of a FIN_WAIT2 bucket.
            None if change.oldstate == FinWait2
                && change.stats.is_some_and(|stats| stats.no_fin_wait2) =>
            {
                clues.was_orphaned.then_some(Ended::Aborted)
            }
            // Into a FIN_WAIT2 bucket, tcp_time_wait().
            None if change.oldstate == FinWait2
                && change.orphaned
                && change.stats.is_some()
                && !(clues.was_orphaned && clues.data_may_be_late) =>
            {
                Some(Ended::Orderly)
            }
            None if self.reset_sent && !by_process => Some(Ended::ResetSent),
            None => None,
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

/// Who sent the first FIN, as far as this change tells.
///
/// In FIN_WAIT1 this side's FIN waits behind the data that the peer has no room for, and may never
/// leave; so only its ACK, or its sequence number sent, proves it.
fn closed_first(change: &SetState) -> Option<ClosedFirst> {
    // Recordings of older versions do not tell.
    let unsent = change.stats.and_then(|stats| stats.unsent).unwrap_or(false);
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
fn fin_sent(change: &SetState) -> Option<bool> {
    match (change.oldstate, change.newstate) {
        (FinWait2, _) | (_, FinWait2) => Some(true),
        (FinWait1 | Closing | LastAck, State::Close) | (_, Closing) if fin_acked(change) => {
            Some(true)
        }
        (FinWait1 | Closing | LastAck, State::Close) | (_, Closing) => {
            change.stats?.unsent.map(|unsent| !unsent)
        }
        (FinWait1 | Closing | LastAck, _) => None,
        // It never closed its side.
        (_, State::Close) => Some(false),
        _ => None,
    }
}

/// A connect() that came to nothing.
fn connecting(change: &SetState, error: Option<&str>, cause: Cause) -> Option<Ended> {
    match cause {
        Cause::Killed => Some(Ended::Killed),
        Cause::Disconnect => Some(Ended::Disconnected),
        Cause::Close => Some(Ended::GivenUp),
        // Without a port, inet_hash_connect() has found none; with one, several things can have
        // failed.
        Cause::ConnectFailed => change.tuple.lport.is_none().then_some(Ended::NoFreePort),
        Cause::Timeout => Some(Ended::Timeout),
        Cause::RstReceived => Some(Ended::Refused),
        // Port unreachable.
        Cause::IcmpReceived if error == Some("ECONNREFUSED") => Some(Ended::Refused),
        Cause::IcmpReceived if error.is_some_and(is_unreachable) => Some(Ended::Unreachable),
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

/// The errors of `icmp_err_convert` and `icmpv6_err_convert`.
fn is_icmp(error: &str) -> bool {
    is_unreachable(error)
        || matches!(
            error,
            "ECONNREFUSED" | "ENOPROTOOPT" | "EOPNOTSUPP" | "EPROTO" | "EACCES"
        )
}
