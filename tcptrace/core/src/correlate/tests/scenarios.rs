//! Tests of every verdict in a trace, and of connections that wait or end in the accept queue.

use super::*;

#[test]
fn accept_called_after_established_is_queued() {
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
    assert!(connection.reason_follows);
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
fn accept_blocked_at_established_is_awaited() {
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
fn accept_blocked_when_hooks_are_attached_is_awaited() {
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
fn unseen_accept_call_is_unknown_with_a_wait_time() {
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
fn connection_closed_by_a_rst_while_queued_waits_for_its_accept() {
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
fn connection_closed_by_a_rst_during_accept_is_still_accepted() {
    let mut t = established();
    t.set(SetState {
        err: Some(ECONNRESET),
        ..child(2).enters_by(server(), Established, Close)
    });
    t.accept(listener().accepts(&child(2), Called::At(START)));
    assert_eq!(t.verdict(2), Verdict::Awaited);
}

#[test]
fn connection_closed_by_a_rst_at_an_unknown_listener_outlives_other_listeners() {
    let elsewhere = listener_at(1, "127.0.0.9");
    let mut t = trace();
    t.set(elsewhere.enters_by(server(), Close, Listen));
    t.establish(&child(2));
    t.set(SetState {
        err: Some(ECONNRESET),
        ..child(2).enters(Established, Close)
    });
    t.set(elsewhere.enters_by(server(), Listen, Close));
    assert!(t.connections().is_empty());
}

#[test]
fn connection_closed_by_a_rst_while_queued_ends_with_listener_address_or_trace() {
    let reset = || {
        let mut t = established();
        t.correlator.sees_all_accepts();
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
    // inet_csk_listen_stop does not lock the child sockets, so the context is not known.
    t.set(child(2).enters(Established, Close));
    assert_eq!(t.verdict(2), Verdict::NeverAccepted);
    t.set(child(3).enters(CloseWait, Close));
    assert_eq!(t.verdict(3), Verdict::NeverAccepted);
    for conn in [2, 3] {
        assert!(t.reason(conn).ends_with("the listener closed"));
    }
}

#[test]
fn connection_queued_at_the_end_is_never_accepted() {
    let mut t = established();
    t.establish(&child(3));
    t.set(child(3).enters(Established, CloseWait));
    let totals = t.finish_with_queued(&[child(2), child(3)]);
    assert_eq!(totals.verdicts, [(Verdict::NeverAccepted, 2)].into());
    assert_eq!(totals.listeners[0].never_accepted, 2);
    assert!(t.reason(2).contains("when the trace ended"));
    assert!(t.reason(3).contains("the peer has closed"));
}

#[test]
fn connection_held_by_a_process_was_accepted_unseen() {
    let mut t = established();
    t.set(SetState {
        held: true,
        ..child(2).enters(Established, CloseWait)
    });
    t.finish();
    assert_eq!(t.verdict(2), Verdict::Unknown);
}

#[test]
fn connection_closed_by_a_rst_during_accept_stays_until_accept_returns() {
    let mut t = established();
    t.set(SetState {
        held: true,
        err: Some(ECONNRESET),
        ..child(2).enters_by(server(), Established, Close)
    });
    t.accept(listener().accepts(&child(2), Called::At(t.now)));
    assert_eq!(t.verdict(2), Verdict::Queued);
}

#[test]
fn connection_closed_by_a_process_was_accepted_unseen() {
    for path in [
        &[Established, FinWait1, FinWait2, Close][..],
        &[Established, CloseWait, LastAck, Close][..],
    ] {
        let mut t = established();
        t.walk(&child(2), path);
        assert_eq!(t.verdict(2), Verdict::Unknown);
        assert!(t.reason(2).contains("a process had it"));
    }
    let mut t = established();
    t.set(child(2).enters_by(server(), Established, Close));
    assert_eq!(t.verdict(2), Verdict::Unknown);
}

#[test]
fn unfinished_handshake_has_a_reason() {
    let mut t = syn_recv();
    t.set(child(2).enters(SynRecv, Close));
    assert_eq!(t.verdict(2), Verdict::Unfinished);
    assert_eq!(t.reason(2), "the handshake did not finish");
    let totals = t.finish();
    assert_eq!(totals.listeners[0].connections, 0);
}
