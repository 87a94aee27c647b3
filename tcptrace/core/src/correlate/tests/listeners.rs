//! Tests of listeners: matching of child sockets, failed accept() calls, and the summary.

use super::*;
use crate::event::Listen as Asked;
use crate::fields::{ListenerSource, PidSource};

/// Returns the presumed owner of a child at `laddr`, if there are listeners at these addresses. The
/// listener with connection number `conn` (1, 2, …) is owned by process 10 + `conn`.
fn presumed(listeners: &[&str], laddr: &str) -> Option<u32> {
    let mut t = trace();
    for (n, addr) in listeners.iter().enumerate() {
        let sk = n as u64 + 1;
        let owner = task(10 + sk as u32, "owner");
        t.set(listener_at(sk, addr).enters_by(owner, Close, Listen));
    }
    let child = Sock {
        tuple: tuple(laddr, PORT, Some(("192.0.2.1", 40_000))),
        ..child(100)
    };
    t.establish(&child);
    t.last_transition().subject.pid
}

#[test]
fn child_belongs_to_the_best_matching_listener() {
    for (listeners, laddr, expected) in [
        (&["127.0.0.1"][..], "127.0.0.1", Some(11)),
        (&["127.0.0.2"], "127.0.0.1", None),
        (&["0.0.0.0"], "127.0.0.1", Some(11)),
        (&["::"], "127.0.0.1", Some(11)),
        (&["::"], "::1", Some(11)),
        (&["0.0.0.0"], "::1", None),
        (&["::1"], "127.0.0.1", None),
        (&["0.0.0.0", "127.0.0.1"], "127.0.0.1", Some(12)),
        (&["127.0.0.1", "0.0.0.0"], "127.0.0.2", Some(12)),
        (&["::", "0.0.0.0"], "127.0.0.1", Some(12)),
        (&["::", "0.0.0.0"], "::1", Some(11)),
        (&["0.0.0.0", "0.0.0.0"], "127.0.0.1", None),
        // Before Linux 6.15 the child socket's first event has the listener's address.
        (&["0.0.0.0", "127.0.0.1"], "0.0.0.0", Some(11)),
    ] {
        assert_eq!(
            presumed(listeners, laddr),
            expected,
            "{listeners:?} {laddr}"
        );
    }
}

#[test]
fn other_namespace_or_port_is_another_listener() {
    let mut t = listening();
    t.set(SetState {
        netns: NETNS + 1,
        ..child(2).enters(Listen, SynRecv)
    });
    assert_eq!(t.last_transition().subject.pid, None);
    let elsewhere = Tuple {
        lport: Some(PORT + 1),
        ..child(3).tuple
    };
    t.set(SetState {
        tuple: elsewhere,
        ..child(3).enters(Listen, SynRecv)
    });
    assert_eq!(t.last_transition().subject.pid, None);
}

#[test]
fn listener_of_a_reuseport_child_is_unknown_until_accept() {
    let (a, b) = (listener_at(1, "0.0.0.0"), listener_at(2, "0.0.0.0"));
    let mut t = trace();
    t.set(a.enters_by(task(11, "a"), Close, Listen));
    t.set(b.enters_by(task(12, "b"), Close, Listen));
    t.establish(&child(10));
    t.accept(b.accepts(&child(10), Called::At(t.now)));
    assert_eq!(t.last_accept().listener, Some(2));
    t.establish(&child(11));
    let totals = t.finish_with_queued(&[child(11)]);
    let counts: Vec<_> = totals
        .listeners
        .iter()
        .map(|l| (l.conn, l.laddr.to_string(), l.connections, l.never_accepted))
        .collect();
    assert_eq!(
        counts,
        [
            (Some(1), "0.0.0.0".into(), 0, 0),
            (Some(2), "0.0.0.0".into(), 1, 0),
            (None, "127.0.0.1".into(), 1, 1),
        ]
    );
}

#[test]
fn reuseport_queue_is_gone_when_all_listeners_have_closed() {
    let (a, b) = (listener_at(1, "0.0.0.0"), listener_at(2, "0.0.0.0"));
    let mut t = trace();
    t.correlator.sees_all_accepts();
    t.set(a.enters_by(server(), Close, Listen));
    t.set(b.enters_by(server(), Close, Listen));
    t.establish(&child(10));
    t.set(SetState {
        err: Some(ECONNRESET),
        ..child(10).enters(Established, Close)
    });
    t.set(a.enters_by(server(), Listen, Close));
    assert!(t.connections().is_empty());
    t.set(b.enters_by(server(), Listen, Close));
    assert_eq!(t.verdict(3), Verdict::NeverAccepted);
}

#[test]
fn child_belongs_to_the_only_open_reuseport_listener() {
    let (a, b) = (listener_at(1, "0.0.0.0"), listener_at(2, "0.0.0.0"));
    let mut t = trace();
    t.set(a.enters_by(server(), Close, Listen));
    t.set(b.enters_by(server(), Close, Listen));
    t.set(a.enters_by(server(), Listen, Close));
    t.establish(&child(10));
    assert_eq!(
        t.last_transition().subject.pid_source,
        Some(PidSource::Presumed)
    );
    assert_eq!(t.finish().listeners[1].connections, 1);
}

#[test]
fn port_of_an_unbound_listener_is_learnt_from_accept() {
    let mut t = trace();
    let unbound = Tuple {
        lport: None,
        ..listener().tuple
    };
    t.set(SetState {
        tuple: unbound,
        ..listener().enters_by(server(), Close, Listen)
    });
    t.establish(&child(2));
    t.accept(listener().accepts(&child(2), Called::At(t.now)));
    t.establish(&child(3));
    assert_eq!(t.last_transition().subject.pid, Some(4711));
    let totals = t.finish();
    assert_eq!(totals.listeners.len(), 1);
    assert_eq!(totals.listeners[0].lport, Some(PORT));
    assert_eq!(totals.listeners[0].connections, 2);
}

#[test]
fn listener_seen_only_at_its_close_is_from_before_the_trace() {
    let mut t = trace();
    t.establish(&child(2));
    t.set(listener().enters_by(server(), Listen, Close));
    assert_eq!(t.last_transition().in_state_ns, None);
    assert_eq!(t.last_transition().subject.side, Some(Side::Listener));
    assert_eq!(
        t.last_transition().subject.pid_source,
        Some(PidSource::Close)
    );
    t.set(child(2).enters(Established, Close));
    assert!(t.reason(1).ends_with("the listener closed"));
    let totals = t.finish();
    assert_eq!(totals.listeners.len(), 1);
    assert_eq!(totals.listeners[0].never_accepted, 1);
}

#[test]
fn failed_accept_has_the_listener_and_the_caller() {
    let mut t = listening();
    t.accept(listener().fails_to_accept(11));
    let line = t.last_accept();
    assert_eq!(line.accept_error.as_deref(), Some("EAGAIN"));
    assert_eq!(line.listener, Some(1));
    assert_eq!(line.subject.conn, None);
    assert_eq!(line.subject.side, Some(Side::Listener));
    assert_eq!(line.subject.lport, Some(PORT));
    assert_eq!(line.subject.pid_source, Some(PidSource::Accept));
    assert_eq!(line.accept_queue_ns, None);
    t.accept(listener_at(9, "127.0.0.9").fails_to_accept(11));
    assert_eq!(t.last_accept().listener, Some(2));
    let totals = t.finish();
    assert!(t.connections().is_empty());
    assert_eq!(totals.listeners[0].failed_accepts, 1);
    assert_eq!(totals.listeners[1].failed_accepts, 1);
}

#[test]
fn accept_in_progress_at_the_listeners_close_keeps_its_listener() {
    let mut t = established();
    let called = Called::At(t.now);
    t.set(listener().enters_by(server(), Listen, Close));
    t.accept(listener().accepts(&child(2), called));
    assert_eq!(t.last_accept().listener, Some(1));
    t.accept(listener().fails_to_accept(22));
    assert_eq!(t.last_accept().listener, Some(1));
    assert_eq!(t.finish().listeners.len(), 1);
}

#[test]
fn accept_on_a_socket_that_does_not_listen_makes_no_listener() {
    let mut t = trace();
    t.accept(listener().fails_to_accept(22));
    assert_eq!(t.last_accept().listener, None);
    t.accept(Accept {
        listener: None,
        ..listener().fails_to_accept(11)
    });
    assert_eq!(t.last_accept().listener, None);
    let totals = t.finish();
    assert_eq!(totals.listeners.len(), 1);
    assert_eq!(totals.listeners[0].conn, None);
    assert_eq!(totals.listeners[0].failed_accepts, 2);
}

#[test]
fn accept_without_listener_uses_the_childs_listener() {
    let mut t = established();
    t.accept(Accept {
        listener: None,
        ..listener().accepts(&child(2), Called::At(t.now))
    });
    assert_eq!(t.last_accept().listener, Some(1));
}

#[test]
fn backlog_ahead_is_the_queue_length_at_established() {
    let mut t = listening();
    t.set(SetState {
        backlog_len: 1,
        ..child(2).enters(Listen, SynRecv)
    });
    t.set(SetState {
        backlog_len: 3,
        ..child(2).enters(SynRecv, Established)
    });
    t.set(SetState {
        backlog_len: 2,
        ..child(3).enters(Listen, SynRecv)
    });
    t.finish();
    let backlog = |conn| {
        let c = t.connection(conn);
        (c.backlog_ahead, c.backlog_max)
    };
    assert_eq!(backlog(2), (Some(3), Some(128)));
    assert_eq!(backlog(3), (Some(2), Some(128)));
}

#[test]
fn each_listen_on_the_same_port_is_another_listener() {
    let mut t = trace();
    for n in 0..100 {
        t.set(listener().enters_by(server(), Close, Listen));
        t.establish(&child(2 + n));
        t.accept(listener().accepts(&child(2 + n), Called::At(t.now)));
        t.set(listener().enters_by(server(), Listen, Close));
    }
    let totals = t.finish();
    assert_eq!(totals.listeners.len(), 100);
    assert!(totals.listeners.iter().all(|l| l.accepted == 1));
}

/// Returns the transition of `listener()` to LISTEN, when listen() requested this backlog.
fn asked_for(backlog: Option<i32>, somaxconn: u32, in_force: u32) -> SetState {
    SetState {
        backlog_max: in_force,
        listen: Some(Asked { backlog, somaxconn }),
        ..listener().enters_by(server(), Close, Listen)
    }
}

#[test]
fn backlog_is_clipped_if_somaxconn_is_smaller() {
    for (asked, somaxconn, in_force, clipped) in [
        (Some(128), 4096, 128, Some(false)),
        (Some(4096), 4096, 4096, Some(false)),
        (Some(5000), 4096, 4096, Some(true)),
        (Some(0), 4096, 0, Some(false)),
        // The kernel treats the backlog as unsigned.
        (Some(-1), 4096, 4096, Some(true)),
        (Some(i32::MAX), u32::MAX, i32::MAX as u32, Some(false)),
        (None, 4096, 128, None),
    ] {
        let mut t = trace();
        t.set(asked_for(asked, somaxconn, in_force));
        let expected = fields::Backlog {
            backlog_max: Some(in_force),
            backlog_asked: asked,
            somaxconn: Some(somaxconn),
            backlog_clipped: clipped,
        };
        assert_eq!(t.last_transition().backlog, expected);
        assert_eq!(t.finish().listeners[0].backlog, expected);
    }
}

/// The kernel made this socket a listener while the process was in listen() on another socket.
#[test]
fn backlog_that_does_not_lead_to_the_limit_is_ignored() {
    let mut t = trace();
    t.set(asked_for(Some(64), 4096, 128));
    let backlog = t.last_transition().backlog;
    assert_eq!(backlog.backlog_max, Some(128));
    assert_eq!(backlog.somaxconn, Some(4096));
    assert_eq!(
        (backlog.backlog_asked, backlog.backlog_clipped),
        (None, None)
    );
}

#[test]
fn second_listen_call_makes_the_requested_backlog_unknown() {
    let mut t = trace();
    t.set(asked_for(Some(128), 4096, 128));
    t.establish(&child(2));
    t.accept(listener().accepts(&child(2), Called::At(t.now)));
    t.establish(&child(3));
    t.accept(Accept {
        backlog_max: 7,
        ..listener().accepts(&child(3), Called::At(t.now))
    });
    let expected = fields::Backlog {
        backlog_max: Some(7),
        ..fields::Backlog::default()
    };
    assert_eq!(t.finish().listeners[0].backlog, expected);
}

#[test]
fn connection_transition_has_no_backlog() {
    let t = established();
    let none = fields::Backlog::default();
    let of_child: Vec<_> = t.transitions()[1..].iter().map(|it| it.backlog).collect();
    assert_eq!(of_child, [none, none]);
}

/// Returns the birth of a child socket that was cloned from a listener that the kernel side names.
fn clone_of(listener: u64, child: &Sock) -> SetState {
    SetState {
        clone_of: Some(Sk(listener)),
        ..child.enters(Listen, SynRecv)
    }
}

/// Returns for each row of the summary: connection number, connections, accepted, never accepted.
fn rows(totals: &Totals) -> Vec<(Option<u64>, u64, u64, u64)> {
    let rows = totals.listeners.iter();
    rows.map(|l| (l.conn, l.connections, l.accepted, l.never_accepted))
        .collect()
}

/// TPROXY: the connection has an address that matches another listener.
#[test]
fn child_belongs_to_the_listener_that_it_was_cloned_from() {
    let proxy = Sock {
        tuple: tuple("0.0.0.0", 15_001, None),
        ..listener_at(9, "0.0.0.0")
    };
    let mut t = listening();
    t.set(proxy.enters_by(task(12, "proxy"), Close, Listen));
    for sk in [10, 11] {
        t.set(clone_of(9, &child(sk)));
        assert_eq!(t.last_transition().subject.pid, Some(12));
        t.set(child(sk).enters(SynRecv, Established));
        assert_eq!(t.last_transition().listener, Some(2));
    }
    t.accept(proxy.accepts(&child(10), Called::At(t.now)));
    assert_eq!(t.last_accept().listener, Some(2));
    let totals = t.finish_with_queued(&[child(11)]);
    assert_eq!(rows(&totals), [(Some(1), 0, 0, 0), (Some(2), 2, 1, 1)]);
    for (conn, source) in [(3, ListenerSource::Accept), (4, ListenerSource::Clone)] {
        let line = t.connection(conn);
        assert_eq!(
            (line.listener, line.listener_source),
            (Some(2), Some(source))
        );
    }
}

/// A filter passes the connection but not its listener.
#[test]
fn clone_of_an_unknown_listener_has_no_other_listener() {
    let mut t = listening();
    t.set(clone_of(9, &child(10)));
    t.set(child(10).enters(SynRecv, Established));
    let totals = t.finish_with_queued(&[child(10)]);
    assert_eq!(rows(&totals), [(None, 1, 0, 1), (Some(1), 0, 0, 0)]);
    let line = t.connection(2);
    assert_eq!(line.listener, None);
    assert_eq!(line.listener_source, Some(ListenerSource::Clone));
}

#[test]
fn listener_guessed_by_address_has_source_address() {
    let mut t = established();
    assert_eq!(t.last_transition().listener, None);
    t.finish();
    let line = t.connection(2);
    assert_eq!(line.listener, Some(1));
    assert_eq!(line.listener_source, Some(ListenerSource::Address));
}

/// The queued connections of a worker that exits end at once, whether or not the kernel side names
/// their listener.
#[test]
fn connections_queued_at_a_closed_listener_end_with_it() {
    for is_named in [true, false] {
        let (good, stuck) = (listener_at(1, "0.0.0.0"), listener_at(2, "0.0.0.0"));
        let mut t = trace();
        t.set(good.enters_by(task(11, "good"), Close, Listen));
        t.set(stuck.enters_by(task(12, "stuck"), Close, Listen));
        let birth = |sk, listener| match is_named {
            true => clone_of(listener, &child(sk)),
            false => child(sk).enters(Listen, SynRecv),
        };
        for (sk, listener) in [(10, 2), (11, 1)] {
            t.set(birth(sk, listener));
            t.set(child(sk).enters(SynRecv, Established));
        }
        t.set(SetState {
            backlog_len: 1,
            ..stuck.enters_by(task(12, "stuck"), Listen, Close)
        });
        t.set(child(10).enters(Established, Close));
        assert_eq!(t.verdict(3), Verdict::NeverAccepted);
        assert!(t.reason(3).ends_with("the listener closed"));
        assert_eq!(t.connection(3).listener, Some(2));
        t.accept(good.accepts(&child(11), Called::At(t.now)));
        let totals = t.finish();
        assert_eq!(rows(&totals), [(Some(1), 1, 1, 0), (Some(2), 1, 0, 1)]);
    }
}

/// `ss -K`: tcp_abort() changes the listener to CLOSE twice.
#[test]
fn killed_listener_makes_no_connection() {
    let stats = Some(crate::event::Stats {
        rcv_shutdown: false,
        snd_shutdown: false,
        call: Some(crate::event::Call::Send),
        ..crate::event::Stats::default()
    });
    let killer = task(99, "ss");
    let close = SetState {
        stats,
        ..listener().enters_by(killer, Listen, Close)
    };
    let again = SetState {
        err: Some(103),
        ..listener().enters_by(killer, Close, Close)
    };
    let at = |mono_ns, change| Event {
        mono_ns,
        cpu: 0,
        lost: 0,
        kind: Kind::SetState(change),
    };
    let (close, again) = (at(START + MS, close), at(START + MS + US, again));
    let mut t = listening();
    t.correlator.event(&close, &mut t.lines);
    t.correlator.event(&again, &mut t.lines);
    assert_eq!(t.transitions().len(), 2);
    let line = t.transitions()[1];
    assert_eq!((line.oldstate, line.newstate), (Listen, Close));
    assert_eq!(line.cause, Some(fields::Cause::Killed));
    assert_eq!((line.subject.conn, line.subject.pid), (Some(1), Some(99)));
    t.now = START + 2 * MS;
    let totals = t.finish();
    assert!(t.connections().is_empty());
    assert_eq!((totals.servers, totals.listeners.len()), (0, 1));

    // shutdown() and connect() to AF_UNSPEC leave the same flags in the socket. Only the system
    // call differs.
    let mut t = listening();
    let unknown = stats.map(|stats| crate::event::Stats {
        call: None,
        ..stats
    });
    t.event(Kind::SetState(SetState {
        stats: unknown,
        ..listener().enters_by(killer, Listen, Close)
    }));
    assert_eq!(t.last_transition().cause, None);

    // A listener that the trace does not know makes no connection either.
    let mut t = trace();
    t.event(again.kind);
    assert!(t.lines.is_empty());
    assert_eq!(t.finish().listeners, []);
    assert!(t.connections().is_empty());
}

#[test]
fn closed_listeners_are_folded_and_counted() {
    let mut t = trace();
    t.correlator.listeners = super::super::state::listener::Listeners::of_size(3);
    for n in 0..10 {
        // Two ports in turn, and more listeners than the trace keeps separately.
        let at = |sock: Sock| Sock {
            tuple: Tuple {
                lport: Some(PORT + n % 5),
                ..sock.tuple
            },
            ..sock
        };
        let (listener, child) = (
            at(listener_at(1000 + u64::from(n), "127.0.0.1")),
            at(child(2)),
        );
        t.set(listener.enters_by(server(), Close, Listen));
        t.set(SetState {
            clone_of: Some(listener.sk),
            ..child.enters(Listen, SynRecv)
        });
        t.set(child.enters(SynRecv, Established));
        t.accept(listener.accepts(&child, Called::At(t.now)));
        t.set(child.enters_by(server(), Established, Close));
        t.set(listener.enters_by(server(), Listen, Close));
    }
    let totals = t.finish();
    let rows = &totals.listeners;
    assert_eq!(rows.iter().map(|row| row.connections).sum::<u64>(), 10);
    assert_eq!(rows.iter().map(|row| row.accepted).sum::<u64>(), 10);
    assert_eq!(rows.iter().map(|row| row.folded).sum::<u64>(), 7);
    assert_eq!(rows.iter().filter(|row| row.conn.is_some()).count(), 3);
    assert_eq!(rows.len(), 3 + 3 + 1);
    assert!(rows.iter().all(|row| row.accept_queue_max_ns == Some(US)));
    let elsewhere = rows.iter().find(|row| row.lport.is_none()).unwrap();
    assert_eq!((elsewhere.netns, elsewhere.folded > 0), (0, true));
}
