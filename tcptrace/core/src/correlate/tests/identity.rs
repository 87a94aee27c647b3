//! Tests of socket identity: the connection that an event belongs to, its tuple, and its owner.

use super::*;
use crate::fields::PidSource;

#[test]
fn eight_thousand_children_on_few_addresses_stay_apart() {
    let mut t = listening();
    for n in 0..8_000_u64 {
        let child = child(2 + n % 7);
        t.establish(&child);
        t.accept(listener().accepts(&child, Called::At(t.now)));
        t.walk(&child, &[Established, FinWait1, FinWait2, Close]);
    }
    assert!(t.correlator.open.len() == 0 && t.correlator.queued_closed.is_empty());
    let totals = t.finish();
    assert_eq!(totals.servers, 8_000);
    assert_eq!(totals.verdicts, [(Verdict::Queued, 8_000)].into());
    assert_eq!(totals.incomplete, 0);
    let ended: Vec<_> = t
        .connections()
        .iter()
        .filter_map(|c| c.subject.conn)
        .collect();
    assert_eq!(ended, (2..8_002).collect::<Vec<_>>());
    let summary = &totals.listeners[0];
    assert_eq!((summary.connections, summary.accepted), (8_000, 8_000));
    assert_eq!(summary.accept_queue_p50_ns, Some(US));
}

#[test]
fn open_connections_end_in_order_of_conn() {
    let mut t = listening();
    for n in 0..100 {
        let child = child(2 + n * 7 % 100);
        t.establish(&child);
        if n % 3 == 0 {
            t.set(SetState {
                err: Some(ECONNRESET),
                ..child.enters(Established, Close)
            });
        }
    }
    t.finish();
    let ended: Vec<_> = t
        .connections()
        .iter()
        .filter_map(|c| c.subject.conn)
        .collect();
    assert_eq!(ended, (2..102).collect::<Vec<_>>());
    assert!(t.connections().iter().all(|c| c.mono_ns == t.now));
}

#[test]
fn child_at_the_address_of_a_closed_client_has_a_new_number() {
    let mut t = syn_sent();
    t.walk(
        &client(2),
        &[SynSent, Established, CloseWait, LastAck, Close],
    );
    t.establish(&child(2));
    t.accept(listener().accepts(&child(2), Called::At(t.now)));
    t.finish();
    assert_eq!(t.connection(1).subject.side, Some(Side::Client));
    assert_eq!(t.connection(2).subject.side, Some(Side::Server));
    assert_eq!(t.verdict(2), Verdict::Queued);
}

#[test]
fn birth_ends_the_previous_connection_at_its_address() {
    let mut t = accepted();
    t.set(child(2).enters(Listen, SynRecv));
    let old = t.connection(2);
    assert_eq!((old.state, old.complete), (Established, false));
    assert_eq!(old.verdict, Some(Verdict::Queued));
    t.finish();
    assert!(t.connection(3).complete);
}

#[test]
fn impossible_transition_begins_another_connection() {
    let mut t = established();
    t.set(child(2).enters(SynRecv, Established));
    assert_eq!(t.last_transition().subject.conn, Some(3));

    let mut t = established();
    t.set(SetState {
        err: Some(ECONNRESET),
        ..child(2).enters(Established, Close)
    });
    t.set(child(2).enters(Close, Close));
    assert_eq!(t.last_transition().oldstate, Established);
    t.set(child(2).enters(Established, CloseWait));
    assert_eq!(t.last_transition().subject.conn, Some(3));
    assert_eq!(t.verdict(2), Verdict::Unknown);
}

#[test]
fn duplicate_child_vanishes_in_syn_recv_without_a_gap() {
    let mut t = syn_recv();
    t.set(child(2).enters(Listen, SynRecv));
    assert!(t.connection(2).complete);
    assert_eq!(t.verdict(2), Verdict::Unknown);
    assert_eq!(
        t.reason(2),
        "the handshake was not seen to finish, nor to fail"
    );
}

#[test]
fn event_with_another_tuple_begins_another_connection() {
    let mut t = established();
    let other = Sock {
        sk: child(2).sk,
        ..child(9)
    };
    t.set(other.enters(Established, CloseWait));
    assert_eq!(t.verdict(2), Verdict::Unknown);
    assert_eq!(t.last_transition().subject.conn, Some(3));
    t.accept(listener().accepts(&child(2), Called::At(t.now)));
    t.finish();
    assert_eq!(t.verdict(3), Verdict::Unknown);
    assert_eq!(t.verdict(4), Verdict::Unknown);
}

#[test]
fn connection_from_before_the_trace_is_incomplete() {
    for (sock, path, side) in [
        (child(2), [Established, CloseWait], Some(Side::Server)),
        (client(2), [Established, CloseWait], None),
        (client(2), [SynSent, Established], Some(Side::Client)),
    ] {
        let mut t = trace();
        t.walk(&sock, &path);
        assert_eq!(t.last_transition().in_state_ns, None);
        let totals = t.finish();
        let connection = t.connection(1);
        assert_eq!(connection.subject.side, side);
        assert!(!connection.complete);
        assert_eq!(totals.incomplete, 1);
        if side == Some(Side::Server) {
            assert_eq!(t.verdict(1), Verdict::Unknown);
            assert!(t.reason(1).contains("its beginning was not seen"));
        }
    }
}

#[test]
fn birth_before_all_hooks_are_attached_is_before_the_trace() {
    let mut t = trace();
    t.now -= MS;
    t.establish(&child(2));
    t.wait(10 * MS);
    t.finish();
    assert!(!t.connection(1).complete);
    assert_eq!(t.verdict(1), Verdict::Unknown);
}

#[test]
fn established_begins_a_complete_child_if_a_filter_hides_births() {
    let mut t = trace();
    t.correlator.births_hide = true;
    t.set(child(2).enters(SynRecv, Established));
    t.finish_with_queued(&[child(2)]);
    assert_eq!(t.verdict(1), Verdict::NeverAccepted);
    assert!(t.connection(1).complete);

    let mut t = trace();
    t.correlator.births_hide = true;
    t.lost = 1;
    t.set(child(2).enters(SynRecv, Established));
    t.finish();
    assert_eq!(t.verdict(1), Verdict::Unknown);
    assert!(!t.connection(1).complete);
}

#[test]
fn accept_of_an_unknown_child_begins_its_connection() {
    let mut t = trace();
    t.accept(listener().accepts(&child(2), Called::At(t.now)));
    t.walk(&child(2), &[Established, CloseWait, LastAck, Close]);
    assert_eq!(t.last_accept().listener, Some(1));
    assert_eq!(t.last_accept().accept_queue_ns, None);
    assert_eq!(t.verdict(2), Verdict::Unknown);
    assert!(!t.connection(2).complete);
    assert_eq!(t.connection(2).subject.pid, Some(4711));
}

#[test]
fn tuple_of_a_child_is_completed_by_later_events() {
    let mut t = listening();
    let unknown_peer = SetState {
        tuple: Tuple {
            laddr: "0.0.0.0".parse().unwrap(),
            raddr: None,
            rport: None,
            ..child(2).tuple
        },
        ..child(2).enters(Listen, SynRecv)
    };
    t.set(unknown_peer);
    let subject = &t.last_transition().subject;
    assert_eq!((subject.raddr, subject.rport), (None, None));
    t.set(child(2).enters(SynRecv, Established));
    assert_eq!(t.last_transition().subject.rport, Some(40_002));
    t.set(SetState {
        tuple: Tuple {
            laddr: "0.0.0.0".parse().unwrap(),
            lport: None,
            rport: None,
            ..child(2).tuple
        },
        ..child(2).enters(Established, CloseWait)
    });
    let subject = &t.last_transition().subject;
    assert_eq!((subject.lport, subject.rport), (Some(PORT), Some(40_002)));
    t.finish();
    let laddr: IpAddr = "127.0.0.1".parse().unwrap();
    assert_eq!(t.connection(2).subject.laddr, laddr);
}

#[test]
fn client_port_and_cookie_are_completed_by_later_events() {
    let mut t = trace();
    t.set(SetState {
        tuple: Tuple {
            lport: None,
            ..client(2).tuple
        },
        ..client(2).enters_by(visitor(), Close, SynSent)
    });
    assert_eq!(t.last_transition().subject.lport, None);
    t.set(SetState {
        cookie: Some(77),
        ..client(2).enters(SynSent, Established)
    });
    t.finish();
    let subject = &t.connection(1).subject;
    assert_eq!((subject.lport, subject.cookie), (Some(40_002), Some(77)));
}

#[test]
fn ipv6_is_family_6() {
    let v6 = Sock {
        tuple: tuple("::1", PORT, Some(("::1", 40_002))),
        ..child(2)
    };
    let mut t = trace();
    t.set(listener_at(1, "::").enters_by(server(), Close, Listen));
    t.establish(&v6);
    t.accept(listener_at(1, "::").accepts(&v6, Called::At(t.now)));
    t.finish();
    assert_eq!(t.connection(2).subject.family, 6);
    assert_eq!(t.verdict(2), Verdict::Queued);
}

// Owners

#[test]
fn child_is_presumed_the_listeners_until_it_is_accepted() {
    let mut t = established();
    let subject = &t.last_transition().subject;
    assert_eq!(subject.pid, Some(4711));
    assert_eq!(subject.pid_source, Some(PidSource::Presumed));
    t.accept(Accept {
        task: Task {
            tid: 4712,
            ..task(4710, "worker")
        },
        ..listener().accepts(&child(2), Called::At(t.now))
    });
    t.set(child(2).enters(Established, CloseWait));
    for subject in [&t.last_accept().subject, &t.last_transition().subject] {
        assert_eq!((subject.pid, subject.tid), (Some(4710), Some(4712)));
        assert_eq!(subject.pid_source, Some(PidSource::Accept));
    }
}

#[test]
fn child_from_before_the_trace_has_no_owner() {
    let mut t = listening();
    t.set(child(2).enters(Established, CloseWait));
    assert_eq!(t.last_transition().subject.pid_source, None);
    t.finish();
    assert_eq!(t.connection(2).subject.pid_source, None);
}

#[test]
fn acceptor_of_a_preexisting_listener_is_presumed_for_the_next_child() {
    let mut t = trace();
    t.establish(&child(2));
    assert_eq!(t.last_transition().subject.pid_source, None);
    t.accept(listener().accepts(&child(2), Called::At(t.now)));
    t.establish(&child(3));
    let subject = &t.last_transition().subject;
    assert_eq!(subject.pid, Some(4711));
    assert_eq!(subject.pid_source, Some(PidSource::Presumed));
}

#[test]
fn process_that_closes_a_passed_socket_becomes_its_owner() {
    let reaper = task(1, "reaper");
    let mut t = accepted();
    t.set(child(2).enters_by(reaper, Established, FinWait1));
    let subject = &t.last_transition().subject;
    assert_eq!(subject.pid, Some(1));
    assert_eq!(subject.pid_source, Some(PidSource::Close));
    t.set(child(2).enters(FinWait1, Close));
    for subject in [&t.last_transition().subject, &t.connection(2).subject] {
        assert_eq!(subject.pid, Some(1));
        assert_eq!(subject.pid_source, Some(PidSource::Close));
    }
}

#[test]
fn process_that_closes_a_socket_without_owner_becomes_its_owner() {
    let mut t = trace();
    t.set(client(2).enters(Established, CloseWait));
    assert_eq!(t.last_transition().subject.pid_source, None);
    t.set(client(2).enters_by(visitor(), CloseWait, LastAck));
    t.set(client(2).enters(LastAck, Close));
    let subject = &t.connection(1).subject;
    assert_eq!(subject.pid, Some(815));
    assert_eq!(subject.pid_source, Some(PidSource::Close));
}

#[test]
fn connect_and_listen_set_the_owner() {
    let subject = |t: &Trace| t.last_transition().subject.clone();
    assert_eq!(subject(&syn_sent()).pid_source, Some(PidSource::Connect));
    assert_eq!(subject(&syn_sent()).pid, Some(815));
    assert_eq!(subject(&listening()).pid_source, Some(PidSource::Listen));
    assert_eq!(subject(&listening()).tid, Some(4711));
}
