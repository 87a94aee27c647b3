//! Tests of the evidence for the contents of an accept queue. The verdict `never_accepted` needs
//! proof that the connection stayed in the queue.

use super::*;
use crate::event::SnapshotEntry;
use crate::fields::Ended;

const EHOSTUNREACH: u32 = 113;

/// Returns a socket that a snapshot during the trace found.
pub fn seen(sock: &Sock, held: bool) -> SnapshotEntry {
    SnapshotEntry {
        sk: sock.sk,
        cookie: None,
        cgroup: None,
        netns: NETNS,
        tuple: sock.tuple,
        scope: None,
        state: Established,
        is_bucket: false,
        held,
        uid: None,
        inode: None,
        backlog_len: 0,
        backlog_max: sock.backlog_max,
    }
}

/// Returns the listener as a snapshot found it, with this number of connections in its accept
/// queue.
fn with_queue(len: u32) -> SnapshotEntry {
    SnapshotEntry {
        state: Listen,
        backlog_len: len,
        ..seen(&listener(), true)
    }
}

fn reset(child: &Sock) -> SetState {
    SetState {
        err: Some(ECONNRESET),
        ..child.enters(Established, Close)
    }
}

#[test]
fn connection_open_at_the_end_is_never_accepted_only_if_the_last_snapshot_shows_it_queued() {
    for (entry, verdict) in [
        (Some(false), Verdict::NeverAccepted),
        // An accept() by io_uring, which no hook sees, has taken the connection.
        (Some(true), Verdict::Unknown),
        (None, Verdict::Unknown),
    ] {
        let mut t = established();
        if let Some(held) = entry {
            t.last_snapshot(&[seen(&child(2), held)]);
        }
        t.finish();
        assert_eq!(t.verdict(2), verdict, "{entry:?}");
        assert!(t.connection(2).complete);
    }
}

#[test]
fn earlier_snapshot_is_no_proof_at_the_end() {
    let mut t = established();
    t.snapshot_entry(seen(&child(2), false));
    t.last_snapshot(&[]);
    t.finish();
    assert_eq!(t.verdict(2), Verdict::Unknown);
}

/// If hooks see accept() only by its system call, io_uring may accept a connection that received a
/// RST in the queue.
#[test]
fn connection_closed_by_a_rst_in_the_queue_is_never_accepted_only_if_it_stays_there() {
    for (backlog_len, verdict) in [
        (1, Verdict::NeverAccepted),
        (0, Verdict::Unknown),
        // The accept queue has a connection that the trace does not know.
        (2, Verdict::Unknown),
    ] {
        let mut t = established();
        t.set(reset(&child(2)));
        t.set(SetState {
            backlog_len,
            ..listener().enters_by(server(), Listen, Close)
        });
        assert_eq!(t.verdict(2), verdict, "{backlog_len} queued");

        let mut t = established();
        t.set(reset(&child(2)));
        t.last_snapshot(&[with_queue(backlog_len)]);
        t.finish();
        assert_eq!(t.verdict(2), verdict, "{backlog_len} queued at the end");
    }
}

#[test]
fn queue_length_and_last_snapshot_decide_which_connections_are_queued() {
    for (entries, verdict) in [
        // One connection is left in the queue, and the snapshot shows which one.
        ([with_queue(1), seen(&child(3), false)], Verdict::Unknown),
        (
            [with_queue(2), seen(&child(3), false)],
            Verdict::NeverAccepted,
        ),
        (
            [with_queue(1), seen(&child(3), true)],
            Verdict::NeverAccepted,
        ),
    ] {
        let mut t = established();
        t.establish(&child(3));
        t.set(reset(&child(2)));
        t.last_snapshot(&entries);
        t.finish();
        assert_eq!(t.verdict(2), verdict, "{entries:?}");
    }
}

#[test]
fn connection_closed_by_a_rst_while_held_by_a_process_was_accepted_unseen() {
    let mut t = established();
    t.set(SetState {
        held: true,
        ..reset(&child(2))
    });
    // The accept() may be about to return the connection.
    t.wait(900 * MS);
    t.establish(&child(3));
    assert!(t.connections().is_empty());
    t.wait(200 * MS);
    t.establish(&child(4));
    assert_eq!(t.verdict(2), Verdict::Unknown);
    assert!(t.reason(2).contains("a process had it"));
    assert_ne!(t.connection(2).ending.ended, Some(Ended::ResetInQueue));
}

#[test]
fn accept_of_an_mptcp_socket_before_established_is_overlapped() {
    let mut accept = listener().accepts_fast(&child(2), Called::At(START));
    for (is_wrapped, verdict) in [(true, Verdict::Overlapped), (false, Verdict::Violated)] {
        if let Outcome::Accepted {
            wrapped, fastopen, ..
        } = &mut accept.outcome
        {
            (*wrapped, *fastopen) = (is_wrapped, false);
        }
        let mut t = syn_recv();
        t.accept(accept);
        t.set(child(2).enters(SynRecv, Established));
        t.finish();
        assert_eq!(t.verdict(2), verdict);
    }
}

/// The end of a Fast Open child socket in SYN_RECV clears its Fast Open mark (`fastopen_rsk`).
#[test]
fn connection_accepted_and_failed_in_syn_recv_is_fast_open() {
    for (errno, ended) in [
        (ECONNRESET, Ended::ResetInQueue),
        (EHOSTUNREACH, Ended::Unreachable),
        (111, Ended::Unreachable),
    ] {
        let mut t = syn_recv();
        t.set(SetState {
            err: Some(errno),
            ..child(2).enters(SynRecv, Close)
        });
        t.wait(500 * MS);
        let mut accept = listener().accepts(&child(2), Called::At(t.now));
        if let Outcome::Accepted { state, .. } = &mut accept.outcome {
            *state = Some(Close);
        }
        t.accept(accept);
        assert_eq!(t.last_accept().verdict, Some(Verdict::FastOpen));
        assert_eq!(t.verdict(2), Verdict::FastOpen, "{errno}");
        assert_eq!(t.connection(2).ending.ended, Some(ended), "{errno}");
        assert!(t.connection(2).complete);
        let totals = t.finish();
        let row = &totals.listeners[0];
        assert_eq!((row.connections, row.accepted), (1, 1));
    }
}

#[test]
fn connection_closed_before_the_final_ack_is_fast_open() {
    let mut t = syn_recv();
    t.accept(listener().accepts_fast(&child(2), Called::At(t.now)));
    t.walk(&child(2), &[SynRecv, FinWait1, FinWait2, Close]);
    assert_eq!(t.verdict(2), Verdict::FastOpen);
    let row = &t.finish().listeners[0];
    assert_eq!((row.connections, row.accepted), (1, 1));
}

/// MPTCP closes its own socket, which leaves no mark on the remaining subflow.
#[test]
fn accepted_mptcp_subflow_is_not_closed_in_queue() {
    let mut t = accepted();
    t.walk(&child(2), &[Established, CloseWait]);
    t.set(child(2).enters(CloseWait, Close));
    assert_ne!(t.connection(2).ending.ended, Some(Ended::ClosedInQueue));
}
