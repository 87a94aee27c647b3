//! Tests of half-open connections and full queues.

use super::*;
use crate::event::{ListenQueue, OverflowSegment};
use crate::fields::{ListenerSummary, NetnsCounters, Overflow, QueueCounters, Source, Summary};

#[test]
fn a_half_open_connection_has_rows_like_others() {
    let begin = Transition {
        oldstate: State::Listen,
        newstate: State::NewSynRecv,
        in_state_ns: None,
        synthetic: true,
        source: Source::RequestSock,
        ..samples::transition()
    };
    let end = Transition {
        oldstate: State::NewSynRecv,
        newstate: State::Close,
        in_state_ns: Some(23_100),
        ..begin.clone()
    };
    check(
        &[Line::Transition(begin), Line::Transition(end)],
        &[
            "14:03:07.123456  #3    127.0.0.1:39709 → :7878            LISTEN → NEW_SYN_RECV            -  server[4711]?",
            "14:03:07.123456  #3    127.0.0.1:39709 → :7878            NEW_SYN_RECV → CLOSE      23.10 µs  server[4711]?",
        ],
    );
}

#[test]
fn an_overflow_names_the_segment_and_the_queue() {
    let ack = samples::overflow();
    let aborted = Overflow {
        aborted: true,
        ..ack.clone()
    };
    let mut syn = Overflow {
        dropped: OverflowSegment::Syn,
        queue: ListenQueue::Syn,
        queue_len: 5,
        ..ack.clone()
    };
    syn.subject.conn = None;
    check(
        &[ack, aborted, syn].map(Line::Overflow),
        &[
            "14:03:07.123456  #3    127.0.0.1:39709 → :7878            the final ACK was dropped: the accept queue was full (2 queued, limit 1)",
            "14:03:07.123456  #3    127.0.0.1:39709 → :7878            the final ACK was answered with RST: the accept queue was full (2 queued, limit 1)",
            "14:03:07.123456  -     127.0.0.1:39709 → :7878            the SYN was dropped: the SYN queue was full (5 half-open, limit 1)",
        ],
    );
}

/// An estimated handshake has the sign ≈.
#[test]
fn a_servers_handshake_shows_whether_it_is_estimated() {
    let ending = |source| {
        let connection = Connection {
            handshake_ns: Some(1_200_000),
            syn_source: Some(source),
            ending: Ending::default(),
            ..samples::connection()
        };
        let lines = [
            Line::Accept(samples::accept_with_verdict()),
            Line::Connection(connection),
        ];
        let text = written(PLAIN, &lines);
        let (_, ending) = text.rsplit_once("ended: ").expect("the ending");
        ending.to_owned()
    };
    assert_eq!(
        ending(Source::RequestSock),
        "handshake 1.200 ms (SYN to ESTABLISHED), open for 5.103 s\n"
    );
    assert_eq!(
        ending(Source::Srtt),
        "handshake ≈ 1.200 ms (SYN-ACK to ESTABLISHED), open for 5.103 s\n"
    );
}

#[test]
fn the_summary_lists_dropped_segments_and_unfinished_handshakes() {
    let summary = samples::summary();
    let mut listeners = [(Some(3), Some(1)), (Some(0), Some(0)), (None, Some(2))].map(
        |(overflows, half_open_failed)| ListenerSummary {
            overflows,
            half_open_failed,
            late: None,
            ..summary.listeners[0].clone()
        },
    );
    listeners[0].backlog.backlog_asked = Some(1000);
    listeners[0].backlog.backlog_clipped = Some(true);
    let text = written(
        PLAIN,
        &[Line::Summary(Summary {
            listeners: listeners.into(),
            ..summary
        })],
    );
    let lines: Vec<_> = text
        .lines()
        .filter(|line| line.contains("7878: "))
        .collect();
    assert_eq!(
        lines,
        [
            "#1 127.0.0.1:7878: 3 segments dropped at a full queue (limit 128, asked for 1000: clipped by net.core.somaxconn), 1 half-open connection unfinished",
            "#1 127.0.0.1:7878: 2 half-open connections unfinished",
        ]
    );
}

/// Returns the summary's lines about a namespace's counters, which rose by at least and at most
/// these numbers.
fn dropped(at_least: Option<[u64; 2]>, at_most: Option<[u64; 2]>) -> Vec<String> {
    let counters = |[listen_overflows, syn_queue_drops]: [u64; 2]| QueueCounters {
        listen_overflows,
        syn_queue_drops,
        ..QueueCounters::default()
    };
    let summary = Summary {
        netns_counters: vec![NetnsCounters {
            netns: 4_026_531_840,
            at_least: at_least.map(counters),
            at_most: at_most.map(counters),
            likely_listener: Some(1),
        }],
        ..samples::summary()
    };
    let text = written(PLAIN, &[Line::Summary(summary)]);
    let lines = text.lines().filter(|line| line.starts_with("net:["));
    lines.map(str::to_owned).collect()
}

#[test]
fn the_summary_bounds_the_drops_by_the_counters_of_a_namespace() {
    const WHY: &str =
        "; the listen_overflow hook is not attached, so only the namespace's counters show them";
    assert_eq!(
        dropped(Some([125, 0]), Some([126, 0])),
        [format!(
            "net:[4026531840]: at least 125 SYNs or ACKs dropped at full accept queues \
             (ListenOverflows), likely at #1 127.0.0.1:7878{WHY}"
        )]
    );
    assert_eq!(
        dropped(Some([0, 1]), None),
        [format!(
            "net:[4026531840]: at least 1 SYN dropped at full SYN queues (TCPReqQFullDrop){WHY}"
        )]
    );
    assert_eq!(
        dropped(Some([0, 0]), Some([3, 0])),
        [format!(
            "net:[4026531840]: up to 3 SYNs or ACKs dropped at full accept queues \
             (ListenOverflows), likely at #1 127.0.0.1:7878{WHY}"
        )]
    );
    assert!(dropped(Some([0, 0]), Some([0, 0])).is_empty());
    let unknown = dropped(None, None);
    assert!(unknown[0].contains("are unknown"), "{unknown:?}");
}

#[test]
fn a_deferred_connection_shows_why_it_was_half_open() {
    let deferred = Connection {
        defer_accept: Some(true),
        half_open_ns: Some(1_500_000_000),
        ..samples::connection()
    };
    let text = written(PLAIN, &[Line::Connection(deferred.clone())]);
    let expected = "half-open for 1.500 s, as TCP_DEFER_ACCEPT waits for the first data";
    assert!(text.contains(expected), "{text}");
    let never_accepted = Connection {
        verdict: Some(Verdict::NeverAccepted),
        accepted_mono_ns: None,
        ..deferred
    };
    let text = written(PLAIN, &[Line::Connection(never_accepted)]);
    assert_eq!(text.matches(expected).count(), 1, "{text}");
    let text = written(PLAIN, &[Line::Connection(samples::connection())]);
    assert!(!text.contains("DEFER"), "{text}");
}
