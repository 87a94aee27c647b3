//! `--explain`: explains changes of state for learners, one or two sentences each.

use crate::event::{ListenQueue, OverflowSegment, State};
use crate::fields::{Cause, Overflow, Side, Transition};

/// Returns the explanation, or `None` if there is nothing to add to the line.
pub fn transition(x: &Transition) -> Option<String> {
    let cause = x.cause.and_then(|cause| led_to(cause, x));
    let sentence = match (cause, meaning(x)) {
        (Some(cause), Some(meaning)) => format!("{cause} {meaning}"),
        (Some(one), None) => one.to_owned(),
        (None, Some(one)) => one.to_owned(),
        (None, None) => return None,
    };
    Some(match (&x.function, &x.rfc9293) {
        (Some(function), Some(rfc)) => format!("{sentence} [{function}; RFC 9293, {rfc}]"),
        (Some(function), None) => format!("{sentence} [{function}]"),
        _ => sentence,
    })
}

/// Explains what it means that a segment met a full queue.
pub fn overflow(x: &Overflow) -> &'static str {
    match (x.dropped, x.queue) {
        (OverflowSegment::Ack, _) if x.aborted => {
            "The client believed that it was connected. With net.ipv4.tcp_abort_on_overflow the \
             kernel resets it; else it would let it wait."
        }
        (OverflowSegment::Ack, _) => {
            "The client believes that it is connected, and may send. The kernel does as if the ACK \
             had not come: the connection stays half-open, the SYN-ACK is sent again, after 1, 3 and \
             7 seconds, and the client's data with it, until accept() has made room."
        }
        (OverflowSegment::Syn, ListenQueue::Accept) => {
            "More connections wait for accept() than the backlog allows, so the kernel does not \
             answer. The client's connect() takes a second more, then three, seven and so on, as its \
             SYN is sent again."
        }
        (OverflowSegment::Syn, ListenQueue::Syn) if x.reserve => {
            "With net.ipv4.tcp_syncookies off the kernel keeps the last quarter of \
             net.ipv4.tcp_max_syn_backlog for peers that it has been connected with before, so it does \
             not answer this one. The client's SYN is sent again."
        }
        (OverflowSegment::Syn, ListenQueue::Syn) => {
            "More half-open connections wait for their final ACK than the backlog allows, and \
             net.ipv4.tcp_syncookies is off, so the kernel does not answer. The client's SYN is sent \
             again."
        }
    }
}

/// Describes the cause of a change. Mentions a segment only if the change is impossible without it.
fn led_to(cause: Cause, x: &Transition) -> Option<&'static str> {
    Some(match cause {
        Cause::Listen => "listen() was called.",
        Cause::ConnectDeferred => {
            "connect() was called with TCP_FASTOPEN_CONNECT: the SYN may wait for the first data."
        }
        Cause::Connect => {
            "connect() was called. If it finds a route and a free port, the kernel sends a SYN."
        }
        Cause::ConnectFailed => {
            "connect() failed before anything was sent, for want of a free port or a route."
        }
        Cause::Close if x.oldstate == State::Listen => "The listener was closed.",
        Cause::Close if x.oldstate == State::SynSent => {
            "The process closed the socket before an answer came. Nothing more is sent."
        }
        Cause::Close if x.newstate == State::Close => "The process closed the socket.",
        Cause::Close => "The process closed its side: the kernel queues a FIN behind the data.",
        Cause::Abort => {
            "The process aborted the connection (unread data, SO_LINGER 0, or TCP_LINGER2 below 0): the \
             kernel sends a RST."
        }
        Cause::Disconnect if x.oldstate == State::Listen => "The listener was disconnected.",
        Cause::Disconnect if x.oldstate == State::SynSent => {
            "The process disconnected the socket before an answer came, and keeps it. Nothing more is \
             sent."
        }
        Cause::Disconnect if has_peer(x.oldstate) => {
            "The process disconnected the socket and keeps it: the kernel sends a RST."
        }
        Cause::Disconnect => "The process disconnected the socket and keeps it.",
        Cause::Killed if has_peer(x.oldstate) => {
            "It was killed from outside, as by ss -K: the kernel sends a RST."
        }
        Cause::Killed => "It was killed from outside, as by ss -K.",
        Cause::Repair => {
            "The socket is in TCP_REPAIR mode, in which connections are saved and restored: no \
             segment is sent."
        }
        Cause::SynReceived if x.newstate == State::NewSynRecv => "A SYN came.",
        Cause::SynReceived if x.oldstate == State::Listen => {
            "A SYN with data came, and TCP Fast Open lets it make the connection at once."
        }
        Cause::SynReceived => "A SYN came instead of a SYN-ACK: both sides call at once.",
        Cause::SynAckReceived => "The SYN-ACK came, and the kernel answers with an ACK.",
        Cause::AckReceived => "The ACK of the SYN-ACK has come.",
        Cause::FinReceived => "The peer's FIN came: it will send nothing more.",
        Cause::AckOfFin => "The peer acknowledged our FIN.",
        Cause::DataReceived => {
            "Data came for a connection that no process reads any more: the kernel answers with a RST."
        }
        Cause::RstReceived => "A RST came: the peer has, or wants, no such connection.",
        Cause::IcmpReceived => "An ICMP error came from the network.",
        Cause::Expired => {
            "Its time has expired: a minute in TIME_WAIT, tcp_fin_timeout in FIN_WAIT2."
        }
        Cause::Reused => "A new connection takes its ports.",
        Cause::Timeout => "Retransmissions were not answered, and the kernel gives up.",
    })
}

/// Returns true if tcp_disconnect() and tcp_abort() send a RST in this state (`tcp_need_reset`,
/// net/ipv4/tcp.c).
fn has_peer(state: State) -> bool {
    use State::*;
    matches!(
        state,
        SynRecv | Established | CloseWait | FinWait1 | FinWait2
    )
}

/// Describes the new state.
fn meaning(x: &Transition) -> Option<&'static str> {
    use State::*;
    Some(match (x.oldstate, x.newstate) {
        _ if x.cause == Some(Cause::Repair) => return None,
        (_, Listen) => {
            "From now on the kernel answers SYNs to this port by itself; accept() need not be called."
        }
        (Close, SynSent) => "It waits for a SYN-ACK.",
        (SynSent, Established) => {
            "For the client the connection is open: connect() returns, whether or not the server \
             has called accept()."
        }
        (SynSent, SynRecv) => "It waits for the ACK of its own SYN.",
        (Listen, SynRecv) if x.cause == Some(Cause::SynReceived) => {
            "accept() may return it before the ACK comes."
        }
        (Listen, SynRecv) if x.cause.is_none() => {
            "The kernel makes a socket for the connection: the last segment of the handshake is here, \
             or a SYN that TCP Fast Open lets make it."
        }
        (Listen, SynRecv) => {
            "The last segment of the handshake is here, and only now does the kernel make a socket \
             for the connection; until then it kept only a small request socket."
        }
        (SynRecv, Established) if x.subject.side == Some(Side::Server) => {
            "The handshake is finished, and the connection lies in the listener's queue for \
             accept(), which plays no part in it."
        }
        (SynRecv, Established) => "The handshake is finished.",
        (_, FinWait1) => "It waits for the ACK of its FIN; the peer may still send.",
        (_, FinWait2) => "Our direction is closed; the peer may still send, until its own FIN.",
        (_, CloseWait) => {
            "read() returns 0 after the data; our side stays open until the process closes it."
        }
        (_, LastAck) => "Both sides have closed; only the ACK of our FIN is missing.",
        (_, Closing) => "Both sides have closed; only the ACK of our FIN is missing.",
        (FinWait2 | Closing, Close) if x.bucket == Some(TimeWait) => {
            "The socket is freed; the kernel keeps the pair of addresses in TIME_WAIT for a minute, \
             so that stray segments of this connection cannot reach a later one."
        }
        (FinWait2, Close) if x.bucket == Some(FinWait2) => {
            "No process has it any more, so the kernel frees the socket and waits for the peer's \
             FIN with a smaller object: FIN_WAIT2 is not over."
        }
        (LastAck, Close) if x.cause == Some(Cause::AckOfFin) => {
            "Both directions are closed. The side that closed last needs no TIME_WAIT."
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::samples;

    #[test]
    fn a_finished_handshake_is_explained_without_accept() {
        let text = transition(&samples::transition()).unwrap();
        assert!(
            text.starts_with("The ACK of the SYN-ACK has come."),
            "{text}"
        );
        assert!(
            text.contains("accept(), which plays no part in it"),
            "{text}"
        );
        assert!(
            text.ends_with("[tcp_rcv_state_process; RFC 9293, 3.10.7.4]"),
            "{text}"
        );
    }

    /// Regression test: each of these changes once had a sentence about a segment that was never
    /// sent.
    #[test]
    fn a_change_without_a_segment_mentions_no_segment() {
        use State::*;
        let explain = |cause, oldstate, newstate| {
            let change = Transition {
                oldstate,
                newstate,
                cause: Some(cause),
                bucket: None,
                ..samples::transition()
            };
            transition(&change).unwrap_or_default()
        };
        for (cause, oldstate, newstate) in [
            (Cause::Close, SynSent, Close),
            (Cause::ConnectFailed, SynSent, Close),
            (Cause::Disconnect, SynSent, Close),
            (Cause::Disconnect, LastAck, Close),
            (Cause::Killed, SynSent, Close),
            (Cause::Killed, Listen, Close),
            (Cause::Repair, Close, SynSent),
            (Cause::Repair, SynSent, Established),
            (Cause::Repair, Established, Close),
        ] {
            let text = explain(cause, oldstate, newstate);
            assert!(!text.is_empty());
            assert!(!text.contains("FIN") && !text.contains("sends"), "{text}");
            assert!(!text.contains("SYN-ACK"), "{text}");
        }
        // The FIN is queued behind data that may never be sent.
        let fin = explain(Cause::Close, Established, FinWait1);
        assert!(!fin.contains("sends a FIN"), "{fin}");
        // With TCP_LINGER2 below 0 there is no bucket.
        let linger2 = explain(Cause::Abort, FinWait2, Close);
        assert!(!linger2.contains("not over"), "{linger2}");
    }

    #[test]
    fn a_change_without_a_known_cause_is_not_explained() {
        let unknown = Transition {
            oldstate: State::Established,
            newstate: State::Close,
            cause: None,
            function: None,
            rfc9293: None,
            ..samples::transition()
        };
        assert_eq!(transition(&unknown), None);
    }
}
