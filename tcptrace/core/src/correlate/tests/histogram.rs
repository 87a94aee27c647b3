//! Tests of `--depth`: the same connections as lines or as counts.

use super::*;
use crate::event::{Direction, Reset, Stats};
use crate::fields::{Depth, Histogram, Line, Side, Wanted};

/// Returns a trace at a depth, with `listener()` in LISTEN.
fn listening_at(depth: Depth) -> Trace {
    let mut t = trace();
    t.correlator = Correlator::new(START).with_depth(depth);
    t.set(listener().enters_by(server(), Close, Listen));
    t
}

/// Plays `child(sk)` to ESTABLISHED. An accept() called a millisecond later returns it at once.
fn accepted_late(t: &mut Trace, sk: u64) {
    t.establish(&child(sk));
    t.wait(MS);
    t.accept(listener().accepts(&child(sk), Called::At(t.now)));
}

/// Plays the close by the process, then the close by the peer.
fn closes_in_order(t: &mut Trace, it: &Sock) {
    t.set(it.enters_by(server(), Established, FinWait1));
    t.set(it.enters(FinWait1, FinWait2));
    let stats = Some(Stats::default());
    t.set(SetState {
        fin_received: true,
        orphaned: true,
        stats,
        ..it.enters(FinWait2, Close)
    });
}

/// Plays a RST received from the peer.
fn is_reset(t: &mut Trace, it: &Sock) {
    t.set(SetState {
        err: Some(ECONNRESET),
        held: true,
        ..it.enters(Established, Close)
    });
}

/// Plays the connect of `client(sk)` within 2 µs.
fn connects(t: &mut Trace, sk: u64) {
    t.set(client(sk).enters_by(visitor(), Close, SynSent));
    t.wait(US);
    t.set(client(sk).enters(SynSent, Established));
}

/// Plays connections with every kind of end; at the server and the client where they differ.
fn every_fate(t: &mut Trace) {
    // Closed in good order, by the server and by the client.
    accepted_late(t, 2);
    connects(t, 12);
    closes_in_order(t, &client(12));
    closes_in_order(t, &child(2));
    t.tick();
    // Closed by a RST after ESTABLISHED, at the server and at the client.
    accepted_late(t, 3);
    connects(t, 13);
    is_reset(t, &client(13));
    is_reset(t, &child(3));
    // Never accepted, refused, and open at the end.
    t.establish(&child(4));
    is_reset(t, &child(4));
    t.set(client(14).enters_by(visitor(), Close, SynSent));
    t.set(SetState {
        err: Some(111),
        ..client(14).enters(SynSent, Close)
    });
    accepted_late(t, 5);
    connects(t, 15);
    t.accept(listener().fails_to_accept(24));
    t.event(Kind::Reset(Reset {
        sk: Some(child(5).sk),
        cookie: None,
        netns: NETNS,
        tuple: child(5).tuple,
        state: Some(Established),
        direction: Direction::Sent,
        reason: None,
    }));
    t.wait(1_000 * MS);
    t.tick();
}

fn histograms(t: &Trace) -> Vec<&Histogram> {
    let only = t.lines.iter().filter_map(|line| match line {
        Line::Histogram(x) => Some(x),
        _ => None,
    });
    only.collect()
}

fn played(depth: Depth) -> (Trace, Totals) {
    let mut t = listening_at(depth);
    every_fate(&mut t);
    let totals = t.finish();
    (t, totals)
}

#[test]
fn every_depth_has_the_same_totals_and_connection_lines() {
    let (events, totals) = played(Depth::Events);
    let (connections, same) = played(Depth::Connections);
    assert_eq!(connections.connections(), events.connections());
    assert_eq!(same, totals);

    let (counted, same) = played(Depth::Histogram);
    assert_eq!(same, totals);
    for line in counted.connections() {
        let conn = line.subject.conn.unwrap();
        assert_eq!(line, events.connection(conn));
    }
    let lines = counted.connections().len() as u64;
    let in_counts: u64 = histograms(&counted).iter().map(|it| it.went_well).sum();
    assert_eq!(lines + in_counts, events.connections().len() as u64);
}

#[test]
fn depths_below_events_have_only_connection_and_failure_lines() {
    for depth in [Depth::Connections, Depth::Histogram] {
        let (t, _) = played(depth);
        let others = t.lines.iter().filter(|line| {
            !matches!(
                line,
                Line::Connection(_) | Line::Histogram(_) | Line::Accept(_)
            )
        });
        assert_eq!(others.count(), 0, "{depth:?}");
        let [failed] = t.accepts()[..] else {
            panic!("{:?}", t.accepts());
        };
        assert_eq!(failed.accept_error.as_deref(), Some("EMFILE"));
    }
}

#[test]
fn histogram_counts_good_connections_and_writes_lines_of_bad_ones() {
    let (t, _) = played(Depth::Histogram);
    let text: Vec<_> = histograms(&t)
        .iter()
        .map(|x| (x.side, x.port, x.went_well, x.queued, x.awaited))
        .collect();
    assert_eq!(
        text,
        [
            (Side::Server, PORT, 1, Some(1), Some(0)),
            (Side::Client, PORT, 1, None, None),
            // The connection was accepted and is open at the end of the trace.
            (Side::Server, PORT, 1, Some(1), Some(0)),
        ]
    );
    let [first, clients, last] = histograms(&t)[..] else {
        panic!()
    };
    let waits = first.accept_queue.as_ref().unwrap();
    assert_eq!(waits.max_ns, MS + US, "exact");
    assert_eq!(waits.buckets.len(), 1);
    assert!((MS..MS * 9 / 8 + US).contains(&waits.buckets[0].0));
    assert_eq!(clients.accept_queue, None);
    assert_eq!(clients.handshake.as_ref().unwrap().max_ns, 2 * US);
    assert_eq!(last.interval_ns, US, "since the last tick");

    let mut fates: Vec<_> = t
        .connections()
        .iter()
        .map(|x| (x.subject.side, x.state, x.error.as_deref()))
        .collect();
    fates.sort_by_key(|fate| format!("{fate:?}"));
    let reset = Some("ECONNRESET");
    assert_eq!(
        fates,
        [
            (Some(Side::Client), Close, Some("ECONNREFUSED")),
            (Some(Side::Client), Close, reset),
            (Some(Side::Client), Established, None),
            (Some(Side::Server), Close, reset),
            (Some(Side::Server), Close, reset),
        ]
    );
}

#[test]
fn histogram_writes_a_line_of_an_incomplete_connection() {
    let mut t = listening_at(Depth::Histogram);
    accepted_late(&mut t, 2);
    t.lost = 1;
    closes_in_order(&mut t, &child(2));
    t.finish();
    assert!(!t.connection(2).complete);
    assert_eq!(histograms(&t), Vec::<&Histogram>::new());
}

#[test]
fn only_transitions_of_queues_are_made_for_a_reader_of_queues() {
    let mut t = trace();
    t.correlator = Correlator::new(START).with_wanted(Wanted::QUEUES);
    t.set(listener().enters_by(server(), Close, Listen));
    connects(&mut t, 12);
    accepted_late(&mut t, 2);
    closes_in_order(&mut t, &child(2));
    t.set(listener().enters_by(server(), Listen, Close));
    let states = t.lines.iter().map(|line| match line {
        Line::Transition(line) => (line.subject.side, line.oldstate, line.newstate),
        _ => panic!("{line:?}"),
    });
    let states: Vec<_> = states.collect();
    let of_listener = Some(Side::Listener);
    assert_eq!(
        states,
        [
            (of_listener, Close, Listen),
            (Some(Side::Server), SynRecv, Established),
            (of_listener, Listen, Close),
        ]
    );
}
