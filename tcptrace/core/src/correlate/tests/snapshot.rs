//! Tests of sockets that are older than the trace, and of audits.

use super::*;
use crate::event::SnapshotEntry;
use crate::fields::{PidSource, Preexisting};

const INODE: u64 = 4711;

/// Returns a socket that a snapshot found.
fn entry(sock: &Sock, state: State) -> SnapshotEntry {
    SnapshotEntry {
        sk: sock.sk,
        cookie: None,
        cgroup: None,
        netns: NETNS,
        tuple: sock.tuple,
        scope: None,
        state,
        is_bucket: false,
        held: true,
        uid: None,
        inode: Some(INODE),
        backlog_len: 3,
        backlog_max: sock.backlog_max,
    }
}

/// Returns a trace whose first snapshot has `listener()`, as connection 1.
fn with_old_listener() -> Trace {
    let mut t = trace();
    t.correlator.import([(INODE, server())].into(), START + MS);
    t.snapshot_entry(entry(&listener(), Listen));
    t
}

fn preexisting(t: &Trace) -> Vec<&Preexisting> {
    let only = t.lines.iter().filter_map(|line| match line {
        Line::Preexisting(x) => Some(x),
        _ => None,
    });
    only.collect()
}

#[test]
fn preexisting_listener_has_its_queue_and_its_process() {
    let t = with_old_listener();
    let lines = preexisting(&t);
    let [line] = lines[..] else {
        panic!("{lines:?}");
    };
    assert_eq!(
        (line.state, line.subject.side),
        (Listen, Some(Side::Listener))
    );
    assert_eq!((line.backlog_len, line.backlog_max), (Some(3), Some(128)));
    assert_eq!(line.subject.pid, Some(server().pid));
    assert_eq!(line.subject.pid_source, Some(PidSource::Snapshot));
}

#[test]
fn accept_on_a_preexisting_listener_has_all_fields() {
    let mut t = with_old_listener();
    t.establish(&child(2));
    let presumed = t.last_transition().subject.clone();
    assert_eq!(presumed.pid, Some(server().pid));
    assert_eq!(presumed.pid_source, Some(PidSource::Presumed));
    t.accept(listener().accepts(&child(2), Called::At(t.now)));
    assert_eq!(t.last_accept().listener, Some(1));
    let totals = t.finish();
    assert_eq!(t.verdict(2), Verdict::Queued);
    assert!(t.connection(2).complete);
    assert_eq!(totals.listeners[0].conn, Some(1));
}

#[test]
fn preexisting_connection_continues_and_is_incomplete() {
    let mut t = with_old_listener();
    t.snapshot_entry(entry(&child(2), Established));
    t.snapshot_entry(entry(&client(3), Established));
    let sides: Vec<_> = preexisting(&t).iter().map(|x| x.subject.side).collect();
    assert_eq!(sides, [Some(Side::Listener), Some(Side::Server), None]);
    t.walk(&child(2), &[Established, CloseWait, LastAck, Close]);
    t.walk(&client(3), &[Established, FinWait1, FinWait2, Close]);
    for conn in [2, 3] {
        let line = t.connection(conn);
        assert_eq!((line.complete, line.established_mono_ns), (false, None));
    }
    assert_eq!(t.verdict(2), Verdict::Unknown);
    t.finish();
    assert_eq!(t.connections().len(), 2);
}

#[test]
fn preexisting_socket_without_events_has_one_line() {
    let mut t = with_old_listener();
    t.snapshot_entry(entry(&child(2), Established));
    let totals = t.finish();
    assert_eq!(t.lines.len(), 2);
    assert_eq!(totals, Totals::default());
}

#[test]
fn listener_known_by_an_accept_still_gets_its_preexisting_line() {
    let mut t = trace();
    t.correlator.import([(INODE, server())].into(), START + MS);
    t.set(child(2).enters(Listen, SynRecv));
    t.set(child(2).enters(SynRecv, Established));
    t.accept(listener().accepts(&child(2), Called::At(t.now)));
    let conn = t.last_accept().listener;
    t.snapshot_entry(entry(&listener(), Listen));
    t.snapshot_entry(entry(&listener(), Listen));
    let lines = preexisting(&t);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0].subject.conn, conn);
    assert_eq!(lines[0].subject.laddr, listener().tuple.laddr);
    assert_eq!(lines[0].state, Listen);
}

#[test]
fn event_takes_precedence_over_the_snapshot() {
    let mut t = trace();
    t.correlator.import([].into(), START + MS);
    t.set(listener().enters_by(server(), Close, Listen));
    t.establish(&child(2));
    t.snapshot_entry(entry(&listener(), Listen));
    t.snapshot_entry(entry(&child(2), SynRecv));
    assert!(preexisting(&t).is_empty());
    t.finish();
    assert!(t.connection(2).complete);
}

#[test]
fn later_snapshot_adds_no_preexisting_socket() {
    let mut t = with_old_listener();
    t.wait(1_000 * MS);
    t.snapshot_entry(entry(&child(2), Established));
    assert_eq!(preexisting(&t).len(), 1);
}

#[test]
fn connection_in_the_accept_queue_is_not_held() {
    let mut t = with_old_listener();
    t.snapshot_entry(SnapshotEntry {
        held: false,
        inode: None,
        ..entry(&child(2), Established)
    });
    assert_eq!(preexisting(&t)[1].subject.pid, None);
    t.accept(listener().accepts(&child(2), Called::At(t.now)));
    assert_eq!(t.last_accept().subject.conn, Some(2));
    t.finish();
    assert!(!t.connection(2).complete);
}

const SECOND: u64 = 1_000 * MS;

/// Returns a socket that a later snapshot found.
fn still(sock: &Sock, state: State) -> SnapshotEntry {
    entry(sock, state)
}

#[test]
fn connection_missing_in_an_audit_ends_incomplete() {
    let mut t = accepted();
    t.set(client(3).enters(Close, SynSent));
    t.wait(3 * SECOND);
    let began_ns = t.now;
    t.snapshot_entry(still(&child(2), Established));
    t.audited(began_ns);
    let gone = t.connection(3);
    assert_eq!((gone.state, gone.complete), (SynSent, false));
    assert_eq!(t.connections().len(), 1, "the other one is open");
    t.finish();
    assert!(t.connection(2).complete);
}

#[test]
fn connection_in_another_state_in_an_audit_is_incomplete() {
    let mut t = accepted();
    t.set(client(3).enters(Close, SynSent));
    t.wait(3 * SECOND);
    let began_ns = t.now;
    t.snapshot_entry(still(&child(2), Established));
    t.snapshot_entry(still(&client(3), Established));
    t.audited(began_ns);
    t.finish();
    let wrong = t.connection(3);
    assert_eq!((wrong.state, wrong.complete), (Established, false));
    assert!(t.connection(2).complete);
}

#[test]
fn audit_does_not_mistake_another_socket_at_the_same_address() {
    let mut t = accepted();
    t.wait(3 * SECOND);
    let began_ns = t.now;
    let other = Sock {
        tuple: client(7).tuple,
        ..child(2)
    };
    t.snapshot_entry(still(&other, Established));
    t.audited(began_ns);
    assert!(!t.connection(2).complete);
}

/// A recent change may not be in the kernel's tables yet, and not every snapshot is an audit.
#[test]
fn audit_ignores_recent_connections_other_namespaces_and_plain_snapshots() {
    let mut t = accepted();
    t.wait(SECOND / 2);
    t.audited(t.now);
    t.wait(3 * SECOND);
    t.snapshot_end(t.now);
    let elsewhere = crate::event::SnapshotEnd {
        netns: NETNS + 1,
        began_ns: t.now,
        is_audit: true,
        is_last: false,
    };
    t.event(Kind::Note(Note::SnapshotEnd(elsewhere)));
    assert!(t.connections().is_empty());
    t.finish();
    assert!(t.connection(2).complete);
}

#[test]
fn audit_is_due_after_an_event_loss_and_at_long_intervals() {
    let mut t = accepted();
    t.wait(3 * SECOND);
    let wanted = |t: &mut Trace, ns| t.correlator.wants_audit(ns, false);
    let now = t.now;
    assert!(wanted(&mut t, now).is_empty());
    t.correlator.missed();
    assert!(wanted(&mut t, now).is_empty(), "it may have just happened");
    assert!(wanted(&mut t, now + 3 * SECOND).contains(&NETNS));
    assert!(wanted(&mut t, now + 4 * SECOND).is_empty());
    assert!(wanted(&mut t, now + 400 * SECOND).contains(&NETNS));
    let last = t.correlator.wants_audit(now, true);
    assert!(last.contains(&NETNS));
}

#[test]
fn preexisting_connection_missing_in_an_audit_has_a_line() {
    let mut t = with_old_listener();
    t.snapshot_entry(entry(&child(2), Established));
    t.snapshot_end(START);
    t.wait(3 * SECOND);
    t.audited(t.now);
    assert!(!t.connection(2).complete);
}
