//! Every verdict: from the facts alone, and from a trace.

use super::super::verdict::{self, Accepted, Facts, Fate, Gap, Judgement};
use super::*;

const ATTACHED: u64 = 100;

fn accept_at(mono_ns: u64, called: Called) -> Accepted {
    Accepted {
        mono_ns,
        called,
        witness: Witness::SysExit,
        state: Some(Established),
        fastopen: false,
        task: server(),
    }
}

fn facts(established_ns: Option<u64>, accepted: Option<Accepted>) -> Facts {
    Facts {
        attached_ns: ATTACHED,
        established_ns,
        accepted,
        gap: None,
        fate: Fate::Open,
    }
}

#[test]
fn order_of_established_call_and_return_decides() {
    use Verdict::*;
    for (established_ns, accepted, verdict) in [
        (1_000, accept_at(3_000, Called::At(2_000)), Queued),
        (1_000, accept_at(3_000, Called::At(1_000)), Queued),
        (1_000, accept_at(1_000, Called::At(1_000)), Queued),
        (1_000, accept_at(3_000, Called::At(999)), Awaited),
        (1_000, accept_at(1_000, Called::At(999)), Awaited),
        (1_000, accept_at(3_000, Called::BeforeTrace), Awaited),
        (ATTACHED, accept_at(3_000, Called::BeforeTrace), Awaited),
        (ATTACHED - 1, accept_at(3_000, Called::BeforeTrace), Unknown),
        (1_000, accept_at(3_000, Called::Unknown), Unknown),
        (1_000, accept_at(999, Called::At(500)), Violated),
        (1_000, accept_at(999, Called::BeforeTrace), Violated),
    ] {
        let judged = verdict::judge(&facts(Some(established_ns), Some(accepted)));
        assert_eq!(judged.verdict, verdict, "{established_ns} {accepted:?}");
    }
}

#[test]
fn fast_open_may_come_first_or_never_be_established() {
    let accepted = Accepted {
        fastopen: true,
        state: Some(SynRecv),
        ..accept_at(1_000, Called::At(500))
    };
    let judged = verdict::judge(&facts(Some(1_020_001_000), Some(accepted)));
    assert_eq!(
        judged,
        Judgement {
            verdict: Verdict::FastOpen,
            reason: "accept() returned to server[4711] 1.020 s before the kernel finished the \
                     handshake, as TCP Fast Open allows"
                .into(),
            evidence: Some(
                "accept() exit (sys_exit), tcp_sock.fastopen_rsk, \
                 inet_sock_set_state SYN_RECV→ESTABLISHED"
                    .into()
            ),
        }
    );
    let judged = verdict::judge(&facts(None, Some(accepted)));
    assert_eq!(judged.verdict, Verdict::FastOpen);
}

#[test]
fn only_a_witness_before_the_child_lock_can_overlap() {
    let early = Accepted {
        state: Some(SynRecv),
        ..accept_at(1_000, Called::At(500))
    };
    for (follows_child_lock, accepted, verdict) in [
        (false, early, Verdict::Overlapped),
        (true, early, Verdict::Violated),
        (
            false,
            Accepted {
                state: Some(Established),
                ..early
            },
            Verdict::Violated,
        ),
        (
            false,
            Accepted {
                state: None,
                ..early
            },
            Verdict::Violated,
        ),
    ] {
        let judged = verdict::accepted_first(&accepted, 1_361, follows_child_lock);
        assert_eq!(judged.verdict, verdict, "{follows_child_lock} {accepted:?}");
        assert!(judged.reason.contains("361 ns before"), "{}", judged.reason);
    }
}

#[test]
fn never_accepted_says_what_became_of_it() {
    for (fate, end) in [
        (Fate::Open, "still in the accept queue when the trace ended"),
        (Fate::PeerClosed, "the peer has closed"),
        (
            Fate::Failed(ECONNRESET),
            "reset it while it was queued (ECONNRESET)",
        ),
        (Fate::Failed(110), "failed while it was queued (ETIMEDOUT)"),
        (Fate::ListenerClosed, "the listener closed"),
        (Fate::Dropped, "dropped it from the accept queue"),
    ] {
        let judged = verdict::judge(&Facts {
            fate,
            ..facts(Some(1_000), None)
        });
        assert_eq!(judged.verdict, Verdict::NeverAccepted, "{fate:?}");
        assert!(judged.reason.contains(end), "{fate:?}: {}", judged.reason);
    }
}

#[test]
fn what_a_gap_may_hide_is_unknown() {
    let accepted = Some(accept_at(3_000, Called::At(500)));
    for gap in [Gap::BeforeTrace, Gap::Beginning, Gap::Lost] {
        for (established_ns, accepted, verdict) in [
            (Some(1_000), accepted, Verdict::Awaited),
            (Some(1_000), None, Verdict::Unknown),
            (None, accepted, Verdict::Unknown),
            (None, None, Verdict::Unknown),
        ] {
            let judged = verdict::judge(&Facts {
                gap: Some(gap),
                ..facts(established_ns, accepted)
            });
            assert_eq!(judged.verdict, verdict, "{gap:?} {established_ns:?}");
            let told = judged.reason.contains("lost") || judged.reason.contains("before the trace");
            assert!(told || verdict != Verdict::Unknown, "{}", judged.reason);
        }
    }
}

// The same from traces

#[test]
fn established_accept_called_later_is_queued() {
    let mut t = established();
    t.wait(5_003 * MS - US);
    t.accept(listener().accepts(&child(2), Called::At(t.now - 10 * US)));
    assert_eq!(t.last_accept().accept_queue_ns, Some(5_003 * MS));
    assert_eq!(t.last_accept().blocked_ns, Some(11 * US));
    assert_eq!(t.last_accept().listener, Some(1));
    let totals = t.finish();
    assert_eq!(
        t.reason(2),
        "the kernel finished the handshake 5.003 s before accept() returned to server[4711]"
    );
    let connection = t.connection(2);
    assert_eq!(connection.verdict, Some(Verdict::Queued));
    assert_eq!(connection.accept_queue_ns, Some(5_003 * MS));
    assert_eq!(
        connection.evidence.as_deref(),
        Some("inet_sock_set_state SYN_RECV→ESTABLISHED, accept() entry, accept() exit (sys_exit)")
    );
    assert!(connection.complete);
    assert_eq!(totals.verdicts, [(Verdict::Queued, 1)].into());
    assert_eq!(totals.listeners[0].accept_queue_max_ns, Some(5_003 * MS));
}

#[test]
fn established_in_a_blocked_accept_is_awaited() {
    let mut t = listening();
    let called = t.now;
    t.wait(2_000 * MS - 2 * US);
    t.establish(&child(2));
    t.wait(22_400);
    t.accept(listener().accepts(&child(2), Called::At(called)));
    t.finish();
    assert_eq!(t.verdict(2), Verdict::Awaited);
    assert_eq!(
        t.reason(2),
        "accept() had been waiting for 2.000 s; it returned to server[4711] 23.40 µs after the \
         kernel finished the handshake"
    );
}

#[test]
fn accept_blocked_at_attach_is_awaited() {
    let mut t = trace();
    t.establish(&child(2));
    t.accept(listener().accepts(&child(2), Called::BeforeTrace));
    assert_eq!(t.last_accept().called_mono_ns, None);
    assert_eq!(t.last_accept().blocked_ns, None);
    t.finish();
    assert_eq!(t.verdict(1), Verdict::Awaited);
    assert!(t.reason(1).contains("since before the trace began"));
    assert!(t.connection(1).complete);
}

#[test]
fn call_unseen_is_unknown_and_still_measured() {
    let mut t = established();
    t.accept(listener().accepts(&child(2), Called::Unknown));
    t.finish();
    assert_eq!(t.verdict(2), Verdict::Unknown);
    assert_eq!(t.connection(2).accept_queue_ns, Some(US));
}

#[test]
fn fast_open_accept_comes_before_established() {
    let mut t = syn_recv();
    t.accept(listener().accepts_fast(&child(2), Called::At(START)));
    assert_eq!(t.last_accept().accept_queue_ns, None);
    t.wait(1_020 * MS - US);
    t.set(child(2).enters(SynRecv, Established));
    let totals = t.finish();
    assert_eq!(t.verdict(2), Verdict::FastOpen);
    assert_eq!(t.connection(2).accept_queue_ns, Some(0));
    assert_eq!(totals.listeners[0].accept_queue_max_ns, Some(0));
}

#[test]
fn accept_before_established_is_violated() {
    let mut t = syn_recv();
    t.accept(listener().accepts(&child(2), Called::At(START)));
    t.set(child(2).enters(SynRecv, Established));
    t.finish();
    assert_eq!(t.verdict(2), Verdict::Violated);
}

#[test]
fn reset_while_queued_waits_for_its_accept() {
    let mut t = established();
    t.set(SetState {
        err: Some(ECONNRESET),
        ..child(2).enters(Established, Close)
    });
    assert!(t.connections().is_empty());
    t.wait(MS);
    t.accept(listener().accepts(&child(2), Called::At(t.now)));
    assert_eq!(t.verdict(2), Verdict::Queued);
    let connection = t.connection(2);
    assert_eq!(connection.mono_ns, t.now);
    assert!(connection.closed_mono_ns < connection.accepted_mono_ns);
    assert_eq!(connection.error.as_deref(), Some("ECONNRESET"));
    t.finish();
    assert_eq!(t.connections().len(), 1);
}

#[test]
fn reset_while_queued_ends_with_the_listener_the_pointer_or_the_trace() {
    let reset = || {
        let mut t = established();
        t.set(SetState {
            err: Some(ECONNRESET),
            ..child(2).enters(Established, Close)
        });
        t
    };
    let mut by_listener = reset();
    by_listener.set(listener().enters_by(server(), Listen, Close));
    let mut by_birth = reset();
    by_birth.set(child(2).enters(Listen, SynRecv));
    let mut by_end = reset();
    by_end.finish();
    for t in [by_listener, by_birth, by_end] {
        assert_eq!(t.verdict(2), Verdict::NeverAccepted);
        assert!(t.reason(2).contains("while it was queued (ECONNRESET)"));
        assert!(t.connection(2).complete);
    }
}

#[test]
fn listener_close_purges_its_queue() {
    let mut t = established();
    t.establish(&child(3));
    t.set(child(3).enters(Established, CloseWait));
    t.set(listener().enters_by(server(), Listen, Close));
    assert!(t.connections().is_empty());
    // inet_csk_listen_stop does not own the children's locks, so no process shows.
    t.set(child(2).enters(Established, Close));
    assert_eq!(t.verdict(2), Verdict::NeverAccepted);
    t.set(child(3).enters(CloseWait, Close));
    assert_eq!(t.verdict(3), Verdict::NeverAccepted);
    for conn in [2, 3] {
        assert!(t.reason(conn).ends_with("the listener closed"));
    }
}

#[test]
fn queued_at_the_end_is_never_accepted() {
    let mut t = established();
    t.establish(&child(3));
    t.set(child(3).enters(Established, CloseWait));
    let totals = t.finish();
    assert_eq!(totals.verdicts, [(Verdict::NeverAccepted, 2)].into());
    assert_eq!(totals.listeners[0].never_accepted, 2);
    assert!(t.reason(2).contains("when the trace ended"));
    assert!(t.reason(3).contains("the peer has closed"));
}

#[test]
fn closed_by_a_process_was_accepted_unseen() {
    for path in [
        &[Established, FinWait1, FinWait2, Close][..],
        &[Established, CloseWait, LastAck, Close][..],
    ] {
        let mut t = established();
        t.walk(&child(2), path);
        assert_eq!(t.verdict(2), Verdict::Unknown);
        assert!(t.reason(2).contains("a process closed it"));
    }
    let mut t = established();
    t.set(child(2).enters_by(server(), Established, Close));
    assert_eq!(t.verdict(2), Verdict::Unknown);
}

#[test]
fn handshake_that_did_not_finish_is_stated() {
    let mut t = syn_recv();
    t.set(child(2).enters(SynRecv, Close));
    assert_eq!(t.verdict(2), Verdict::Unknown);
    assert_eq!(t.reason(2), "the handshake did not finish");
    let totals = t.finish();
    assert_eq!(totals.listeners[0].connections, 0);
}
