//! More connections than the table has room for.

use super::*;

/// Three connections where only two have room: the first, which was accepted, is given up.
fn crowded() -> Trace {
    let mut t = listening();
    t.correlator.open = Table::of_size(1, 2);
    t.establish(&child(2));
    t.accept(listener().accepts(&child(2), Called::At(t.now)));
    t.establish(&child(3));
    t.establish(&child(4));
    t
}

#[test]
fn the_one_that_was_quiet_for_longest_is_given_up_and_marked() {
    let t = crowded();
    let [given_up] = t.connections()[..] else {
        panic!("{:#?}", t.connections());
    };
    assert_eq!(given_up.subject.conn, Some(2));
    assert_eq!(given_up.mono_ns, t.now - US);
    assert_eq!(given_up.state, Established);
    assert!(given_up.evicted && !given_up.complete);
    // What was seen is still told.
    assert_eq!(given_up.verdict, Some(Verdict::Queued));
}

#[test]
fn whether_it_would_have_been_accepted_is_not_known() {
    let mut t = crowded();
    t.establish(&child(5));
    let given_up = *t.connections().last().unwrap();
    assert_eq!(given_up.subject.conn, Some(3));
    assert_eq!(given_up.verdict, Some(Verdict::Unknown));
    let reason = given_up.reason.as_deref().unwrap();
    assert!(reason.contains("the trace gave it up"), "{reason}");
}

/// Who is woken by an event puts another one to sleep.
#[test]
fn no_more_are_awake_than_may_be() {
    let mut t = crowded();
    for state in [CloseWait, LastAck] {
        for child in [child(3), child(4)] {
            let from = if state == LastAck {
                CloseWait
            } else {
                Established
            };
            t.set(child.enters(from, state));
            assert_eq!(t.correlator.open.awake(), 1);
        }
    }
}

#[test]
fn every_one_is_counted_and_told_once() {
    let mut t = crowded();
    // It goes on, under another number.
    t.walk(&child(2), &[Established, CloseWait]);
    let totals = t.finish();
    assert_eq!(totals.evicted, 2);
    assert_eq!(totals.servers, 4);
    let told = t.connections();
    let evicted: Vec<_> = told.iter().filter(|c| c.evicted).collect();
    assert_eq!((told.len(), evicted.len()), (4, 2));
    assert!(told.iter().all(|c| c.evicted || c.subject.conn > Some(3)));
}
