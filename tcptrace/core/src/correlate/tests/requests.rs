//! Tests of half-open connections: those joined with their child socket, those with an estimated
//! time of the SYN, and those that do not finish.

use super::*;
use crate::event::{CloneOf, Hook, ListenQueue, Overflow, OverflowSegment, Request, RequestStep};
use crate::fields::{Cause, HalfOpenEnd, PidSource, Source};

pub const REQ: u64 = 100;
pub const ISN: u32 = 7_000;

pub const TIMEOUT: RequestStep = RequestStep::Dropped {
    by_timer: true,
    listening: true,
};
pub const DROPPED: RequestStep = RequestStep::Dropped {
    by_timer: false,
    listening: true,
};

/// Returns the event of the request socket that `child` comes from, at this step.
pub fn request(child: &Sock, step: RequestStep) -> Request {
    Request {
        req: Sk(REQ + child.sk.0),
        sk: listener().sk,
        netns: NETNS,
        tuple: child.tuple,
        step,
        synack_ns: None,
        synack_retransmits: 0,
        syn_queue_len: 3,
        isn: ISN,
        defer_accept: false,
    }
}

pub fn overflow(child: &Sock, segment: OverflowSegment, aborted: bool) -> Overflow {
    Overflow {
        listener: listener().sk,
        req: (segment == OverflowSegment::Ack).then_some(Sk(REQ + child.sk.0)),
        isn: (segment == OverflowSegment::Syn).then_some(ISN),
        netns: NETNS,
        tuple: child.tuple,
        segment,
        queue: ListenQueue::Accept,
        backlog_len: 129,
        backlog_max: 128,
        reserve: false,
        aborted,
    }
}

/// Returns a birth as kernels before Linux 6.15 report it: without the peer.
pub fn peerless(child: &Sock) -> SetState {
    let tuple = Tuple {
        raddr: None,
        rport: None,
        ..child.tuple
    };
    SetState {
        tuple,
        ..child.enters(Listen, SynRecv)
    }
}

/// Returns a trace with these hooks, with `listener()` in LISTEN as connection 1.
pub fn seeing(hooks: &[Hook]) -> Trace {
    let mut t = trace();
    t.correlator = Correlator::new(START).with_hooks(hooks.iter().copied());
    t.set(listener().enters_by(server(), Close, Listen));
    t
}

pub fn probed() -> Trace {
    seeing(&Hook::ALL)
}

/// Returns a trace on a kernel whose functions cannot be probed.
pub fn unprobed() -> Trace {
    seeing(&[Hook::InetSockSetState, Hook::TcpRetransmitSynack])
}

impl Trace {
    pub fn step(&mut self, child: &Sock, step: RequestStep) {
        self.request(request(child, step));
    }

    pub fn request(&mut self, request: Request) {
        self.wait(US);
        self.event(Kind::Request(request));
    }

    pub fn overflow(&mut self, overflow: Overflow) {
        self.wait(US);
        self.event(Kind::Overflow(overflow));
    }

    fn overflows(&self) -> Vec<&fields::Overflow> {
        let only = self.lines.iter().filter_map(|line| match line {
            Line::Overflow(x) => Some(x),
            _ => None,
        });
        only.collect()
    }

    /// Plays the child socket's change to ESTABLISHED, with this first round-trip time.
    fn establish_after(&mut self, child: &Sock, rtt: Option<u64>) {
        self.set(child.enters(Listen, SynRecv));
        self.set(SetState {
            srtt_ns: rtt,
            ..child.enters(SynRecv, Established)
        });
    }
}

#[test]
fn request_socket_and_child_socket_have_one_number() {
    let (a, b) = (child(2), child(3));
    let mut t = probed();
    t.step(&a, RequestStep::Begun);
    let syn = t.now;
    let begin = t.last_transition();
    assert_eq!((begin.oldstate, begin.newstate), (Listen, NewSynRecv));
    assert!(begin.synthetic);
    assert_eq!(begin.source, Source::RequestSock);
    assert_eq!(begin.subject.conn, Some(2));
    assert_eq!(begin.subject.pid_source, Some(PidSource::Presumed));
    t.step(&b, RequestStep::Begun);
    t.wait(10 * MS);
    // The ACK of the client whose SYN came second comes first. The births do not name the peers.
    for (child, conn) in [(&b, 3), (&a, 2)] {
        t.step(child, RequestStep::Cloning(CloneOf::Request));
        t.set(peerless(child));
        let birth = t.last_transition();
        assert_eq!(birth.subject.conn, Some(conn));
        assert!(!birth.synthetic);
        assert_eq!(birth.in_state_ns, None);
        t.set(child.enters(SynRecv, Established));
    }
    let established = t.now;
    t.finish_with_queued(&[a, b]);
    let line = t.connection(2);
    assert_eq!(line.syn_mono_ns, Some(syn));
    assert_eq!(line.syn_source, Some(Source::RequestSock));
    assert_eq!(line.handshake_ns, Some(established - syn));
    assert_eq!(line.half_open_ns, Some(established - US - syn));
    assert_eq!(line.synack_retransmits, Some(0));
    assert_eq!(line.syncookie, Some(false));
    assert_eq!(line.syn_queue_ahead, Some(3));
    assert_eq!(line.verdict, Some(Verdict::NeverAccepted));
    assert!(line.complete);
    assert_eq!(t.connections().len(), 2);
}

#[test]
fn request_socket_from_before_the_trace_still_has_the_time_of_its_synack() {
    let mut t = probed();
    t.request(Request {
        synack_ns: Some(START - 5 * MS),
        synack_retransmits: 2,
        ..request(&child(2), RequestStep::Cloning(CloneOf::Request))
    });
    t.establish(&child(2));
    t.finish();
    let line = t.connection(2);
    assert_eq!(line.syn_mono_ns, Some(START - 5 * MS));
    assert_eq!(line.synack_retransmits, Some(2));
}

#[test]
fn syn_cookie_has_no_syn_time() {
    let mut t = probed();
    t.step(&child(2), RequestStep::Cloning(CloneOf::Cookie));
    t.establish_after(&child(2), Some(1_234_567));
    t.finish();
    let line = t.connection(2);
    assert_eq!(line.syncookie, Some(true));
    assert_eq!((line.syn_mono_ns, line.syn_source), (None, None));
    assert_eq!(line.synack_retransmits, None);
}

#[test]
fn fast_open_child_is_born_by_the_syn() {
    let mut t = probed();
    t.step(&child(2), RequestStep::Cloning(CloneOf::FastOpen));
    let syn = t.now;
    t.set(child(2).enters(Listen, SynRecv));
    t.wait(MS);
    t.request(Request {
        sk: child(2).sk,
        synack_retransmits: 1,
        ..request(&child(2), RequestStep::SynackRetransmitted)
    });
    t.set(child(2).enters(SynRecv, Established));
    t.finish();
    let line = t.connection(2);
    assert_eq!(line.syn_mono_ns, Some(syn));
    assert_eq!(line.synack_retransmits, Some(1));
    assert_eq!(t.connections().len(), 1);
}

#[test]
fn missed_cloning_event_gives_request_socket_and_child_socket_two_numbers() {
    let mut t = probed();
    t.step(&child(2), RequestStep::Begun);
    let syn = t.now;
    t.set(peerless(&child(2)));
    t.set(child(2).enters(SynRecv, Established));
    t.finish();
    assert_eq!(t.verdict(2), Verdict::Unknown);
    assert!(t.reason(2).contains("as connection #3"));
    assert!(!t.connection(2).complete);
    assert_eq!(t.connection(3).syn_mono_ns, Some(syn));
    assert!(t.connection(3).complete);

    // If the birth names the peer, request socket and child socket have one connection number.
    let mut t = probed();
    t.step(&child(2), RequestStep::Begun);
    t.establish(&child(2));
    t.finish_with_queued(&[child(2)]);
    assert_eq!(t.connections().len(), 1);
    assert_eq!(t.connection(2).verdict, Some(Verdict::NeverAccepted));
}

#[test]
fn birth_is_not_joined_with_another_request_socket() {
    for spoil in [
        // The child socket has another port and network namespace.
        |t: &mut Trace| {
            t.set(SetState {
                netns: NETNS + 1,
                ..child(9).enters(Listen, SynRecv)
            })
        },
        // The birth of the request socket's own child may be among the lost events.
        |t: &mut Trace| {
            t.lost += 1;
            t.set(peerless(&child(9)));
        },
    ] {
        let mut t = probed();
        t.step(&child(2), RequestStep::Begun);
        t.step(&child(2), RequestStep::Cloning(CloneOf::Request));
        spoil(&mut t);
        assert_eq!(t.last_transition().subject.conn, Some(3));
        t.finish();
        assert_eq!(t.connection(2).established_mono_ns, None);
    }
}

/// Linux 6.1 with fentry: the kernel may have dropped the request socket and sent a RST.
#[test]
fn dropped_request_socket_has_unknown_end_if_no_hook_sees_overflows() {
    let mut t = seeing(&[Hook::InetSockSetState, Hook::RequestSock]);
    t.step(&child(2), RequestStep::Begun);
    t.step(&child(2), DROPPED);
    assert_eq!(t.last_transition().cause, None);
    let totals = t.finish();
    assert_eq!(totals.listeners[0].half_open_failed, Some(1));
    let line = t.connection(2);
    assert_eq!(line.verdict, Some(Verdict::Unfinished));
    assert_eq!(line.half_open_end, None);
    assert_eq!(line.state, Close);
    let reason = line.reason.as_deref().unwrap();
    assert!(reason.contains("or by the kernel"), "{reason}");
}

#[test]
fn request_socket_without_an_ack_is_unfinished() {
    for (step, end) in [
        (TIMEOUT, HalfOpenEnd::Timeout),
        (DROPPED, HalfOpenEnd::Reset),
        (
            RequestStep::Dropped {
                by_timer: true,
                listening: false,
            },
            HalfOpenEnd::ListenerClosed,
        ),
    ] {
        let mut t = probed();
        t.step(&child(2), RequestStep::Begun);
        t.wait(MS - US);
        t.request(Request {
            synack_retransmits: 5,
            ..request(&child(2), step)
        });
        let close = t.last_transition();
        assert_eq!((close.oldstate, close.newstate), (NewSynRecv, Close));
        assert_eq!(close.in_state_ns, Some(MS));
        let totals = t.finish();
        let line = t.connection(2);
        assert_eq!(line.verdict, Some(Verdict::Unfinished));
        assert_eq!(line.half_open_end, Some(end));
        assert_eq!(line.half_open_ns, Some(MS));
        assert_eq!(line.synack_retransmits, Some(5));
        assert_eq!(line.state, Close);
        assert!(line.complete);
        assert_eq!((totals.servers, totals.incomplete), (1, 0));
        assert_eq!(totals.verdicts[&Verdict::Unfinished], 1);
        assert_eq!(totals.listeners[0].half_open_failed, Some(1));
        assert_eq!(totals.listeners[0].connections, 0);
    }
}

#[test]
fn request_socket_at_the_end_of_the_trace_has_not_failed() {
    let mut t = probed();
    t.step(&child(2), RequestStep::Begun);
    let totals = t.finish();
    let line = t.connection(2);
    assert_eq!((line.state, line.half_open_end), (NewSynRecv, None));
    assert_eq!(line.verdict, Some(Verdict::Unfinished));
    assert_eq!(totals.listeners[0].half_open_failed, Some(0));
}

#[test]
fn request_socket_with_unseen_end_after_a_lost_event_is_unknown() {
    let mut t = probed();
    t.step(&child(2), RequestStep::Begun);
    t.lost += 1;
    t.finish();
    assert_eq!(t.verdict(2), Verdict::Unknown);
    assert!(!t.connection(2).complete);
}

#[test]
fn new_request_socket_at_the_same_address_or_tuple_ends_the_previous_one() {
    let mut t = probed();
    t.step(&child(2), RequestStep::Begun);
    t.request(Request {
        req: Sk(REQ),
        ..request(&child(2), RequestStep::Begun)
    });
    t.request(Request {
        req: Sk(REQ),
        ..request(&child(3), RequestStep::Begun)
    });
    assert_eq!(t.connections().len(), 2);
    t.finish();
    assert_eq!(t.connections().len(), 3);
    for conn in [2, 3, 4] {
        assert_eq!(t.verdict(conn), Verdict::Unfinished);
    }
    for (conn, how) in [
        (2, "how it ended was not seen"),
        (4, "when the trace ended"),
    ] {
        assert!(t.reason(conn).contains(how), "{}", t.reason(conn));
    }
}

#[test]
fn overflow_names_the_connection_and_its_listener() {
    let mut t = probed();
    t.overflow(overflow(&child(2), OverflowSegment::Syn, false));
    t.step(&child(3), RequestStep::Begun);
    t.overflow(overflow(&child(3), OverflowSegment::Ack, false));
    t.overflow(overflow(&child(3), OverflowSegment::Ack, true));
    t.step(&child(3), DROPPED);
    let totals = t.finish();
    let overflows = t.overflows();
    let conns: Vec<_> = overflows.iter().map(|x| x.subject.conn).collect();
    assert_eq!(conns, [None, Some(2), Some(2)]);
    assert!(overflows.iter().all(|x| x.listener == Some(1)));
    assert_eq!(overflows[0].subject.rport, child(2).tuple.rport);
    assert_eq!(t.connection(2).half_open_end, Some(HalfOpenEnd::Overflow));
    assert_eq!(totals.listeners[0].overflows, Some(3));
    assert_eq!(totals.listeners[0].backlog.backlog_max, Some(128));
}

#[test]
fn request_socket_timeout_behind_a_full_queue_names_the_queue() {
    let mut t = probed();
    t.step(&child(3), RequestStep::Begun);
    t.overflow(overflow(&child(3), OverflowSegment::Ack, false));
    t.step(&child(3), TIMEOUT);
    assert_eq!(t.connection(2).half_open_end, Some(HalfOpenEnd::Timeout));
    assert!(
        t.reason(2)
            .contains("met a full accept queue (129 queued, limit 128) once, until it timed out")
    );
}

#[test]
fn first_round_trip_estimates_the_syn_time() {
    let mut t = unprobed();
    t.wait(MS);
    t.establish_after(&child(2), Some(700 * US + 125));
    let established = t.now;
    let totals = t.finish();
    let line = t.connection(2);
    assert_eq!(line.syn_source, Some(Source::Srtt));
    assert_eq!(line.syn_mono_ns, Some(established - 700 * US - 125));
    assert_eq!(line.handshake_ns, Some(700 * US + 125));
    assert_eq!(line.synack_retransmits, Some(0));
    assert_eq!((line.syncookie, line.half_open_end), (None, None));
    assert_eq!(totals.listeners[0].half_open_failed, None);
    assert_eq!(totals.listeners[0].overflows, None);
}

#[test]
fn ambiguous_round_trip_gives_no_syn_time() {
    for rtt in [
        None,
        // A round-trip time in whole milliseconds may come from a TCP timestamp. Then the SYN-ACK
        // may have been a cookie or retransmitted.
        Some(4 * MS),
        // The round-trip time is shorter than the age of the child socket: with Fast Open the SYN
        // made the child.
        Some(US / 2),
        // The SYN came before the trace, so the SYN-ACK may have been retransmitted.
        Some(10 * START),
        Some(20 * MS + 125),
    ] {
        let mut t = unprobed();
        t.wait(10 * MS);
        t.establish_after(&child(2), rtt);
        t.finish();
        assert_eq!(t.connection(2).syn_mono_ns, None, "{rtt:?}");
    }
    // Without the tracepoint for SYN-ACK retransmissions, a retransmission is not seen.
    let mut t = seeing(&[Hook::InetSockSetState]);
    t.wait(10 * MS);
    t.establish_after(&child(2), Some(700 * US + 125));
    t.finish();
    assert_eq!(t.connection(2).syn_mono_ns, None);
}

#[test]
fn retransmitted_synack_gives_the_time_of_the_first() {
    let mut t = unprobed();
    let synack = t.now;
    for n in 1..=2 {
        t.wait(n * 1_000 * MS);
        t.request(Request {
            synack_ns: Some(synack),
            synack_retransmits: n as u32,
            ..request(&child(2), RequestStep::SynackRetransmitted)
        });
    }
    t.set(peerless(&child(2)));
    t.set(SetState {
        srtt_ns: Some(700 * US + 125),
        ..child(2).enters(SynRecv, Established)
    });
    t.finish();
    assert_eq!(t.connections().len(), 1);
    let line = t.connections()[0];
    assert_eq!(line.syn_mono_ns, Some(synack));
    assert_eq!(line.syn_source, Some(Source::RequestSock));
    assert_eq!(line.synack_retransmits, Some(2));
}

#[test]
fn retransmitted_synack_alone_shows_an_unfinished_handshake() {
    let mut t = unprobed();
    t.request(Request {
        synack_ns: Some(t.now),
        synack_retransmits: 1,
        ..request(&child(2), RequestStep::SynackRetransmitted)
    });
    t.finish();
    let line = t.connection(2);
    assert_eq!(line.verdict, Some(Verdict::Unfinished));
    assert_eq!(line.state, NewSynRecv);
    assert!(t.reason(2).contains("sent 2 times"));
}

#[test]
fn cause_of_a_birth_follows_the_kind_of_clone() {
    for (of, cause, function) in [
        (CloneOf::Request, Cause::AckReceived, "tcp_v4_syn_recv_sock"),
        (CloneOf::Cookie, Cause::AckReceived, "tcp_v4_syn_recv_sock"),
        (CloneOf::FastOpen, Cause::SynReceived, "tcp_try_fastopen"),
    ] {
        let mut t = probed();
        t.step(&child(2), RequestStep::Cloning(of));
        t.set(peerless(&child(2)));
        let birth = t.last_transition();
        assert_eq!(
            (birth.cause, birth.function.as_deref()),
            (Some(cause), Some(function))
        );
    }
    let mut t = probed();
    t.set(child(2).enters(Listen, SynRecv));
    assert_eq!(t.last_transition().cause, None);
}
