//! How connections end, and their figures.

use super::*;
use crate::event::{Retransmit, Retransmitted, Stats};
use crate::fields::{ClosedFirst, Ended};

const EPIPE: u32 = 32;
const ECONNABORTED: u32 = 103;
const ETIMEDOUT: u32 = 110;
const ECONNREFUSED: u32 = 111;
const EHOSTUNREACH: u32 = 113;

/// What a client has after it has sent 18 bytes, received none, and both have closed.
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

/// In the process of `client(2)`, by close() or shutdown().
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

/// In a softirq, while the process has it.
pub(super) fn happens(old: State, new: State) -> SetState {
    SetState {
        held: true,
        ..with(STATS, client(2).enters(old, new))
    }
}

/// In a softirq, after the process has closed it.
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

/// The end of a client that is connected and then makes these changes.
#[track_caller]
fn connected_then(changes: &[SetState]) -> fields::Ending {
    let mut t = syn_sent();
    t.set(happens(SynSent, Established));
    changes.iter().for_each(|change| t.set(*change));
    t.finish();
    t.connection(1).ending.clone()
}

/// The end of a client that never gets further than SYN_SENT.
#[track_caller]
fn connecting_then(change: SetState) -> fields::Ending {
    let mut t = syn_sent();
    t.set(change);
    t.finish();
    t.connection(1).ending.clone()
}

#[test]
fn closed_here_first() {
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
fn closed_by_the_peer_first() {
    let ending = connected_then(&[
        happens(Established, CloseWait),
        does(CloseWait, LastAck),
        fin_received(orphan(LastAck, Close)),
    ]);
    assert_eq!(ending.ended, Some(Ended::Orderly));
    assert_eq!(ending.closed_first, Some(ClosedFirst::Remote));
}

#[test]
fn closed_by_both_at_once() {
    let ending = connected_then(&[
        does(Established, FinWait1),
        fin_received(orphan(FinWait1, Closing)),
        fin_received(orphan(Closing, Close)),
    ]);
    assert_eq!(ending.ended, Some(Ended::Orderly));
    assert_eq!(ending.closed_first, Some(ClosedFirst::Both));
}

#[test]
fn a_fin_wait2_bucket_is_an_orderly_end_unless_data_may_have_come() {
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
    // TCP_LINGER2: the kernel answers the ACK of the FIN with a RST.
    assert_eq!(closed(impatient), Some(Ended::Aborted));
}

#[test]
fn a_reset_after_close_is_the_peers_only_if_no_data_came() {
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
fn resets_timeouts_and_aborts() {
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
        // An error that nobody has asked for yet is not why the process aborts.
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
fn a_connect_that_comes_to_nothing() {
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
        // The socket was disconnected before, which has left an error.
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
fn in_the_accept_queue() {
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
    // One that was accepted is not there any more.
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
fn syn_and_fin_are_no_bytes() {
    let ending = connected_then(&[
        does(Established, FinWait1),
        orphan(FinWait1, FinWait2),
        fin_received(orphan(FinWait2, Close)),
    ]);
    assert_eq!(ending.bytes_acked, Some(18));
    assert_eq!(ending.bytes_received, Some(0));
    assert_eq!(ending.unread_bytes, Some(0));
    assert_eq!((ending.segs_out, ending.segs_in), (Some(5), Some(4)));

    // A server's SYN-ACK is its listener's; an abort sends no FIN.
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
fn what_has_not_ended_has_no_figures() {
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
fn a_side_that_is_not_known_leaves_the_syn_open() {
    let mut t = trace();
    t.set(fin_received(orphan(FinWait2, Close)));
    t.finish();
    let ending = &t.connection(1).ending;
    assert_eq!(ending.ended, Some(Ended::Orderly));
    assert_eq!(ending.bytes_acked, None);
    assert_eq!(ending.bytes_received, Some(0));
}

#[test]
fn a_syn_that_is_sent_again_brings_the_port() {
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

/// A FIN waits behind the data that the peer has no room for, and may never leave.
#[test]
fn a_fin_that_never_left_did_not_close_first() {
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

    // The peer's comes while the own one still waits: the peer was first.
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

    // Nothing tells yet.
    let ending = connected_then(&[does(Established, FinWait1)]);
    assert_eq!((ending.closed_first, ending.fin_sent), (None, None));
}

/// tcp_fastopen_add_skb() counts the data of a SYN-ACK, and not its FIN.
#[test]
fn a_fin_with_the_syn_ack_is_in_no_count() {
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

/// `ss -K` of a listener: tcp_abort() calls tcp_done() when it is CLOSE already.
#[test]
fn a_socket_that_is_closed_already_is_no_connection() {
    let mut t = trace();
    t.set(SetState {
        err: Some(ECONNABORTED),
        ..listener().enters_by(visitor(), Close, Close)
    });
    t.finish();
    assert!(t.lines.is_empty(), "{:?}", t.lines);
}

/// TCP_FASTOPEN_CONNECT: connect() sends nothing; the SYN leaves with the first data.
#[test]
fn the_handshake_of_a_deferred_connect_begins_with_its_data() {
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

    // A SYN that was sent again has no round trip.
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

/// The process that kills it is named, and does not become its owner.
#[test]
fn who_kills_a_connection_does_not_own_it() {
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
