//! Tests of the table with more connections than its upper bound.

use super::*;

/// Returns a trace with three connections in a table for two. The first connection, which was
/// accepted, is evicted.
fn full_table() -> Trace {
    let mut t = listening();
    t.correlator.open = Table::of_size(1, 2);
    t.establish(&child(2));
    t.accept(listener().accepts(&child(2), Called::At(t.now)));
    t.establish(&child(3));
    t.establish(&child(4));
    t
}

#[test]
fn longest_idle_connection_is_evicted_and_marked() {
    let t = full_table();
    let [given_up] = t.connections()[..] else {
        panic!("{:#?}", t.connections());
    };
    assert_eq!(given_up.subject.conn, Some(2));
    assert_eq!(given_up.mono_ns, t.now - US);
    assert_eq!(given_up.state, Established);
    assert!(given_up.evicted && !given_up.complete);
    // The observed times stay in the line.
    assert_eq!(given_up.verdict, Some(Verdict::Queued));
}

#[test]
fn evicted_connection_has_verdict_unknown() {
    let mut t = full_table();
    t.establish(&child(5));
    let given_up = *t.connections().last().unwrap();
    assert_eq!(given_up.subject.conn, Some(3));
    assert_eq!(given_up.verdict, Some(Verdict::Unknown));
    let reason = given_up.reason.as_deref().unwrap();
    assert!(reason.contains("the trace gave it up"), "{reason}");
}

/// The table bounds the unpacked connections: an event that unpacks one packs another.
#[test]
fn unpacked_connections_are_bounded() {
    let mut t = full_table();
    for state in [CloseWait, LastAck] {
        for child in [child(3), child(4)] {
            let from = if state == LastAck {
                CloseWait
            } else {
                Established
            };
            t.set(child.enters(from, state));
            assert_eq!(t.correlator.open.unpacked(), 1);
        }
    }
}

#[test]
fn evicted_connections_are_counted_and_written_once() {
    let mut t = full_table();
    // The evicted connection continues under another connection number.
    t.walk(&child(2), &[Established, CloseWait]);
    let totals = t.finish();
    assert_eq!(totals.evicted, 2);
    assert_eq!(totals.servers, 4);
    let text = t.connections();
    let evicted: Vec<_> = text.iter().filter(|c| c.evicted).collect();
    assert_eq!((text.len(), evicted.len()), (4, 2));
    assert!(text.iter().all(|c| c.evicted || c.subject.conn > Some(3)));
}
