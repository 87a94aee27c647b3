//! Why a socket changed its state: the segment, system call or timer, as far as the evidence goes.
//!
//! The tracepoint prints no reason, but for most pairs of states only one path in the kernel leads
//! from the one to the other. Where several do, the socket's error and the context decide, and
//! where these do not either, the cause is `None`.

use crate::errno;
use crate::event::{Context, SetState, State};
use crate::fields::{BucketEnd, Cause, HalfOpenEnd, Transition};

/// A cause, the kernel function that acts on it (Linux 6.12), and where RFC 9293 has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Why {
    pub cause: Cause,
    pub function: &'static str,
    /// Section of RFC 9293.
    pub rfc: &'static str,
}

impl Why {
    /// Into the line of a transition.
    #[inline(always)]
    pub fn write(self, line: &mut Transition) {
        line.cause = Some(self.cause);
        line.function = Some(self.function.into());
        line.rfc9293 = Some(self.rfc.into());
    }
}

const fn why(cause: Cause, function: &'static str, rfc: &'static str) -> Option<Why> {
    Some(Why {
        cause,
        function,
        rfc,
    })
}

/// Section 3.10.7.4, what a segment does in the synchronized states.
const SEGMENT: &str = "3.10.7.4";
/// Section 3.10.4, the CLOSE call.
const CLOSE_CALL: &str = "3.10.4";

/// Why this change happened. `was_orphaned`: at the change before, no process had the socket.
pub(super) fn cause(change: &SetState, was_orphaned: bool) -> Option<Why> {
    use State::*;
    match (change.oldstate, change.newstate) {
        (Close, Listen) => why(Cause::Listen, "inet_csk_listen_start", "3.10.1"),
        (Close, SynSent) => why(Cause::Connect, connect_function(change), "3.10.1"),
        (SynSent, Established) => why(Cause::SynAckReceived, "tcp_finish_connect", "3.10.7.3"),
        (SynSent, SynRecv) => why(
            Cause::SynReceived,
            "tcp_rcv_synsent_state_process",
            "3.10.7.3",
        ),
        // The kernel makes the socket when the handshake's last segment is there, except for Fast
        // Open, where it is made at the SYN.
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
        (Listen, Close) => why(Cause::Close, "inet_csk_listen_stop", CLOSE_CALL),
        (_, Close) => end(change, was_orphaned),
        _ => None,
    }
}

/// Why a listener's child was born: by the final ACK, or by a SYN with Fast Open.
pub(super) fn birth(change: &SetState, cause: Cause) -> Option<Why> {
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

/// Why a request socket appeared.
pub(super) fn half_open() -> Option<Why> {
    why(Cause::SynReceived, "tcp_conn_request", "3.10.7.2")
}

/// Why a request socket went without a child.
pub(super) fn half_open_end(end: HalfOpenEnd) -> Option<Why> {
    match end {
        HalfOpenEnd::Timeout => why(Cause::Timeout, "reqsk_timer_handler", "3.10.8"),
        HalfOpenEnd::Reset => why(Cause::RstReceived, "tcp_check_req", SEGMENT),
        // The final ACK came, and found no room.
        HalfOpenEnd::Overflow => why(Cause::AckReceived, "tcp_check_req", SEGMENT),
        HalfOpenEnd::ListenerClosed => None,
    }
}

/// Why a socket in this state gave way to a bucket in TIME_WAIT.
pub(super) fn bucket_begins(oldstate: State) -> Option<Why> {
    match oldstate {
        State::FinWait2 => why(Cause::FinReceived, "tcp_time_wait", SEGMENT),
        State::Closing => why(Cause::AckOfFin, "tcp_time_wait", SEGMENT),
        _ => None,
    }
}

/// Why a bucket went from FIN_WAIT2 to TIME_WAIT.
pub(super) fn bucket_turns() -> Option<Why> {
    why(Cause::FinReceived, "tcp_timewait_state_process", SEGMENT)
}

/// Why a bucket ended.
pub(super) fn bucket_end(end: BucketEnd) -> Option<Why> {
    match end {
        BucketEnd::Expired => why(Cause::Expired, "tw_timer_handler", "3.10.8"),
        BucketEnd::Reused => why(Cause::Reused, "inet_twsk_deschedule_put", SEGMENT),
        BucketEnd::Reset => why(Cause::RstReceived, "tcp_timewait_state_process", SEGMENT),
        BucketEnd::Purged | BucketEnd::Gone => None,
    }
}

/// Why a connection entered CLOSE.
fn end(change: &SetState, was_orphaned: bool) -> Option<Why> {
    use State::*;
    if let Some(errno) = change.err {
        return failure(&errno::name(errno), change);
    }
    let by_process = change.context == Some(Context::Process);
    match change.oldstate {
        // tcp_time_wait: the bucket takes over, see `SetState::fin_received`.
        FinWait2 if change.fin_received => why(Cause::FinReceived, "tcp_time_wait", SEGMENT),
        FinWait2 if was_orphaned => why(Cause::AckOfFin, "tcp_time_wait", SEGMENT),
        FinWait2 if change.orphaned => why(Cause::Close, "tcp_time_wait", CLOSE_CALL),
        Closing => why(Cause::AckOfFin, "tcp_time_wait", SEGMENT),
        // In a process, the ACK was waiting in the backlog when close() had orphaned the socket.
        LastAck if !by_process || change.orphaned => why(Cause::AckOfFin, "tcp_done", SEGMENT),
        // Unread data, SO_LINGER with a time of 0, or a disconnect: no FIN, a RST.
        Established | SynRecv | CloseWait if by_process => {
            why(Cause::Abort, "__tcp_close", "3.10.5")
        }
        SynSent if by_process => why(Cause::Close, "__tcp_close", CLOSE_CALL),
        _ => None,
    }
}

/// Why a connection that was ESTABLISHED, or wanted to be, failed with an error.
fn failure(errno: &str, change: &SetState) -> Option<Why> {
    match errno {
        "ECONNREFUSED" if change.oldstate == State::SynSent => {
            why(Cause::RstReceived, "tcp_reset", "3.10.7.3")
        }
        // In CLOSE_WAIT a RST is EPIPE.
        "ECONNRESET" | "EPIPE" => why(Cause::RstReceived, "tcp_reset", SEGMENT),
        "ETIMEDOUT" => why(Cause::Timeout, "tcp_write_err", "3.10.8"),
        "ECONNABORTED" => why(Cause::Abort, "tcp_abort", "3.10.5"),
        "EHOSTUNREACH" | "ENETUNREACH" | "ENOPROTOOPT" | "EPROTO" | "EMSGSIZE" => {
            why(Cause::IcmpReceived, icmp_function(change), "3.9.2.2")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correlate::tests::{child, client, listener, server};
    use State::*;

    fn of(change: &SetState) -> Option<Cause> {
        cause(change, false).map(|why| why.cause)
    }

    #[test]
    fn an_error_says_why_it_ended() {
        let ended = |from, errno: u32| {
            of(&SetState {
                err: Some(errno),
                ..client(2).enters(from, Close)
            })
        };
        for (from, errno, expected) in [
            (SynSent, 111, Some(Cause::RstReceived)),
            (SynSent, 110, Some(Cause::Timeout)),
            (SynSent, 113, Some(Cause::IcmpReceived)),
            (Established, 104, Some(Cause::RstReceived)),
            (CloseWait, 32, Some(Cause::RstReceived)),
            (Established, 103, Some(Cause::Abort)),
            (LastAck, 110, Some(Cause::Timeout)),
            (Established, 12, None),
        ] {
            assert_eq!(ended(from, errno), expected, "{from} {errno}");
        }
    }

    /// Fast Open would let a SYN make the child; without it only the ACK can.
    #[test]
    fn a_birth_without_fast_open_is_the_acks() {
        let birth = child(2).enters(Listen, SynRecv);
        assert_eq!(of(&birth), None);
        let sure = SetState {
            no_fast_open: true,
            ..birth
        };
        let why = cause(&sure, false).unwrap();
        assert_eq!(why.cause, Cause::AckReceived);
        assert_eq!((why.function, why.rfc), ("tcp_v4_syn_recv_sock", SEGMENT));
    }

    #[test]
    fn without_an_error_the_context_decides() {
        let by_softirq = |from| of(&client(2).enters(from, Close));
        let by_process = |from| of(&client(2).enters_by(server(), from, Close));
        assert_eq!(by_process(Established), Some(Cause::Abort));
        assert_eq!(by_softirq(Established), None);
        assert_eq!(by_softirq(LastAck), Some(Cause::AckOfFin));
        assert_eq!(by_process(LastAck), None);
        let orphan = SetState {
            orphaned: true,
            ..client(2).enters_by(server(), LastAck, Close)
        };
        assert_eq!(of(&orphan), Some(Cause::AckOfFin));
        assert_eq!(
            of(&listener().enters_by(server(), Listen, Close)),
            Some(Cause::Close)
        );
    }

    /// The tracepoint prints FIN_WAIT2 to CLOSE both when the FIN came and when the kernel moved
    /// an orphan into a bucket, where FIN_WAIT2 goes on.
    #[test]
    fn the_end_of_fin_wait2_is_a_fin_or_a_move() {
        let change = client(2).enters(FinWait2, Close);
        let fin = SetState {
            fin_received: true,
            ..change
        };
        let orphan = SetState {
            orphaned: true,
            ..change
        };
        assert_eq!(cause(&fin, true).unwrap().cause, Cause::FinReceived);
        assert_eq!(cause(&orphan, true).unwrap().cause, Cause::AckOfFin);
        assert_eq!(cause(&orphan, false).unwrap().cause, Cause::Close);
        assert_eq!(cause(&change, false), None);
    }
}
