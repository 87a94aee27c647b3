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
    let totals = t.finish_with_queued(&[4, 5, 6].map(child));
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
fn a_beginning_that_was_not_seen_is_not_called_earlier_than_the_trace() {
    for lost in [0, 1] {
        let mut t = listening();
        t.lost = lost;
        t.accept(listener().accepts(&child(2), Called::At(t.now)));
        t.finish();
        assert!(t.reason(2).contains("its beginning was not seen"));
        assert!(!t.connection(2).complete);
    }
}

/// A server whose first change that was seen is SYN_RECV to ESTABLISHED.
fn first_seen_at_established(t: &mut Trace) -> bool {
    t.set(child(2).enters(SynRecv, Established));
    t.accept(listener().accepts(&child(2), Called::At(t.now)));
    t.finish();
    let last = t.connections().pop().expect("a connection");
    assert_eq!(last.subject.side, Some(Side::Server));
    last.complete
}

#[test]
fn a_server_first_seen_at_established_is_complete_only_where_a_filter_hides_births() {
    assert!(!first_seen_at_established(&mut trace()));

    let mut t = trace();
    t.correlator.births_hide = true;
    assert!(first_seen_at_established(&mut t));
}

#[test]
fn a_server_first_seen_at_established_after_a_loss_is_incomplete() {
    let mut t = trace();
    t.correlator.births_hide = true;
    t.lost = 1;
    t.set(client(9).enters(Close, SynSent));
    assert!(!first_seen_at_established(&mut t));
}

#[test]
fn no_birth_is_hidden_where_births_name_their_peer() {
    let mut t = trace();
    t.correlator.births_hide = true;
    t.set(child(9).enters(Listen, SynRecv));
    assert!(!first_seen_at_established(&mut t));
}

#[test]
fn records_that_are_unaccounted_make_what_is_open_incomplete() {
    let mut t = established();
    t.correlator.unaccounted();
    t.finish();
    assert!(!t.connection(2).complete);
    assert_eq!(t.verdict(2), Verdict::Unknown);
    assert!(t.reason(2).contains("events were lost"));
}

#[test]
fn skipped_runs_are_not_called_lost_events() {
    let mut t = established();
    t.correlator.missed();
    t.finish();
    assert!(!t.connection(2).complete);
    assert!(t.reason(2).contains("the kernel skipped runs of a hook"));
}

const TOO_LATE: &str = "an event came too late to be put in order";

impl Trace {
    /// An event comes after later ones have been taken.
    fn late(&mut self, mono_ns: u64, kind: Kind) {
        let now = std::mem::replace(&mut self.now, mono_ns);
        self.correlator.late();
        self.event(kind);
        self.now = now;
    }
}

#[test]
fn an_accept_that_comes_after_the_end_of_its_connection_leaves_it_incomplete() {
    let mut t = established();
    let accepted_ns = t.now + US;
    t.wait(MS);
    t.set(SetState {
        err: Some(ECONNRESET),
        ..child(2).enters(Established, Close)
    });
    let accept = listener().accepts(&child(2), Called::At(accepted_ns));
    t.late(accepted_ns, Kind::Accept(accept));
    t.finish();
    assert!(!t.connection(2).complete);
    assert_eq!(t.verdict(2), Verdict::Unknown);
    assert!(t.reason(2).contains(TOO_LATE), "{}", t.reason(2));
}

#[test]
fn a_late_birth_leaves_its_connection_one_and_incomplete() {
    let mut t = listening();
    let born_ns = t.now + US;
    t.wait(MS);
    t.set(child(2).enters(SynRecv, Established));
    t.late(born_ns, Kind::SetState(child(2).enters(Listen, SynRecv)));
    t.finish();
    assert_eq!(t.connections().len(), 1);
    assert!(!t.connection(2).complete);
    assert_eq!(t.verdict(2), Verdict::Unknown);
    assert!(t.reason(2).contains(TOO_LATE));
}

#[test]
fn a_late_established_does_not_make_an_accepted_connection_a_violation() {
    let mut t = syn_recv();
    let established_ns = t.now + US;
    t.wait(MS);
    t.accept(listener().accepts(&child(2), Called::At(START)));
    t.late(
        established_ns,
        Kind::SetState(child(2).enters(SynRecv, Established)),
    );
    t.finish();
    assert_eq!(t.verdict(2), Verdict::Unknown);
    assert!(t.reason(2).contains(TOO_LATE));
    assert!(!t.connection(2).complete);
}

#[test]
fn a_late_event_that_nothing_has_overtaken_is_told_and_incomplete() {
    let mut t = established();
    let accepted_ns = t.now + US;
    t.wait(MS);
    // Another connection's event is what it comes later than.
    t.set(client(9).enters(Close, SynSent));
    let accept = listener().accepts(&child(2), Called::At(accepted_ns));
    t.late(accepted_ns, Kind::Accept(accept));
    t.finish();
    assert_eq!(t.accepts().len(), 1);
    assert_eq!(t.verdict(2), Verdict::Queued);
    assert!(!t.connection(2).complete);
    assert!(t.connection(3).complete, "it is not about this one");
}

#[test]
fn an_accept_of_an_established_connection_that_was_not_seen_to_become_that_is_a_gap() {
    let mut t = syn_recv();
    t.accept(listener().accepts(&child(2), Called::At(t.now)));
    t.finish();
    assert!(!t.connection(2).complete);
    assert!(t.reason(2).contains("changes of state was not seen"));
}

#[test]
fn a_state_that_cannot_follow_is_a_gap_with_a_reason_of_its_own() {
    let mut t = syn_recv();
    t.set(child(2).enters(Established, CloseWait));
    t.finish();
    assert!(!t.connection(2).complete);
    assert!(t.reason(2).contains("changes of state was not seen"));
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
