//! Tests of the ends of connections and of the socket counters at the end.

use super::*;
use crate::event::{Retransmit, Retransmitted, Stats};
use crate::fields::{ClosedFirst, Ended};

const EPIPE: u32 = 32;
const ECONNABORTED: u32 = 103;
const ETIMEDOUT: u32 = 110;
const ECONNREFUSED: u32 = 111;
const EHOSTUNREACH: u32 = 113;

/// The counters of a client that has sent 18 bytes and received none, after both sides closed.
pub(super) const STATS: Stats = Stats {
    bytes_acked: 20,
    bytes_received: 1,
    segs_in: 4,
    segs_out: 5,
    data_segs_in: 0,
    retransmits: 0,
    snd_cwnd: 10,
    unacked: 0,
    unread: 0,
    rcv_shutdown: false,
    no_fin_wait2: false,
    snd_shutdown: false,
    unsent: false,
    call: None,
};

pub(super) fn with(stats: Stats, change: SetState) -> SetState {
    SetState {
        stats: Some(stats),
        ..change
    }
}

/// Returns a transition in the process of `client(2)`, by close() or shutdown().
pub(super) fn does(old: State, new: State) -> SetState {
    let shut = Stats {
        rcv_shutdown: new == Close,
        snd_shutdown: new == Close,
        ..STATS
    };
    SetState {
        held: true,
        ..with(shut, client(2).enters_by(visitor(), old, new))
    }
}

/// Returns a transition in a softirq while the process has the socket.
pub(super) fn happens(old: State, new: State) -> SetState {
    SetState {
        held: true,
        ..with(STATS, client(2).enters(old, new))
    }
}

/// Returns a transition in a softirq after the process closed the socket.
pub(super) fn orphan(old: State, new: State) -> SetState {
    SetState {
        orphaned: true,
        ..with(
            Stats {
                rcv_shutdown: true,
                ..STATS
            },
            client(2).enters(old, new),
        )
    }
}

pub(super) fn failed(err: u32, change: SetState) -> SetState {
    SetState {
        err: Some(err),
        ..change
    }
}

pub(super) fn fin_received(change: SetState) -> SetState {
    SetState {
        fin_received: true,
        ..change
    }
}

/// Returns how a connected client ends after these transitions.
#[track_caller]
fn connected_then(changes: &[SetState]) -> fields::Ending {
    let mut t = syn_sent();
    t.set(happens(SynSent, Established));
    changes.iter().for_each(|change| t.set(*change));
    t.finish();
    t.connection(1).ending.clone()
}

/// Returns how a client ends that never leaves SYN_SENT.
#[track_caller]
fn connecting_then(change: SetState) -> fields::Ending {
    let mut t = syn_sent();
    t.set(change);
    t.finish();
    t.connection(1).ending.clone()
}

#[test]
fn local_fin_first_is_closed_first_local() {
    let ending = connected_then(&[
        does(Established, FinWait1),
        orphan(FinWait1, FinWait2),
        fin_received(orphan(FinWait2, Close)),
    ]);
    assert_eq!(ending.ended, Some(Ended::Orderly));
    assert_eq!(ending.closed_first, Some(ClosedFirst::Local));
    assert_eq!(ending.syn_retransmits, Some(0));
}

#[test]
fn remote_fin_first_is_closed_first_remote() {
    let ending = connected_then(&[
        happens(Established, CloseWait),
        does(CloseWait, LastAck),
        fin_received(orphan(LastAck, Close)),
    ]);
    assert_eq!(ending.ended, Some(Ended::Orderly));
    assert_eq!(ending.closed_first, Some(ClosedFirst::Remote));
}

#[test]
fn crossing_fins_are_closed_first_both() {
    let ending = connected_then(&[
        does(Established, FinWait1),
        fin_received(orphan(FinWait1, Closing)),
        fin_received(orphan(Closing, Close)),
    ]);
    assert_eq!(ending.ended, Some(Ended::Orderly));
    assert_eq!(ending.closed_first, Some(ClosedFirst::Both));
}

#[test]
fn fin_wait2_bucket_is_orderly_unless_late_data_is_possible() {
    let closed = |at_the_end: Stats| {
        connected_then(&[
            does(Established, FinWait1),
            orphan(FinWait1, FinWait2),
            with(at_the_end, orphan(FinWait2, Close)),
        ])
        .ended
    };
    let quiet = Stats {
        rcv_shutdown: true,
        ..STATS
    };
    let data_came = Stats {
        data_segs_in: 1,
        ..quiet
    };
    let impatient = Stats {
        no_fin_wait2: true,
        ..quiet
    };
    assert_eq!(closed(quiet), Some(Ended::Orderly));
    assert_eq!(closed(data_came), None);
    // With TCP_LINGER2 below 0, the kernel answers the ACK of the FIN with a RST.
    assert_eq!(closed(impatient), Some(Ended::Aborted));
}

#[test]
fn rst_after_close_is_the_peers_only_without_late_data() {
    let reset = |at_the_end: Stats| {
        connected_then(&[
            does(Established, FinWait1),
            with(at_the_end, failed(ECONNRESET, orphan(FinWait1, Close))),
        ])
        .ended
    };
    let quiet = Stats {
        rcv_shutdown: true,
        ..STATS
    };
    let data_came = Stats {
        data_segs_in: 1,
        ..quiet
    };
    let half_closed = Stats {
        rcv_shutdown: false,
        ..data_came
    };
    assert_eq!(reset(quiet), Some(Ended::ResetReceived));
    assert_eq!(reset(data_came), None);
    assert_eq!(reset(half_closed), Some(Ended::ResetReceived));
}

#[test]
fn ended_follows_error_and_context() {
    for (change, ended) in [
        (
            failed(ECONNRESET, happens(Established, Close)),
            Some(Ended::ResetReceived),
        ),
        (
            failed(EPIPE, happens(CloseWait, Close)),
            Some(Ended::ResetReceived),
        ),
        (
            failed(ETIMEDOUT, happens(Established, Close)),
            Some(Ended::Timeout),
        ),
        (
            failed(EHOSTUNREACH, happens(Established, Close)),
            Some(Ended::Unreachable),
        ),
        (
            failed(ECONNABORTED, does(Established, Close)),
            Some(Ended::Killed),
        ),
        (does(Established, Close), Some(Ended::Aborted)),
        (does(CloseWait, Close), Some(Ended::Aborted)),
        // The process has not fetched the pending error. That error is not the reason for the
        // abort.
        (
            failed(EHOSTUNREACH, does(Established, Close)),
            Some(Ended::Aborted),
        ),
        (
            with(STATS, does(Established, Close)),
            Some(Ended::Disconnected),
        ),
        (
            SetState {
                repair: true,
                ..does(Established, Close)
            },
            Some(Ended::Repair),
        ),
        (orphan(Established, Close), None),
    ] {
        let mut path = vec![];
        if change.oldstate == CloseWait {
            path.push(happens(Established, CloseWait));
        }
        path.push(change);
        assert_eq!(connected_then(&path).ended, ended, "{change:?}");
    }
}

#[test]
fn ended_of_a_failed_connect_follows_its_cause() {
    let again = |n| Stats {
        retransmits: n,
        ..STATS
    };
    let never_sent = Stats {
        segs_out: 0,
        ..STATS
    };
    let mut portless = does(SynSent, Close);
    portless.tuple.lport = None;
    for (change, ended) in [
        (
            failed(ECONNREFUSED, happens(SynSent, Close)),
            Some(Ended::Refused),
        ),
        (
            failed(ETIMEDOUT, happens(SynSent, Close)),
            Some(Ended::Timeout),
        ),
        (
            failed(EHOSTUNREACH, happens(SynSent, Close)),
            Some(Ended::Unreachable),
        ),
        (does(SynSent, Close), Some(Ended::GivenUp)),
        (
            failed(ECONNABORTED, with(STATS, does(SynSent, Close))),
            Some(Ended::Killed),
        ),
        (with(STATS, does(SynSent, Close)), Some(Ended::Disconnected)),
        (with(never_sent, portless), Some(Ended::NoFreePort)),
        // The error is left from an earlier disconnect of the socket.
        (
            failed(ECONNRESET, with(never_sent, portless)),
            Some(Ended::NoFreePort),
        ),
        (with(never_sent, does(SynSent, Close)), None),
    ] {
        let ending = connecting_then(change);
        assert_eq!(
            (ending.ended, ending.closed_first),
            (ended, None),
            "{change:?}"
        );
    }
    let timeout = failed(ETIMEDOUT, with(again(6), happens(SynSent, Close)));
    assert_eq!(connecting_then(timeout).syn_retransmits, Some(6));
}

#[test]
fn connection_that_ends_in_the_accept_queue_has_ended_in_queue() {
    for (err, ended) in [
        (None, Ended::ClosedInQueue),
        (Some(ECONNRESET), Ended::ResetInQueue),
    ] {
        let mut t = established();
        t.set(SetState {
            err,
            stats: Some(STATS),
            ..child(2).enters(Established, Close)
        });
        t.finish();
        assert_eq!(t.connection(2).ending.ended, Some(ended));
    }
    // An accepted connection is not in the accept queue any more.
    let mut t = accepted();
    t.set(SetState {
        held: true,
        err: Some(ECONNRESET),
        ..child(2).enters(Established, Close)
    });
    t.finish();
    let ended = t.connection(2).ending.ended;
    assert_eq!(ended, Some(Ended::ResetReceived));
}

#[test]
fn byte_counts_exclude_syn_and_fin() {
    let ending = connected_then(&[
        does(Established, FinWait1),
        orphan(FinWait1, FinWait2),
        fin_received(orphan(FinWait2, Close)),
    ]);
    assert_eq!(ending.bytes_acked, Some(18));
    assert_eq!(ending.bytes_received, Some(0));
    assert_eq!(ending.unread_bytes, Some(0));
    assert_eq!((ending.segs_out, ending.segs_in), (Some(5), Some(4)));

    // A server's SYN-ACK is sent by its request socket, and an abort sends no FIN.
    let mut t = accepted();
    t.set(SetState {
        held: true,
        stats: Some(Stats {
            bytes_acked: 7,
            bytes_received: 18,
            unread: 12,
            rcv_shutdown: true,
            snd_shutdown: true,
            ..STATS
        }),
        srtt_ns: Some(32 * US),
        ..child(2).enters_by(server(), Established, Close)
    });
    t.finish();
    let ending = &t.connection(2).ending;
    assert_eq!(ending.ended, Some(Ended::Aborted));
    assert_eq!(ending.bytes_acked, Some(7));
    assert_eq!(ending.bytes_received, Some(18));
    assert_eq!(ending.unread_bytes, Some(12));
    assert_eq!(ending.srtt_ns, Some(32 * US));
    assert_eq!(ending.syn_retransmits, None);
}

#[test]
fn open_connection_has_no_counters() {
    let mut t = syn_sent();
    t.set(happens(SynSent, Established));
    t.finish();
    let expected = fields::Ending {
        syn_retransmits: Some(0),
        ..fields::Ending::default()
    };
    assert_eq!(t.connection(1).ending, expected);
}

#[test]
fn bytes_acked_is_null_if_the_side_is_unknown() {
    let mut t = trace();
    t.set(fin_received(orphan(FinWait2, Close)));
    t.finish();
    let ending = &t.connection(1).ending;
    assert_eq!(ending.ended, Some(Ended::Orderly));
    assert_eq!(ending.bytes_acked, None);
    assert_eq!(ending.bytes_received, Some(0));
}

#[test]
fn syn_retransmission_gives_the_local_port() {
    let mut t = trace();
    let mut connecting = client(2).enters_by(visitor(), Close, SynSent);
    connecting.tuple.lport = None;
    t.set(connecting);
    t.event(Kind::Retransmit(Retransmit {
        sk: Sk(2),
        cookie: None,
        netns: NETNS,
        tuple: client(2).tuple,
        state: SynSent,
        what: Retransmitted::Syn,
        retransmits: 1,
    }));
    let Some(Line::Retransmit(line)) = t.lines.last() else {
        panic!();
    };
    assert_eq!(line.subject.conn, Some(1));
    assert_eq!(line.subject.lport, client(2).tuple.lport);
    assert_eq!(line.retransmits, 1);
}

/// This side's FIN waits behind data that the peer has no room for, and may never be sent.
#[test]
fn unsent_fin_is_not_closed_first() {
    let unsent = Stats {
        unsent: true,
        unacked: 100,
        ..STATS
    };
    let sent = Stats {
        unacked: 1,
        ..STATS
    };
    let closed = |at_the_end: Stats| {
        let ending = connected_then(&[
            does(Established, FinWait1),
            failed(ETIMEDOUT, with(at_the_end, orphan(FinWait1, Close))),
        ]);
        (ending.closed_first, ending.fin_sent)
    };
    assert_eq!(closed(unsent), (None, Some(false)));
    assert_eq!(closed(sent), (Some(ClosedFirst::Local), Some(true)));

    // The peer's FIN arrives while this side's FIN still waits, so the peer closed first.
    let ending = connected_then(&[
        does(Established, FinWait1),
        with(unsent, fin_received(orphan(FinWait1, Closing))),
        failed(
            ETIMEDOUT,
            with(unsent, fin_received(orphan(Closing, Close))),
        ),
    ]);
    assert_eq!(ending.closed_first, Some(ClosedFirst::Remote));
    assert_eq!(ending.fin_sent, Some(false));

    // No event shows yet whether the FIN was sent.
    let ending = connected_then(&[does(Established, FinWait1)]);
    assert_eq!((ending.closed_first, ending.fin_sent), (None, None));
}

/// tcp_fastopen_add_skb() counts the data of a SYN-ACK but not its FIN.
#[test]
fn fin_with_the_syn_ack_is_not_subtracted_from_bytes_received() {
    let received = |fin_uncounted| {
        let stats = Stats {
            bytes_received: 100,
            ..STATS
        };
        connected_then(&[
            SetState {
                fin_uncounted,
                ..happens(Established, CloseWait)
            },
            does(CloseWait, LastAck),
            with(stats, fin_received(orphan(LastAck, Close))),
        ])
        .bytes_received
    };
    assert_eq!(received(true), Some(100));
    assert_eq!(received(false), Some(99));
}

/// `ss -K` of a listener: tcp_abort() calls tcp_done() when the socket is CLOSE already.
#[test]
fn close_of_a_closed_socket_makes_no_connection() {
    let mut t = trace();
    t.set(SetState {
        err: Some(ECONNABORTED),
        ..listener().enters_by(visitor(), Close, Close)
    });
    t.finish();
    assert!(t.lines.is_empty(), "{:?}", t.lines);
}

/// TCP_FASTOPEN_CONNECT: connect() sends nothing. The SYN is sent with the first data.
#[test]
fn deferred_connect_handshake_begins_with_the_first_data() {
    let deferred = |change: SetState| SetState {
        fastopen_connect: true,
        ..change
    };
    let begun = || {
        let mut t = trace();
        t.set(deferred(does(Close, SynSent)));
        t.wait(1_000 * MS);
        t
    };
    let mut t = begun();
    t.set(SetState {
        srtt_ns: Some(50 * US),
        ..deferred(happens(SynSent, Established))
    });
    t.finish();
    let line = t.connection(1);
    assert_eq!(line.handshake_ns, Some(50 * US));
    assert_eq!(line.syn_source, Some(fields::Source::Srtt));

    // A retransmitted SYN gives no round-trip time.
    let mut t = begun();
    let again = Stats {
        retransmits: 1,
        ..STATS
    };
    t.set(SetState {
        srtt_ns: Some(50 * US),
        ..deferred(with(again, happens(SynSent, Established)))
    });
    t.finish();
    assert_eq!(t.connection(1).syn_mono_ns, None);

    let mut t = begun();
    let nothing_sent = Stats {
        segs_out: 0,
        rcv_shutdown: true,
        snd_shutdown: true,
        ..STATS
    };
    t.set(deferred(with(nothing_sent, does(SynSent, Close))));
    t.finish();
    assert_eq!(t.connection(1).syn_mono_ns, None);
    assert_eq!(t.connection(1).ending.ended, Some(Ended::GivenUp));
}

/// The process that kills the connection is in the transition line but does not become the owner.
#[test]
fn process_that_kills_a_connection_does_not_become_its_owner() {
    let mut t = trace();
    t.set(happens(Close, SynSent));
    t.set(failed(
        ECONNABORTED,
        SetState {
            task: Some(server()),
            ..with(STATS, does(SynSent, Close))
        },
    ));
    t.finish();
    let last = t.transitions().last().unwrap().subject.pid;
    assert_eq!(last, Some(server().pid));
    assert_eq!(t.connection(1).subject.pid, None);
}
