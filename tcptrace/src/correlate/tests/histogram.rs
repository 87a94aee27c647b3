//! Connections that come as lives and as counts.

use super::*;
use crate::event::{Distribution, Tally};
use crate::fields::Histogram;

fn tally(queued: u64, awaited: u64) -> Tally {
    let all = Distribution {
        buckets: vec![(10 * US, queued + awaited)],
        max_ns: 9 * US,
    };
    Tally {
        netns: NETNS,
        port: PORT,
        client: false,
        queued,
        awaited,
        handshake: Distribution::default(),
        accept_queue: all,
    }
}

fn clients(count: u64) -> Tally {
    Tally {
        client: true,
        ..tally(count, 0)
    }
}

fn histograms(t: &Trace) -> Vec<&Histogram> {
    let only = t.lines.iter().filter_map(|line| match line {
        Line::Histogram(x) => Some(x),
        _ => None,
    });
    only.collect()
}

#[test]
fn each_count_is_told_once_and_adds_up_in_the_summary() {
    let mut t = listening();
    t.tally(vec![tally(2, 1), clients(3)]);
    t.wait(1_000 * MS);
    t.tally(vec![tally(2, 1), clients(3)]);
    t.wait(1_000 * MS);
    t.tally(vec![tally(6, 1), clients(3)]);
    let totals = t.finish();

    let told: Vec<_> = histograms(&t)
        .iter()
        .map(|x| (x.side, x.connections, x.queued, x.awaited))
        .collect();
    assert_eq!(
        told,
        [
            (Side::Server, 3, Some(2), Some(1)),
            (Side::Client, 3, None, None),
            (Side::Server, 4, Some(4), Some(0)),
        ]
    );
    let last = histograms(&t)[2];
    assert_eq!(last.interval_ns, 1_000 * MS + US);
    let waits = last.accept_queue.as_ref().unwrap();
    assert_eq!(waits.buckets, [(10 * US, 4)]);
    assert_eq!(waits.max_ns, 9 * US, "no longer than the longest of all");
    assert_eq!(last.handshake, None);

    assert_eq!((totals.servers, totals.clients), (7, 3));
    assert_eq!(totals.verdicts[&Verdict::Queued], 6);
    assert_eq!(totals.verdicts[&Verdict::Awaited], 1);
    let [at] = &totals.listeners[..] else {
        panic!("{:?}", totals.listeners);
    };
    assert_eq!((at.conn, at.connections, at.accepted), (Some(1), 7, 7));
    assert_eq!(at.accept_queue_max_ns, Some(9 * US));
}

#[test]
fn a_life_is_judged_like_its_events_and_told_in_one_line() {
    let one_by_one = {
        let mut t = established();
        t.wait(5 * MS);
        t.accept(listener().accepts(&child(2), Called::At(t.now - MS)));
        t.walk(&child(2), &[Established, CloseWait, LastAck, Close]);
        t
    };
    let mut joined = listening();
    joined.live(one_by_one.events[1..].to_vec());

    assert_eq!(joined.connection(2), one_by_one.connection(2));
    assert_eq!(joined.verdict(2), Verdict::Queued);
    assert_eq!(joined.transitions().len(), 1, "the listener's");
    assert!(joined.accepts().is_empty());
}
