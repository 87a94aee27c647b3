//! Tests of every verdict from its facts. The tests in `scenarios.rs` make the same verdicts in
//! traces.

use super::super::judge::verdict::{self, Facts, Fate, Gap, Judgement, Queue};
use super::super::state::connection::Accepted;
use super::*;

const ATTACHED: u64 = 100;

fn accept_at(mono_ns: u64, called: Called) -> Accepted {
    Accepted {
        mono_ns,
        called,
        witness: Witness::SysExit,
        follows_child_lock: true,
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
        skipped_established: false,
        fate: Fate::Open,
        queue: Queue::Queued,
        words: true,
    }
}

#[test]
fn verdict_follows_the_order_of_established_call_and_return() {
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
fn fast_open_accept_may_precede_or_lack_established() {
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
            reason: Some(
                "accept() returned to server[4711] 1.020 s before the kernel finished the \
                     handshake, as TCP Fast Open allows"
                    .into()
            ),
            follows: false,
            evidence: [
                "accept() exit (sys_exit)",
                "tcp_sock.fastopen_rsk",
                "inet_sock_set_state SYN_RECV→ESTABLISHED",
            ][..]
                .into(),
        }
    );
    let evidence = "accept() exit (sys_exit), tcp_sock.fastopen_rsk, inet_sock_set_state \
                    SYN_RECV→ESTABLISHED";
    assert_eq!(judged.evidence().as_deref(), Some(evidence));
    let judged = verdict::judge(&facts(None, Some(accepted)));
    assert_eq!(judged.verdict, Verdict::FastOpen);
}

#[test]
fn accept_before_established_is_overlapped_only_for_a_witness_without_the_child_lock() {
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
        let judged = verdict::accepted_first(
            &Accepted {
                follows_child_lock,
                ..accepted
            },
            1_361,
        );
        assert_eq!(judged.verdict, verdict, "{follows_child_lock} {accepted:?}");
        assert!(
            judged
                .reason
                .as_ref()
                .is_some_and(|it| it.contains("361 ns before")),
            "{judged:?}"
        );
    }
}

#[test]
fn never_accepted_reason_has_the_end_of_the_connection() {
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
        assert!(
            judged.reason.as_ref().is_some_and(|it| it.contains(end)),
            "{fate:?}: {judged:?}"
        );
    }
}

#[test]
fn gap_makes_the_verdict_unknown() {
    let accepted = Some(accept_at(3_000, Called::At(500)));
    for gap in [
        Gap::BeforeTrace,
        Gap::Beginning,
        Gap::Lost,
        Gap::Skipped,
        Gap::Late,
        Gap::Missed,
    ] {
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
            let text = judged
                .reason
                .as_ref()
                .is_some_and(|it| it.contains(gap.why()));
            assert!(text || verdict != Verdict::Unknown, "{judged:?}");
        }
    }
}
