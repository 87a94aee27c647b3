//! The way a connection ended, judged from its last change of state and the socket's counters and
//! flags.
//!
//! The code paths named here are those of net/ipv4/tcp.c, tcp_input.c and tcp_timer.c. They are the
//! same from Linux 5.10 to 6.18.

use crate::correlate::state::ending::{Ending, fin_acked};
use crate::correlate::state::why::{Clues, Why};
use crate::errno;
use crate::event::State::{Closing, FinWait2, LastAck, SynRecv, SynSent};
use crate::event::{Context, SetState};
use crate::fields::{Cause, Ended, Side};

/// Returns how a change to CLOSE ended the connection, if that is certain.
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

    // accept() calls sock_graft() and close() calls sock_orphan(). If neither call has left its
    // mark on the socket, no process ever had the socket. MPTCP is an exception: it takes its
    // subflows from a socket that is closed without sock_orphan() (`__mptcp_close`,
    // net/mptcp/protocol.c).
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
    // The error may be left from earlier, if the process has not fetched it.
    if matches!(change.oldstate, FinWait2 | Closing | LastAck)
        && fin_acked(change)
        && change.fin_received
    {
        return Some(Ended::Orderly);
    }
    match error {
        // A Fast Open child socket in SYN_RECV fails by a RST received, a timeout, or an ICMP
        // error. In that state tcp_v4_err() applies an ICMP error at once.
        Some(error)
            if side == Some(Side::Server) && change.oldstate == SynRecv && is_icmp(error) =>
        {
            Some(Ended::Unreachable)
        }
        // tcp_write_err() reports an earlier ICMP error instead of ETIMEDOUT.
        Some(error) if is_unreachable(error) && change.context == Some(Context::Softirq) => {
            Some(Ended::Unreachable)
        }
        Some(_) => None,
        // With TCP_LINGER2 below 0 the kernel sends a RST and makes no FIN_WAIT2 bucket.
        None if change.oldstate == FinWait2
            && change.stats.is_some_and(|stats| stats.no_fin_wait2) =>
        {
            clues.was_orphaned.then_some(Ended::Aborted)
        }
        // tcp_time_wait() makes a FIN_WAIT2 bucket.
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

/// Returns how a failed connect() ended.
fn connecting(change: &SetState, error: Option<&str>, cause: Cause) -> Option<Ended> {
    match cause {
        Cause::Killed => Some(Ended::Killed),
        Cause::Disconnect => Some(Ended::Disconnected),
        Cause::Close => Some(Ended::GivenUp),
        // If the socket has no port, inet_hash_connect() found no free port. If it has a port, one
        // of several steps can have failed.
        Cause::ConnectFailed => change.tuple.lport.is_none().then_some(Ended::NoFreePort),
        Cause::Timeout => Some(Ended::Timeout),
        Cause::RstReceived => Some(Ended::Refused),
        // ICMP port unreachable.
        Cause::IcmpReceived if error == Some("ECONNREFUSED") => Some(Ended::Refused),
        Cause::IcmpReceived if error.is_some_and(is_unreachable) => Some(Ended::Unreachable),
        _ => None,
    }
}

/// Returns whether `icmp_err_convert` (net/ipv4/icmp.c) or its IPv6 counterpart can set this error.
fn is_unreachable(error: &str) -> bool {
    matches!(
        error,
        "EHOSTUNREACH" | "ENETUNREACH" | "EHOSTDOWN" | "ENONET" | "ENETDOWN"
    )
}

/// Returns whether the error is one of `icmp_err_convert` or `icmpv6_err_convert`.
fn is_icmp(error: &str) -> bool {
    is_unreachable(error)
        || matches!(
            error,
            "ECONNREFUSED" | "ENOPROTOOPT" | "EOPNOTSUPP" | "EPROTO" | "EACCES"
        )
}
