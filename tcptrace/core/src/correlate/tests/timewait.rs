//! Tests of TIME_WAIT buckets.

use super::*;
use crate::event::{SnapshotEntry, Timewait, TimewaitStep};
use crate::fields::{BucketEnd, Source, TimeWait};

/// Returns an event of the bucket of `client(2)`.
fn step(step: TimewaitStep, substate: State) -> Timewait {
    let begun = step == TimewaitStep::Begun;
    Timewait {
        tw: Sk(0x77),
        sk: begun.then_some(client(2).sk),
        cookie: None,
        netns: NETNS,
        tuple: client(2).tuple,
        step,
        substate,
    }
}

/// Returns a trace in which `client(2)`, connection 1, has been in FIN_WAIT2 for a millisecond.
fn in_fin_wait2() -> Trace {
    let mut t = syn_sent();
    t.walk(&client(2), &[SynSent, Established, FinWait1, FinWait2]);
    t.wait(MS - US);
    t
}

/// Like [`in_fin_wait2`], but hooks see buckets and one begins in this substate.
fn bucket(substate: State) -> Trace {
    let mut t = in_fin_wait2();
    t.correlator.sees_buckets();
    t.timewait(step(TimewaitStep::Begun, substate));
    t.set(client(2).enters(FinWait2, Close));
    t
}

fn time_waits(t: &Trace) -> Vec<&TimeWait> {
    let only = t.lines.iter().filter_map(|line| match line {
        Line::TimeWait(x) => Some(x),
        _ => None,
    });
    only.collect()
}

/// Returns the only `time_wait` line.
fn time_wait(t: &Trace) -> &TimeWait {
    match time_waits(t)[..] {
        [only] => only,
        ref all => panic!("{all:#?}"),
    }
}

/// Returns the bucket's transition lines: old state, new state, time in the old state, source.
fn steps(t: &Trace) -> Vec<(State, State, Option<u64>, Source)> {
    let synthetic = t.transitions().into_iter().filter(|x| x.synthetic);
    let text = synthetic.map(|x| (x.oldstate, x.newstate, x.in_state_ns, x.source));
    text.collect()
}

#[test]
fn close_after_the_peers_fin_begins_time_wait() {
    let mut t = bucket(TimeWait);
    assert_eq!(t.last_transition().bucket, Some(TimeWait));
    assert_eq!(t.connection(1).bucket, Some(TimeWait));
    t.wait(60_000 * MS);
    t.timewait(step(TimewaitStep::Expired, TimeWait));
    let probe = Source::TimewaitSock;
    let waited = Some(60_000 * MS + 2 * US);
    assert_eq!(
        steps(&t),
        [
            (FinWait2, TimeWait, Some(MS), probe),
            (TimeWait, Close, waited, probe)
        ]
    );
    let line = time_wait(&t);
    assert_eq!(line.subject.conn, Some(1));
    assert_eq!((line.fin_wait2_ns, line.time_wait_ns), (Some(MS), waited));
    assert_eq!(
        (line.state, line.bucket_end),
        (TimeWait, Some(BucketEnd::Expired))
    );
    t.finish();
    assert_eq!(time_waits(&t).len(), 1);
}

#[test]
fn fin_wait2_time_includes_the_bucket() {
    let mut t = bucket(FinWait2);
    assert_eq!(t.connection(1).bucket, Some(FinWait2));
    assert!(steps(&t).is_empty(), "no change of state yet");
    t.wait(500 * MS);
    t.timewait(step(TimewaitStep::Restarted, TimeWait));
    // A retransmitted FIN restarts the bucket's timer and does not change the state.
    t.wait(MS);
    t.timewait(step(TimewaitStep::Restarted, TimeWait));
    t.timewait(step(TimewaitStep::Killed { syn: true }, TimeWait));
    let line = time_wait(&t);
    assert_eq!(line.fin_wait2_ns, Some(501 * MS + 2 * US));
    assert_eq!(line.time_wait_ns, Some(MS + 2 * US));
    assert_eq!(line.bucket_end, Some(BucketEnd::Reused));
    assert_eq!(steps(&t).len(), 2);
}

#[test]
fn fin_wait2_bucket_without_a_fin_expires() {
    let mut t = bucket(FinWait2);
    t.wait(2_000 * MS);
    t.timewait(step(TimewaitStep::Expired, FinWait2));
    let line = time_wait(&t);
    assert_eq!(line.fin_wait2_ns, Some(2_001 * MS + 2 * US));
    assert_eq!((line.state, line.time_wait_ns), (FinWait2, None));
    let last = t.last_transition();
    assert_eq!((last.oldstate, last.newstate), (FinWait2, Close));
}

#[test]
fn every_bucket_end_has_its_name() {
    for (end, ended) in [
        (TimewaitStep::Killed { syn: false }, BucketEnd::Reset),
        (TimewaitStep::Taken, BucketEnd::Reused),
        (TimewaitStep::Purged, BucketEnd::Purged),
    ] {
        let mut t = bucket(TimeWait);
        t.timewait(step(end, TimeWait));
        // Both the timer and a segment may end the bucket. The second event finds no bucket.
        t.timewait(step(TimewaitStep::Expired, TimeWait));
        assert_eq!(time_wait(&t).bucket_end, Some(ended));
    }
}

#[test]
fn bucket_with_a_missed_change_has_no_times() {
    let mut t = bucket(FinWait2);
    t.timewait(step(TimewaitStep::Expired, TimeWait));
    let line = time_wait(&t);
    assert_eq!(line.state, TimeWait);
    assert_eq!((line.fin_wait2_ns, line.time_wait_ns), (None, None));
}

#[test]
fn bucket_open_at_the_end_of_the_trace_has_a_line() {
    let mut t = bucket(TimeWait);
    t.finish();
    let line = time_wait(&t);
    assert_eq!((line.mono_ns, line.bucket_end), (t.now, None));
    assert_eq!((line.fin_wait2_ns, line.time_wait_ns), (Some(MS), None));
}

#[test]
fn bucket_of_an_untraced_connection_is_ignored() {
    let mut t = bucket(TimeWait);
    let elsewhere = Timewait {
        netns: NETNS + 1,
        ..step(TimewaitStep::Expired, TimeWait)
    };
    t.timewait(elsewhere);
    t.timewait(Timewait {
        tw: Sk(0x78),
        ..step(TimewaitStep::Expired, TimeWait)
    });
    assert!(time_waits(&t).is_empty());
}

#[test]
fn no_bucket_is_inferred_if_a_hook_sees_buckets() {
    let mut t = in_fin_wait2();
    t.correlator.sees_buckets();
    t.set(SetState {
        fin_received: true,
        ..client(2).enters(FinWait2, Close)
    });
    t.finish();
    assert_eq!(t.connection(1).bucket, None);
    assert!(time_waits(&t).is_empty());
}

/// Returns a trace in which only the socket's flags at FIN_WAIT2→CLOSE show the bucket.
fn by_flags(fin_received: bool, orphaned: bool, err: Option<u32>) -> Trace {
    let mut t = in_fin_wait2();
    t.set(SetState {
        fin_received,
        orphaned,
        err,
        ..client(2).enters(FinWait2, Close)
    });
    t
}

#[test]
fn socket_flags_show_the_bucket_without_a_hook() {
    assert_eq!(
        by_flags(true, true, None).connection(1).bucket,
        Some(TimeWait)
    );
    assert_eq!(
        by_flags(true, false, None).connection(1).bucket,
        Some(TimeWait)
    );
    assert_eq!(
        by_flags(false, true, None).connection(1).bucket,
        Some(FinWait2)
    );
    assert_eq!(by_flags(false, false, None).connection(1).bucket, None);
    assert_eq!(
        by_flags(true, true, Some(ECONNRESET)).connection(1).bucket,
        None
    );
}

#[test]
fn time_wait_without_a_hook_begins_at_close_with_unknown_end() {
    let mut t = by_flags(true, true, None);
    let flags = Source::SocketFlags;
    assert_eq!(steps(&t), [(FinWait2, TimeWait, Some(MS), flags)]);
    t.finish();
    let line = time_wait(&t);
    assert_eq!((line.state, line.source), (TimeWait, flags));
    assert_eq!((line.fin_wait2_ns, line.time_wait_ns), (Some(MS), None));
    assert_eq!(line.bucket_end, None);
}

/// Returns the bucket of `client(2)` as a snapshot finds it.
fn seen_in(state: State) -> SnapshotEntry {
    SnapshotEntry {
        sk: Sk(0x77),
        cookie: None,
        cgroup: None,
        netns: NETNS,
        tuple: client(2).tuple,
        scope: None,
        state,
        is_bucket: true,
        held: false,
        uid: None,
        inode: None,
        backlog_len: 0,
        backlog_max: 0,
    }
}

#[test]
fn snapshot_shows_a_bucket_change_without_its_time() {
    let mut t = by_flags(false, true, None);
    assert_eq!(t.correlator.wants_snapshot(), [NETNS].into());
    let looking = t.now;
    t.snapshot_entry(seen_in(FinWait2));
    t.snapshot_end(looking);
    t.wait(1_000 * MS);
    t.snapshot_entry(seen_in(TimeWait));
    let iterator = Source::SocketIterator;
    assert_eq!(steps(&t), [(FinWait2, TimeWait, None, iterator)]);
    t.wait(1_000 * MS);
    t.snapshot_end(t.now - MS);
    assert_eq!(steps(&t).last(), Some(&(TimeWait, Close, None, iterator)));
    let line = time_wait(&t);
    assert_eq!(
        (line.state, line.bucket_end),
        (TimeWait, Some(BucketEnd::Gone))
    );
    assert_eq!((line.fin_wait2_ns, line.time_wait_ns), (None, None));
    assert_eq!(line.source, iterator);
    assert!(t.correlator.wants_snapshot().is_empty());
}

#[test]
fn snapshot_older_than_the_bucket_does_not_end_it() {
    let began = START;
    let mut t = by_flags(true, true, None);
    t.snapshot_end(began);
    assert!(time_waits(&t).is_empty());
}

#[test]
fn snapshot_adds_nothing_if_a_hook_sees_buckets() {
    let mut t = bucket(FinWait2);
    assert!(t.correlator.wants_snapshot().is_empty());
    t.snapshot_entry(seen_in(TimeWait));
    t.wait(MS);
    t.snapshot_end(t.now);
    assert!(steps(&t).is_empty() && time_waits(&t).is_empty());
}

#[test]
fn crossing_fins_lead_from_closing_to_time_wait() {
    let mut t = syn_sent();
    t.walk(&client(2), &[SynSent, Established, FinWait1, Closing]);
    t.set(SetState {
        fin_received: true,
        ..client(2).enters(Closing, Close)
    });
    t.finish();
    let flags = Source::SocketFlags;
    assert_eq!(steps(&t), [(Closing, TimeWait, Some(US), flags)]);
    assert_eq!(time_wait(&t).fin_wait2_ns, None);
}
