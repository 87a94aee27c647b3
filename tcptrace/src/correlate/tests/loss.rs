//! Records that were lost, or came swapped: what is marked, and what may still be said.

use super::*;

#[test]
fn loss_marks_exactly_what_was_open() {
    let mut t = listening();
    t.establish(&child(2)); // conn 2 ends before the loss
    t.walk(&child(2), &[Established, FinWait1, Close]);
    t.establish(&child(3)); // conn 3 ends after it
    t.establish(&child(4)); // conn 4 is open at the end
    t.lost = 7;
    t.establish(&child(5)); // conn 5 is born with the news of it
    t.walk(&child(3), &[Established, FinWait1, Close]);
    t.establish(&child(6)); // conn 6 is born after it
    let totals = t.finish();
    let complete: Vec<_> = t
        .connections()
        .iter()
        .map(|c| (c.subject.conn.unwrap(), c.complete))
        .collect();
    assert_eq!(
        complete,
        [(2, true), (3, false), (4, false), (5, true), (6, true)]
    );
    assert_eq!(totals.incomplete, 2);
    assert_eq!(t.verdict(4), Verdict::Unknown);
    assert!(t.reason(4).contains("events were lost"));
    assert_eq!(t.verdict(5), Verdict::NeverAccepted);
}

#[test]
fn loss_that_only_the_end_of_the_trace_tells_counts_too() {
    let mut t = established();
    t.lost = 1;
    t.finish();
    assert_eq!(t.verdict(2), Verdict::Unknown);
}

#[test]
fn loss_leaves_what_was_observed() {
    let mut t = accepted();
    t.lost = 1;
    t.finish();
    assert_eq!(t.verdict(2), Verdict::Queued);
    assert!(!t.connection(2).complete);
}

#[test]
fn count_of_losses_wraps() {
    let mut t = trace();
    for (n, lost) in [(2, 1 << 30), (3, 2 << 30), (4, 3 << 30), (5, 0)] {
        t.lost = lost;
        t.establish(&child(n));
    }
    t.finish();
    let complete: Vec<_> = t.connections().iter().map(|c| c.complete).collect();
    assert_eq!(complete, [false, false, false, true]);
}

#[test]
fn count_of_losses_that_comes_swapped_is_no_news() {
    let mut t = trace();
    for (n, lost) in [(2, 5), (3, 4), (4, 5)] {
        t.lost = lost;
        t.establish(&child(n));
    }
    t.finish();
    assert!(t.connections().iter().all(|c| c.complete));
}

#[test]
fn missed_transition_without_a_loss_is_a_gap() {
    let mut t = accepted();
    t.set(child(2).enters(LastAck, Close));
    assert_eq!(t.last_transition().in_state_ns, None);
    assert!(!t.connection(2).complete);
    assert_eq!(t.verdict(2), Verdict::Queued);
}

#[test]
fn a_call_that_was_not_seen_may_have_been_skipped() {
    let mut t = trace();
    t.correlator.missed();
    t.establish(&child(2));
    t.accept(listener().accepts(&child(2), Called::BeforeTrace));
    t.finish();
    assert_eq!(t.verdict(1), Verdict::Unknown);
    assert!(t.reason(1).contains("when it was called was not seen"));
}

#[test]
fn established_lost_makes_the_wait_unknown() {
    let mut t = syn_recv();
    t.lost = 1;
    t.accept(listener().accepts(&child(2), Called::At(t.now)));
    t.finish();
    assert_eq!(t.verdict(2), Verdict::Unknown);
    assert!(t.reason(2).contains("events were lost"));
    assert_eq!(t.connection(2).accept_queue_ns, None);
}

#[test]
fn beginning_lost_is_not_called_earlier_than_the_trace() {
    let mut t = listening();
    t.lost = 1;
    t.accept(listener().accepts(&child(2), Called::At(t.now)));
    t.finish();
    assert!(t.reason(2).contains("or events were lost"));
}

#[test]
fn times_going_backwards_give_no_negative_durations() {
    let mut t = syn_sent();
    t.now -= MS;
    t.set(client(2).enters(SynSent, Established));
    assert_eq!(t.last_transition().in_state_ns, None);
    t.finish();
    assert_eq!(t.connection(1).handshake_ns, None);

    let mut t = established();
    t.now -= MS;
    t.accept(listener().accepts(&child(2), Called::At(START)));
    assert_eq!(t.last_accept().accept_queue_ns, Some(0));
    assert_eq!(t.last_accept().blocked_ns, None);
}

#[test]
fn swapped_records_of_one_child_do_not_split_the_accept_from_it() {
    let mut t = listening();
    t.accept(listener().accepts(&child(2), Called::At(START)));
    t.now -= 3 * US;
    t.set(child(2).enters(SynRecv, Established));
    t.finish();
    assert_eq!(t.connections().len(), 1);
    assert_eq!(t.verdict(2), Verdict::Queued);
}
