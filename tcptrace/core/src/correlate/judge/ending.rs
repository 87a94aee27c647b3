//! How a connection ended: from its last change of state and what the socket said at it.
//!
//! The code paths named here are those of net/ipv4/tcp.c, tcp_input.c and tcp_timer.c, alike from
//! Linux 5.10 to 6.18.

use crate::correlate::state::ending::{Ending, fin_acked};
use crate::correlate::state::why::{Clues, Why};
use crate::errno;
use crate::event::State::{Closing, FinWait2, LastAck, SynRecv, SynSent};
use crate::event::{Context, SetState};
use crate::fields::{Cause, Ended, Side};

/// Why a change to CLOSE was made, if that is certain.
pub fn ended(
    ending: &Ending,
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
        None if ending.reset_sent && !by_process => Some(Ended::ResetSent),
        None => None,
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
