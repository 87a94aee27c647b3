//! Tests of the header and the summary.

use super::*;
use crate::fields::{HookCount, Session, Summary};

const QUIET: Style = Style {
    quiet: true,
    ..PLAIN
};

fn header(style: Style, session: Session) -> Vec<String> {
    let text = written(style, &[Line::Session(session)]);
    text.lines().map(str::to_owned).collect()
}

/// The summary of a trace that lost no event.
fn whole() -> Summary {
    let counted = HookCount {
        seen: 44,
        filtered: 20,
        emitted: 24,
        recursion_misses: Some(0),
        ..HookCount::default()
    };
    Summary {
        listeners: vec![],
        incomplete: 0,
        hook_counts: [(Hook::InetSockSetState, counted)].into(),
        ..samples::summary()
    }
}

#[test]
fn the_header_counts_hooks_and_what_cannot_be_shown() {
    assert_eq!(
        header(PLAIN, samples::session()),
        [
            "tcptrace 0.2.0 on Linux 6.18.5: TCP, port 7878",
            "hooks: 1 of 2 attached; 1 thing this trace cannot show (-v or tcptrace doctor)",
            HEADINGS,
        ]
    );
    let complete = Session {
        hooks: [(Hook::InetSockSetState, Some("tp_btf".to_owned()))].into(),
        unseen: vec![],
        ..samples::session()
    };
    assert_eq!(header(PLAIN, complete)[1], "hooks: 1 of 1 attached");
}

#[test]
fn verbose_lists_each_hook_and_each_thing_that_cannot_be_shown() {
    assert_eq!(
        header(VERBOSE, samples::session()),
        [
            "tcptrace 0.2.0 on Linux 6.18.5: TCP, port 7878",
            "hooks:",
            "  inet_sock_set_state by tp_btf",
            "  inet_csk_accept not attached (fentry: EPERM, kprobe: ENOENT)",
            "this trace cannot show:",
            "  accept(): no hook could be attached, so there are no verdicts",
            HEADINGS,
        ]
    );
}

#[test]
fn long_filters_are_cut_at_100_columns() {
    let ports = (7000..7100).map(|port| port.to_string());
    let long = Session {
        filters: [("port".to_owned(), ports.collect::<Vec<_>>().join(","))].into(),
        unseen: vec!["é".to_owned(); 1_000],
        ..samples::session()
    };
    let lines = header(PLAIN, long.clone());
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0].chars().count(), 100);
    assert!(lines[0].ends_with(",7010,70…"), "{}", lines[0]);
    assert!(lines[1].chars().count() <= 100, "{}", lines[1]);
    assert!(header(VERBOSE, long)[0].ends_with(",7099"));
}

#[test]
fn the_summary_is_one_line_if_no_event_was_lost() {
    check(
        &[Line::Summary(whole())],
        &[
            "",
            "12.88 s traced: 4 server-side connections (3 queued, 1 never accepted), 1 client-side; nothing lost",
        ],
    );
    let text = written(VERBOSE, &[Line::Summary(whole())]);
    let counters = "inet_sock_set_state: 44 events seen, 20 filtered out, 24 traced, 0 lost";
    assert_eq!(text.lines().last(), Some(counters));
}

#[test]
fn the_summary_lists_listeners_connections_and_the_hooks_that_lost_events() {
    check(
        &[Line::Summary(samples::summary())],
        &[
            "",
            "LISTENER           CONNECTIONS  ACCEPTED  NEVER ACCEPTED  FAILED CALLS   WAIT P50   WAIT P99   WAIT MAX",
            "#1 127.0.0.1:7878            4         3               1             2   23.10 µs    5.003 s    5.003 s",
            "127.0.0.1:80                 0         0               0             0          -          -          -",
            "#1 127.0.0.1:7878: 1 connection waited long: 4.900 s blocked, 100.0 ms waiting for a CPU",
            "",
            "12.88 s traced: 4 server-side connections (3 queued, 1 never accepted), 1 client-side, 1 incomplete",
            "inet_csk_accept: 5 events seen, 0 filtered out, 4 traced, 1 lost",
        ],
    );
}

#[test]
fn skipped_program_runs_are_reported_without_verbose() {
    let mut summary = whole();
    let count = summary.hook_counts.get_mut(&Hook::InetSockSetState);
    count.unwrap().recursion_misses = Some(2);
    let text = written(PLAIN, &[Line::Summary(summary)]);
    let last = "inet_sock_set_state: 44 events seen, 20 filtered out, 24 traced, 0 lost, 2 skipped by the kernel";
    assert_eq!(text.lines().last(), Some(last));
    assert!(!text.contains("nothing lost"), "{text}");
}

#[test]
fn quiet_writes_no_header_and_only_the_counts_of_lost_events() {
    let frame = [Line::Session(samples::session()), Line::Summary(whole())];
    assert_eq!(written(QUIET, &frame), "");
    assert_eq!(
        written(QUIET, &[Line::Summary(samples::summary())]),
        "inet_csk_accept: 5 events seen, 0 filtered out, 4 traced, 1 lost\n"
    );
    let evicted = Summary {
        evicted_connections: 2,
        dropped_lines: 1,
        ..whole()
    };
    assert_eq!(
        written(QUIET, &[Line::Summary(evicted)]),
        "1 line dropped: their connection stayed unknown for too long\n\
         2 connections evicted (too many open)\n"
    );
}

#[test]
fn dropped_lines_are_reported_in_the_summary() {
    let mut summary = samples::summary();
    assert!(!written(PLAIN, &[Line::Summary(summary.clone())]).contains("dropped"));
    summary.dropped_lines = 3;
    let text = written(PLAIN, &[Line::Summary(summary)]);
    assert!(text.contains("\n3 lines dropped: "), "{text}");
}
