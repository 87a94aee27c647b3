//! What the kernel keeps of a connection after its socket.

use super::*;
use crate::event::{Found, Timewait, TimewaitStep};
use crate::fields::{BucketEnd, Source, TimeWait};

/// A step of the bucket that `client(2)` leaves.
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

/// `client(2)`, as conn 1, has been in FIN_WAIT2 for a millisecond.
fn in_fin_wait2() -> Trace {
    let mut t = syn_sent();
    t.walk(&client(2), &[SynSent, Established, FinWait1, FinWait2]);
    t.wait(MS - US);
    t
}

/// The same where buckets are seen, and one begins in this substate.
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

/// The only one.
fn time_wait(t: &Trace) -> &TimeWait {
    match time_waits(t)[..] {
        [only] => only,
        ref all => panic!("{all:#?}"),
    }
}

/// The bucket's transitions: from, to, how long, where from.
fn steps(t: &Trace) -> Vec<(State, State, Option<u64>, Source)> {
    let synthetic = t.transitions().into_iter().filter(|x| x.synthetic);
    let told = synthetic.map(|x| (x.oldstate, x.newstate, x.in_state_ns, x.source));
    told.collect()
}

#[test]
fn a_close_with_the_fin_already_there_begins_time_wait() {
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
fn fin_wait2_lasts_beyond_the_socket() {
    let mut t = bucket(FinWait2);
    assert_eq!(t.connection(1).bucket, Some(FinWait2));
    assert!(steps(&t).is_empty(), "no change of state yet");
    t.wait(500 * MS);
    t.timewait(step(TimewaitStep::Restarted, TimeWait));
    // Its FIN once more: the timer begins again, the state does not.
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
fn a_fin_that_never_comes_lets_fin_wait2_expire() {
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
fn each_end_has_its_name() {
    for (end, ended) in [
        (TimewaitStep::Killed { syn: false }, BucketEnd::Reset),
        (TimewaitStep::Taken, BucketEnd::Reused),
        (TimewaitStep::Purged, BucketEnd::Purged),
    ] {
        let mut t = bucket(TimeWait);
        t.timewait(step(end, TimeWait));
        // Both the timer and the segment may come to it; the second finds it gone.
        t.timewait(step(TimewaitStep::Expired, TimeWait));
        assert_eq!(time_wait(&t).bucket_end, Some(ended));
    }
}

#[test]
fn a_turn_that_was_missed_is_not_measured() {
    let mut t = bucket(FinWait2);
    t.timewait(step(TimewaitStep::Expired, TimeWait));
    let line = time_wait(&t);
    assert_eq!(line.state, TimeWait);
    assert_eq!((line.fin_wait2_ns, line.time_wait_ns), (None, None));
}

#[test]
fn a_bucket_that_outlives_the_trace_is_told_as_open() {
    let mut t = bucket(TimeWait);
    t.finish();
    let line = time_wait(&t);
    assert_eq!((line.mono_ns, line.bucket_end), (t.now, None));
    assert_eq!((line.fin_wait2_ns, line.time_wait_ns), (Some(MS), None));
}

#[test]
fn a_bucket_of_other_ends_or_of_an_earlier_trace_is_not_ours() {
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
fn where_no_bucket_is_seen_to_begin_there_is_none() {
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

/// What the flags alone tell of FIN_WAIT2→CLOSE.
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
fn without_a_hook_the_flags_name_the_bucket() {
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
fn without_a_hook_time_wait_begins_at_close_and_its_end_is_unknown() {
    let mut t = by_flags(true, true, None);
    let flags = Source::SocketFlags;
    assert_eq!(steps(&t), [(FinWait2, TimeWait, Some(MS), flags)]);
    t.finish();
    let line = time_wait(&t);
    assert_eq!((line.state, line.source), (TimeWait, flags));
    assert_eq!((line.fin_wait2_ns, line.time_wait_ns), (Some(MS), None));
    assert_eq!(line.bucket_end, None);
}

/// The same bucket, as a look finds it.
fn seen_in(state: State) -> Found {
    Found {
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
fn a_look_finds_the_change_but_not_its_time() {
    let mut t = by_flags(false, true, None);
    assert_eq!(t.correlator.worth_a_look(), [NETNS].into());
    let looking = t.now;
    t.finds(seen_in(FinWait2));
    t.looked(looking);
    t.wait(1_000 * MS);
    t.finds(seen_in(TimeWait));
    let iterator = Source::SocketIterator;
    assert_eq!(steps(&t), [(FinWait2, TimeWait, None, iterator)]);
    t.wait(1_000 * MS);
    t.looked(t.now - MS);
    assert_eq!(steps(&t).last(), Some(&(TimeWait, Close, None, iterator)));
    let line = time_wait(&t);
    assert_eq!(
        (line.state, line.bucket_end),
        (TimeWait, Some(BucketEnd::Gone))
    );
    assert_eq!((line.fin_wait2_ns, line.time_wait_ns), (None, None));
    assert_eq!(line.source, iterator);
    assert!(t.correlator.worth_a_look().is_empty());
}

#[test]
fn a_look_that_began_before_the_bucket_need_not_find_it() {
    let began = START;
    let mut t = by_flags(true, true, None);
    t.looked(began);
    assert!(time_waits(&t).is_empty());
}

#[test]
fn where_buckets_are_seen_a_look_adds_nothing() {
    let mut t = bucket(FinWait2);
    assert!(t.correlator.worth_a_look().is_empty());
    t.finds(seen_in(TimeWait));
    t.wait(MS);
    t.looked(t.now);
    assert!(steps(&t).is_empty() && time_waits(&t).is_empty());
}

#[test]
fn both_fins_crossing_lead_from_closing_to_time_wait() {
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
