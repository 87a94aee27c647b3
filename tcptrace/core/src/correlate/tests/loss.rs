//! Tests of lost, late and swapped records.

use super::*;

#[test]
fn event_loss_marks_exactly_the_open_connections_incomplete() {
    let mut t = listening();
    t.establish(&child(2)); // connection 2 ends before the loss
    t.walk(&child(2), &[Established, FinWait1, Close]);
    t.establish(&child(3)); // connection 3 ends after the loss
    t.establish(&child(4)); // connection 4 is open at the end of the trace
    t.lost = 7;
    t.establish(&child(5)); // the birth of connection 5 is the first event that reports the loss
    t.walk(&child(3), &[Established, FinWait1, Close]);
    t.establish(&child(6)); // connection 6 is born after the loss
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
fn event_loss_known_only_at_the_end_marks_open_connections() {
    let mut t = established();
    t.lost = 1;
    t.finish();
    assert_eq!(t.verdict(2), Verdict::Unknown);
}

#[test]
fn observed_order_keeps_its_verdict_after_an_event_loss() {
    let mut t = accepted();
    t.lost = 1;
    t.finish();
    assert_eq!(t.verdict(2), Verdict::Queued);
    assert!(!t.connection(2).complete);
}

#[test]
fn lost_record_counter_wraps_at_32_bits() {
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
fn swapped_lost_record_counters_are_not_a_new_loss() {
    let mut t = trace();
    for (n, lost) in [(2, 5), (3, 4), (4, 5)] {
        t.lost = lost;
        t.establish(&child(n));
    }
    t.finish();
    assert!(t.connections().iter().all(|c| c.complete));
}

#[test]
fn missed_transition_without_a_lost_event_is_a_gap() {
    let mut t = accepted();
    t.set(child(2).enters(LastAck, Close));
    assert_eq!(t.last_transition().in_state_ns, None);
    assert!(!t.connection(2).complete);
    assert_eq!(t.verdict(2), Verdict::Queued);
}

#[test]
fn unseen_accept_call_after_skipped_program_runs_has_unknown_time() {
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
fn unseen_beginning_is_not_reported_as_before_the_trace() {
    for lost in [0, 1] {
        let mut t = listening();
        t.lost = lost;
        t.accept(listener().accepts(&child(2), Called::At(t.now)));
        t.finish();
        assert!(t.reason(2).contains("its beginning was not seen"));
        assert!(!t.connection(2).complete);
    }
}

/// Plays a server's connection whose first seen transition is SYN_RECV to ESTABLISHED. Returns
/// whether its line is complete.
fn first_seen_at_established(t: &mut Trace) -> bool {
    t.set(child(2).enters(SynRecv, Established));
    t.accept(listener().accepts(&child(2), Called::At(t.now)));
    t.finish();
    let last = t.connections().pop().expect("a connection");
    assert_eq!(last.subject.side, Some(Side::Server));
    last.complete
}

#[test]
fn server_first_seen_at_established_is_complete_only_with_hidden_births() {
    assert!(!first_seen_at_established(&mut trace()));

    let mut t = trace();
    t.correlator.births_hide = true;
    assert!(first_seen_at_established(&mut t));
}

#[test]
fn server_first_seen_at_established_after_an_event_loss_is_incomplete() {
    let mut t = trace();
    t.correlator.births_hide = true;
    t.lost = 1;
    t.set(client(9).enters(Close, SynSent));
    assert!(!first_seen_at_established(&mut t));
}

#[test]
fn births_are_not_hidden_if_they_name_their_peer() {
    let mut t = trace();
    t.correlator.births_hide = true;
    t.set(child(9).enters(Listen, SynRecv));
    assert!(!first_seen_at_established(&mut t));
}

#[test]
fn unaccounted_records_make_open_connections_incomplete() {
    let mut t = established();
    t.correlator.unaccounted();
    t.finish();
    assert!(!t.connection(2).complete);
    assert_eq!(t.verdict(2), Verdict::Unknown);
    assert!(t.reason(2).contains("events were lost"));
}

#[test]
fn skipped_program_runs_are_reported_as_skipped_not_lost() {
    let mut t = established();
    t.correlator.missed();
    t.finish();
    assert!(!t.connection(2).complete);
    assert!(t.reason(2).contains("the kernel skipped runs of a hook"));
}

const TOO_LATE: &str = "an event came too late to be put in order";

impl Trace {
    /// Plays an event that arrives after events with later times.
    fn late(&mut self, mono_ns: u64, kind: Kind) {
        let now = std::mem::replace(&mut self.now, mono_ns);
        self.correlator.late();
        self.event(kind);
        self.now = now;
    }
}

#[test]
fn accept_after_the_end_of_its_connection_makes_it_incomplete() {
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
fn late_birth_makes_its_connection_incomplete_without_splitting_it() {
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
fn late_established_does_not_make_the_verdict_violated() {
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
fn late_event_without_a_later_one_is_applied_and_marks_incomplete() {
    let mut t = established();
    let accepted_ns = t.now + US;
    t.wait(MS);
    // The event with the later time belongs to another connection.
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
fn accept_of_a_connection_with_unseen_established_is_a_gap() {
    let mut t = syn_recv();
    t.accept(listener().accepts(&child(2), Called::At(t.now)));
    t.finish();
    assert!(!t.connection(2).complete);
    assert!(t.reason(2).contains("changes of state was not seen"));
}

#[test]
fn impossible_transition_is_a_gap_with_its_own_reason() {
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
