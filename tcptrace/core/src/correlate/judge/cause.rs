//! The cause of a change of state: a segment, system call or timer.
//!
//! The tracepoint reports no cause. For most changes of state, only one path in the kernel leads
//! from the old state to the new one. If several paths do, the socket's error and the context
//! decide. If they do not decide either, the cause is `None`.

use super::super::state::ending::fin_acked;
use super::super::state::why::{Clues, Why};
use crate::errno;
use crate::event::{Call, Context, SetState, State};
use crate::fields::{BucketEnd, Cause, HalfOpenEnd};

const fn why(cause: Cause, function: &'static str, rfc: &'static str) -> Option<Why> {
    Some(Why {
        cause,
        function,
        rfc,
    })
}

/// RFC 9293 section 3.10.7.4, segments in the synchronized states.
const SEGMENT: &str = "3.10.7.4";
/// RFC 9293 section 3.10.4, the CLOSE call.
const CLOSE_CALL: &str = "3.10.4";
/// RFC 9293 section 3.10.5, the ABORT call.
const ABORT_CALL: &str = "3.10.5";
/// TCP_REPAIR is specific to Linux, so the RFC has no section for it.
const NO_SECTION: &str = "";

/// Returns the cause of a change of state.
pub fn cause(change: &SetState, clues: Clues) -> Option<Why> {
    use State::*;
    match (change.oldstate, change.newstate) {
        (Close, Listen) => why(Cause::Listen, "inet_csk_listen_start", "3.10.1"),
        (Close, SynSent) | (SynSent, Established) if change.repair => {
            why(Cause::Repair, connect_function(change), NO_SECTION)
        }
        (Close, SynSent) if change.fastopen_connect => why(
            Cause::ConnectDeferred,
            "tcp_fastopen_defer_connect",
            "3.10.1",
        ),
        (Close, SynSent) => why(Cause::Connect, connect_function(change), "3.10.1"),
        (SynSent, Established) => why(Cause::SynAckReceived, "tcp_finish_connect", "3.10.7.3"),
        (SynSent, SynRecv) => why(
            Cause::SynReceived,
            "tcp_rcv_synsent_state_process",
            "3.10.7.3",
        ),
        // The kernel makes the child socket at the final ACK. With Fast Open it makes the child
        // socket at the SYN.
        (Listen, SynRecv) if change.no_fast_open => birth(change, Cause::AckReceived),
        (Listen, SynRecv) => None,
        (SynRecv, Established) => why(Cause::AckReceived, "tcp_rcv_state_process", SEGMENT),
        (Established | SynRecv, CloseWait) | (FinWait1, Closing) => {
            why(Cause::FinReceived, "tcp_fin", SEGMENT)
        }
        (Established | SynRecv, FinWait1) | (CloseWait, LastAck) => {
            why(Cause::Close, "tcp_close_state", CLOSE_CALL)
        }
        (FinWait1, FinWait2) => why(Cause::AckOfFin, "tcp_rcv_state_process", SEGMENT),
        (Listen, Close) => stop_listening(change),
        (SynSent, Close) => connect_failed(change),
        (_, Close) => end(change, clues),
        _ => None,
    }
}

/// Returns the cause of a child socket's birth: the final ACK, or a SYN with Fast Open.
pub fn birth(change: &SetState, cause: Cause) -> Option<Why> {
    match (cause, change.tuple.family()) {
        (Cause::SynReceived, _) => why(cause, "tcp_try_fastopen", "3.10.7.2"),
        (_, 4) => why(cause, "tcp_v4_syn_recv_sock", SEGMENT),
        (..) => why(cause, "tcp_v6_syn_recv_sock", SEGMENT),
    }
}

fn connect_function(change: &SetState) -> &'static str {
    match change.tuple.family() {
        4 => "tcp_v4_connect",
        _ => "tcp_v6_connect",
    }
}

fn icmp_function(change: &SetState) -> &'static str {
    match change.tuple.family() {
        4 => "tcp_v4_err",
        _ => "tcp_v6_err",
    }
}

/// Returns the cause of the begin of a request socket.
pub fn half_open() -> Option<Why> {
    why(Cause::SynReceived, "tcp_conn_request", "3.10.7.2")
}

/// Returns the cause of the end of a request socket that has no child socket.
pub fn half_open_end(end: HalfOpenEnd) -> Option<Why> {
    match end {
        HalfOpenEnd::Timeout => why(Cause::Timeout, "reqsk_timer_handler", "3.10.8"),
        HalfOpenEnd::Reset => why(Cause::RstReceived, "tcp_check_req", SEGMENT),
        // The final ACK was received, but the accept queue was full.
        HalfOpenEnd::Overflow => why(Cause::AckReceived, "tcp_check_req", SEGMENT),
        HalfOpenEnd::ListenerClosed => None,
    }
}

/// Returns the cause of a change from this state to a bucket in TIME_WAIT.
pub fn bucket_begins(oldstate: State) -> Option<Why> {
    match oldstate {
        State::FinWait2 => why(Cause::FinReceived, "tcp_time_wait", SEGMENT),
        State::Closing => why(Cause::AckOfFin, "tcp_time_wait", SEGMENT),
        _ => None,
    }
}

/// Returns the cause of a bucket's change from FIN_WAIT2 to TIME_WAIT.
pub fn bucket_turns() -> Option<Why> {
    why(Cause::FinReceived, "tcp_timewait_state_process", SEGMENT)
}

/// Returns the cause of a bucket's end.
pub fn bucket_end(end: BucketEnd) -> Option<Why> {
    match end {
        BucketEnd::Expired => why(Cause::Expired, "tw_timer_handler", "3.10.8"),
        BucketEnd::Reused => why(Cause::Reused, "inet_twsk_deschedule_put", SEGMENT),
        BucketEnd::Reset => why(Cause::RstReceived, "tcp_timewait_state_process", SEGMENT),
        BucketEnd::Purged | BucketEnd::Gone => None,
    }
}

/// Returns the cause of LISTEN→CLOSE. close() shuts both directions down first. If they were not
/// shut down, the path led through `tcp_disconnect` or `tcp_abort`. MPTCP closes its listeners
/// without shutting them down.
fn stop_listening(change: &SetState) -> Option<Why> {
    let stats = change.stats;
    let call = stats.and_then(|stats| stats.call);
    match (stats.map(|stats| stats.is_shut()), call) {
        (None | Some(true), _) | (_, Some(Call::Close)) => {
            why(Cause::Close, "inet_csk_listen_stop", CLOSE_CALL)
        }
        (_, Some(Call::Connect | Call::Shutdown)) => {
            why(Cause::Disconnect, "tcp_disconnect", ABORT_CALL)
        }
        (_, Some(Call::Send)) => why(Cause::Killed, "tcp_abort", ABORT_CALL),
        (_, None) => None,
    }
}

/// Returns the cause of a failed connect().
fn connect_failed(change: &SetState) -> Option<Why> {
    let by_process = change.context == Some(Context::Process);
    let error = change.err.map(errno::name);
    let stats = change.stats?;
    match error.as_deref() {
        Some("ECONNABORTED") => return why(Cause::Killed, "tcp_abort", ABORT_CALL),
        // No segment was sent, so the error is left from earlier.
        _ if by_process && stats.segs_out == 0 => {}
        // Either a RST was received, or ICMP port unreachable.
        Some("ECONNREFUSED") if stats.segs_in > 0 => {
            return why(Cause::RstReceived, "tcp_reset", "3.10.7.3");
        }
        Some("ECONNREFUSED") => return why(Cause::IcmpReceived, icmp_function(change), "3.9.2.2"),
        Some("ETIMEDOUT") => return why(Cause::Timeout, "tcp_write_err", "3.10.8"),
        Some(error) if by_icmp(error) && !by_process => {
            return why(Cause::IcmpReceived, icmp_function(change), "3.9.2.2");
        }
        Some(_) => return None,
        None if !by_process => return None,
        None => {}
    }
    if stats.segs_out == 0 && change.tuple.lport.is_none() {
        // Only connect() itself can close a socket that has no port yet.
        return why(Cause::ConnectFailed, connect_function(change), "3.10.1");
    }
    match stats.is_shut() {
        true => why(Cause::Close, "__tcp_close", CLOSE_CALL),
        false if stats.segs_out > 0 => why(Cause::Disconnect, "tcp_disconnect", ABORT_CALL),
        // A connect() that deferred its SYN can be disconnected before the SYN is sent.
        false if change.fastopen_connect => None,
        false => why(Cause::ConnectFailed, connect_function(change), "3.10.1"),
    }
}

/// Returns the cause of a connection's change to CLOSE.
fn end(change: &SetState, clues: Clues) -> Option<Why> {
    use State::*;
    let by_process = change.context == Some(Context::Process);
    let error = change.err.map(errno::name);
    let error = error.as_deref();
    let no_fin_wait2 = change.stats.is_some_and(|stats| stats.no_fin_wait2);
    match error {
        Some("ECONNABORTED") => return why(Cause::Killed, "tcp_abort", ABORT_CALL),
        // tcp_reset() sets EPIPE in CLOSE_WAIT and ECONNRESET in other states. The kernel also
        // calls it when data arrives after close().
        Some("ECONNRESET" | "EPIPE") => {
            return match clues.reset_follows {
                true => why(Cause::DataReceived, "tcp_reset", SEGMENT),
                false if clues.data_may_be_late => None,
                false => why(Cause::RstReceived, "tcp_reset", SEGMENT),
            };
        }
        Some("ETIMEDOUT") => return why(Cause::Timeout, "tcp_write_err", "3.10.8"),
        _ => {}
    }
    match change.oldstate {
        // The error may be left from earlier. A socket leaves these two states as soon as its FIN
        // is acknowledged, so the ACK of its FIN was just received.
        Closing if fin_acked(change) => why(Cause::AckOfFin, "tcp_time_wait", SEGMENT),
        LastAck if fin_acked(change) => why(Cause::AckOfFin, "tcp_done", SEGMENT),
        // tcp_time_wait() replaces the socket with a bucket, see `SetState::fin_received`.
        FinWait2 if change.fin_received => why(Cause::FinReceived, "tcp_time_wait", SEGMENT),
        FinWait2 if change.orphaned => match (clues.was_orphaned, no_fin_wait2) {
            (true, true) => why(Cause::AckOfFin, "tcp_done", SEGMENT),
            (false, true) => why(Cause::Abort, "__tcp_close", CLOSE_CALL),
            (true, false) if clues.reset_follows => why(Cause::DataReceived, "tcp_done", SEGMENT),
            (true, false) if clues.data_may_be_late => None,
            (true, false) => why(Cause::AckOfFin, "tcp_time_wait", SEGMENT),
            (false, false) => why(Cause::Close, "tcp_time_wait", CLOSE_CALL),
        },
        // Only in SYN_SENT and SYN_RECV does an ICMP error close the socket itself. In other states
        // tcp_write_err() reports an earlier ICMP error instead of ETIMEDOUT.
        SynRecv if !by_process && error.is_some_and(by_icmp) => {
            why(Cause::IcmpReceived, icmp_function(change), "3.9.2.2")
        }
        _ if !by_process && error.is_some_and(by_icmp) => {
            why(Cause::Timeout, "tcp_write_err", "3.10.8")
        }
        _ if by_process && !change.orphaned => by_its_process(change),
        _ => None,
    }
}

/// Returns the cause if a process closed a connection that it still had, and the kernel sent no
/// FIN.
fn by_its_process(change: &SetState) -> Option<Why> {
    use State::*;
    let is_shut = change.stats.map(|stats| stats.is_shut());
    let call = change.stats.and_then(|stats| stats.call);
    if change.repair {
        return why(Cause::Repair, "tcp_disconnect", NO_SECTION);
    }
    match (is_shut, change.oldstate, call) {
        // MPTCP disconnects its subflows when it closes.
        (Some(false), _, Some(Call::Close)) => why(Cause::Abort, "tcp_disconnect", ABORT_CALL),
        (Some(false), ..) => why(Cause::Disconnect, "tcp_disconnect", ABORT_CALL),
        // Unread data, or SO_LINGER with a time of 0: the kernel sends a RST and no FIN.
        (_, Established | SynRecv | CloseWait, _) => why(Cause::Abort, "__tcp_close", ABORT_CALL),
        // Both directions may have been shut down by an earlier shutdown().
        (Some(true), _, Some(Call::Close)) => why(Cause::Abort, "__tcp_close", ABORT_CALL),
        (Some(true), _, Some(Call::Connect)) => {
            why(Cause::Disconnect, "tcp_disconnect", ABORT_CALL)
        }
        _ => None,
    }
}

/// Returns whether `icmp_err_convert` (net/ipv4/icmp.c) or its IPv6 counterpart can set this error.
fn by_icmp(errno: &str) -> bool {
    matches!(
        errno,
        "EHOSTUNREACH"
            | "ENETUNREACH"
            | "EHOSTDOWN"
            | "ENONET"
            | "ENOPROTOOPT"
            | "EPROTO"
            | "EMSGSIZE"
            | "EOPNOTSUPP"
            | "EACCES"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correlate::tests::{child, client, listener, server};
    use crate::event::Stats;
    use State::*;

    fn of(change: &SetState) -> Option<Cause> {
        cause(change, Clues::default()).map(|why| why.cause)
    }

    /// The counters of a socket that sent and received segments.
    fn figures() -> Stats {
        Stats {
            segs_in: 3,
            segs_out: 3,
            snd_shutdown: false,
            unsent: false,
            ..Stats::default()
        }
    }

    #[test]
    fn cause_of_close_follows_the_error() {
        let ended = |from, errno: u32| {
            of(&SetState {
                err: Some(errno),
                stats: Some(Stats {
                    unacked: 1,
                    ..figures()
                }),
                ..client(2).enters(from, Close)
            })
        };
        for (from, errno, expected) in [
            (SynSent, 111, Some(Cause::RstReceived)),
            (SynSent, 110, Some(Cause::Timeout)),
            (SynSent, 113, Some(Cause::IcmpReceived)),
            (Established, 104, Some(Cause::RstReceived)),
            (CloseWait, 32, Some(Cause::RstReceived)),
            (Established, 103, Some(Cause::Killed)),
            (SynSent, 103, Some(Cause::Killed)),
            (Established, 113, Some(Cause::Timeout)),
            (LastAck, 110, Some(Cause::Timeout)),
            (Established, 12, None),
        ] {
            assert_eq!(ended(from, errno), expected, "{from} {errno}");
        }
    }

    /// With Fast Open, a SYN can make the child socket. Without Fast Open, only the ACK can.
    #[test]
    fn birth_without_fast_open_is_caused_by_the_ack() {
        let birth = child(2).enters(Listen, SynRecv);
        assert_eq!(of(&birth), None);
        let sure = SetState {
            no_fast_open: true,
            ..birth
        };
        let why = cause(&sure, Clues::default()).unwrap();
        assert_eq!(why.cause, Cause::AckReceived);
        assert_eq!((why.function, why.rfc), ("tcp_v4_syn_recv_sock", SEGMENT));
    }

    #[test]
    fn acknowledged_fin_is_the_cause_of_close() {
        let last = |unacked, change: SetState| {
            of(&SetState {
                stats: Some(Stats {
                    unacked,
                    ..figures()
                }),
                ..change
            })
        };
        let by_softirq = client(2).enters(LastAck, Close);
        // The ACK waited in the socket's backlog while the process was closing the socket.
        let by_process = client(2).enters_by(server(), LastAck, Close);
        assert_eq!(last(0, by_softirq), Some(Cause::AckOfFin));
        assert_eq!(last(0, by_process), Some(Cause::AckOfFin));
        assert_eq!(last(1, by_softirq), None);
        assert_eq!(of(&client(2).enters(Established, Close)), None);
    }

    /// close() shuts both directions down before it changes the state. The other calls do not.
    #[test]
    fn shutdown_flags_distinguish_close_from_disconnect() {
        let ended = |from, shut, call| {
            of(&SetState {
                stats: Some(Stats {
                    rcv_shutdown: shut,
                    snd_shutdown: shut,
                    unacked: 1,
                    call,
                    ..figures()
                }),
                ..client(2).enters_by(server(), from, Close)
            })
        };
        for from in [Established, CloseWait, SynRecv] {
            assert_eq!(ended(from, true, None), Some(Cause::Abort), "{from}");
        }
        for from in [Established, CloseWait, SynRecv, SynSent, FinWait1, FinWait2] {
            assert_eq!(ended(from, false, None), Some(Cause::Disconnect), "{from}");
        }
        assert_eq!(ended(SynSent, true, None), Some(Cause::Close));
        // An earlier shutdown() may have shut both directions down.
        let (close, connect) = (Some(Call::Close), Some(Call::Connect));
        assert_eq!(ended(FinWait2, true, close), Some(Cause::Abort));
        assert_eq!(ended(FinWait2, true, connect), Some(Cause::Disconnect));
        assert_eq!(ended(FinWait2, true, None), None);
    }

    #[test]
    fn connect_without_a_sent_segment_is_connect_failed() {
        let failed = SetState {
            // The error is left from the previous connection of this socket.
            err: Some(104),
            stats: Some(Stats {
                segs_in: 0,
                segs_out: 0,
                ..figures()
            }),
            ..client(2).enters_by(server(), SynSent, Close)
        };
        let why = cause(&failed, Clues::default()).unwrap();
        assert_eq!(why.cause, Cause::ConnectFailed);
        assert_eq!(why.function, "tcp_v4_connect");
        let deferred = SetState {
            fastopen_connect: true,
            ..failed
        };
        assert_eq!(of(&deferred), None);
    }

    #[test]
    fn econnrefused_without_a_segment_is_icmp() {
        let refused = SetState {
            err: Some(111),
            stats: Some(Stats {
                segs_in: 0,
                ..figures()
            }),
            ..client(2).enters(SynSent, Close)
        };
        assert_eq!(of(&refused), Some(Cause::IcmpReceived));
    }

    #[test]
    fn listener_end_is_close_disconnect_or_kill() {
        let stopped = |shut, call| {
            of(&SetState {
                stats: Some(Stats {
                    rcv_shutdown: shut,
                    snd_shutdown: shut,
                    call,
                    ..figures()
                }),
                ..listener().enters_by(server(), Listen, Close)
            })
        };
        assert_eq!(stopped(true, None), Some(Cause::Close));
        assert_eq!(stopped(false, Some(Call::Close)), Some(Cause::Close));
        assert_eq!(
            stopped(false, Some(Call::Shutdown)),
            Some(Cause::Disconnect)
        );
        assert_eq!(stopped(false, Some(Call::Connect)), Some(Cause::Disconnect));
        assert_eq!(stopped(false, Some(Call::Send)), Some(Cause::Killed));
        assert_eq!(stopped(false, None), None);
    }

    #[test]
    fn repair_mode_is_the_cause() {
        let repair = |change: SetState| {
            of(&SetState {
                repair: true,
                stats: Some(figures()),
                ..change
            })
        };
        let by = |from, to| client(2).enters_by(server(), from, to);
        assert_eq!(repair(by(Close, SynSent)), Some(Cause::Repair));
        assert_eq!(repair(by(SynSent, Established)), Some(Cause::Repair));
        assert_eq!(repair(by(Established, Close)), Some(Cause::Repair));
    }

    /// tcp_reset() closes a socket when a RST is received, and when data is received that no
    /// process can read.
    #[test]
    fn late_data_is_not_a_received_rst() {
        let change = SetState {
            err: Some(104),
            stats: Some(figures()),
            ..client(2).enters(FinWait1, Close)
        };
        let clues = |reset_follows, data_may_be_late| Clues {
            reset_follows,
            data_may_be_late,
            ..Clues::default()
        };
        let of = |clues| cause(&change, clues).map(|why| why.cause);
        assert_eq!(of(clues(false, false)), Some(Cause::RstReceived));
        assert_eq!(of(clues(true, true)), Some(Cause::DataReceived));
        assert_eq!(of(clues(false, true)), None);
    }

    /// FIN_WAIT2→CLOSE is reported in three cases: the FIN was received; the kernel moved an orphan
    /// into a bucket, where FIN_WAIT2 continues; TCP_LINGER2 below 0 asks for a RST.
    #[test]
    fn end_of_fin_wait2_is_a_fin_a_bucket_or_a_rst() {
        let change = SetState {
            stats: Some(figures()),
            ..client(2).enters(FinWait2, Close)
        };
        let of = |change: &SetState, was_orphaned| {
            let clues = Clues {
                was_orphaned,
                ..Clues::default()
            };
            cause(change, clues).map(|why| why.cause)
        };
        let fin = SetState {
            fin_received: true,
            ..change
        };
        let orphan = SetState {
            orphaned: true,
            ..change
        };
        let linger2 = SetState {
            stats: Some(Stats {
                no_fin_wait2: true,
                ..figures()
            }),
            ..orphan
        };
        assert_eq!(of(&fin, true), Some(Cause::FinReceived));
        assert_eq!(of(&orphan, true), Some(Cause::AckOfFin));
        assert_eq!(of(&orphan, false), Some(Cause::Close));
        assert_eq!(of(&linger2, false), Some(Cause::Abort));
        assert_eq!(of(&linger2, true), Some(Cause::AckOfFin));
        assert_eq!(of(&change, false), None);
    }
}
