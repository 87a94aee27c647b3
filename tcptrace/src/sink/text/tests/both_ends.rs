//! Tests of lines about both ends of a connection, and of full queues.

use super::*;
use crate::fields::Backlog;

const MS: u64 = 1_000_000;

/// An accept() whose client is on this host.
fn local(accept: Accept) -> Accept {
    let established = samples::NOW - 504 * MS;
    Accept {
        established_mono_ns: Some(established),
        peer_conn: Some(2),
        peer_syn_mono_ns: Some(established - 200_000),
        peer_established_mono_ns: Some(established - 30_000),
        called_mono_ns: Some(samples::NOW - MS),
        blocked_ns: Some(MS),
        backlog_len: 0,
        ..accept
    }
}

#[test]
fn steps_at_both_ends_are_sorted_by_time() {
    let late = local(samples::accept());
    let early = Accept {
        called_mono_ns: Some(samples::NOW - 1504 * MS),
        ..late.clone()
    };
    let unseen = Accept {
        called_mono_ns: None,
        blocked_ns: None,
        peer_syn_mono_ns: None,
        ..late.clone()
    };
    check(
        &[late, early, unseen].map(Line::Accept),
        &[
            "14:03:07.123456  #3    127.0.0.1:39709 → :7878            accept() returned to server[4711] after 1.000 ms",
            "14:03:07.123456  #3    127.0.0.1:39709 → :7878            both ends: connect() called 0, client #2 ESTABLISHED +170.0 µs, server ESTABLISHED +200.0 µs, accept() called +503.2 ms, returned +504.2 ms",
            "14:03:07.123456  #3    127.0.0.1:39709 → :7878            accept() returned to server[4711] after 1.000 ms",
            "14:03:07.123456  #3    127.0.0.1:39709 → :7878            both ends: accept() called −999.8 ms, connect() called 0, client #2 ESTABLISHED +170.0 µs, server ESTABLISHED +200.0 µs, returned +504.2 ms",
            "14:03:07.123456  #3    127.0.0.1:39709 → :7878            accept() returned to server[4711]",
            "14:03:07.123456  #3    127.0.0.1:39709 → :7878            both ends: client #2 ESTABLISHED 0, server ESTABLISHED +30.00 µs, accept() returned +504.0 ms",
        ],
    );
}

#[test]
fn the_explanation_of_a_client_is_written_below_its_end() {
    let explanation = "its SYN met a full accept queue of #1 (2 queued, limit 1) 2 times, so SYN_SENT lasted 3.020 s";
    let client = Connection {
        overflows: Some(2),
        explanation: Some(explanation.to_owned()),
        ..samples::client()
    };
    let text = written(PLAIN, &[Line::Connection(client)]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].contains("ended: connected in"), "{text}");
    let prose: Vec<&str> = lines[1..].iter().map(|line| line.trim()).collect();
    assert_eq!(prose.join(" "), explanation);
}

#[test]
fn explain_describes_each_kind_of_full_queue() {
    let explaining = Style {
        explain: true,
        ..PLAIN
    };
    let of = |aborted, what, queue| {
        let overflow = Overflow {
            aborted,
            dropped: what,
            queue,
            ..samples::overflow()
        };
        let text = written(explaining, &[Line::Overflow(overflow)]);
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    use crate::event::{ListenQueue::*, OverflowSegment};
    for (aborted, what, queue, says) in [
        (
            false,
            OverflowSegment::Ack,
            Accept,
            "stays half-open, the SYN-ACK is sent again",
        ),
        (true, OverflowSegment::Ack, Accept, "the kernel resets it"),
        (
            false,
            OverflowSegment::Syn,
            Accept,
            "wait for accept() than the backlog allows",
        ),
        (false, OverflowSegment::Syn, Syn, "tcp_syncookies is off"),
    ] {
        let text = of(aborted, what, queue);
        assert!(text.contains(says), "{text}");
    }
    let reserve = Overflow {
        reserve: true,
        dropped: OverflowSegment::Syn,
        queue: Syn,
        ..samples::overflow()
    };
    let text = written(explaining, &[Line::Overflow(reserve)]);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        text.contains("the SYN was dropped: the rest of the SYN queue is kept for known peers (2"),
        "{text}"
    );
    assert!(text.contains("last quarter of net.ipv4.tcp_max_syn_backlog"));
    assert!(!written(PLAIN, &[Line::Overflow(samples::overflow())]).contains("half-open, the"));
}

#[test]
fn a_backlog_is_shown_only_if_it_was_clipped() {
    let clipped = |asked| {
        Line::Transition(Transition {
            backlog: Backlog {
                backlog_max: Some(128),
                backlog_asked: Some(asked),
                somaxconn: Some(128),
                backlog_clipped: Some(true),
            },
            ..samples::listen()
        })
    };
    // listen() with -1 asks for the maximum.
    check(
        &[
            clipped(4096),
            clipped(-1),
            Line::Transition(samples::listen()),
        ],
        &[
            "14:03:07.123456  #1    [::]:7878                          CLOSE → LISTEN                   -  -  (backlog 128, asked for 4096: clipped by net.core.somaxconn)",
            "14:03:07.123456  #1    [::]:7878                          CLOSE → LISTEN                   -  -",
            "14:03:07.123456  #1    [::]:7878                          CLOSE → LISTEN                   -  -",
        ],
    );
    let verbose = written(VERBOSE, &[Line::Transition(samples::listen())]);
    assert!(verbose.contains("(backlog 128)"), "{verbose}");
}
