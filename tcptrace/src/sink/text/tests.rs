//! Tests of the appearance of every kind of line.

mod both_ends;
mod frame;
mod half_open;

use tcptrace_core::container::Container;

use super::*;
use crate::event::Comm;
use crate::event::Hook;
use crate::event::State;
use crate::fields::{ClosedFirst, Ended, Ending, Preexisting, Retransmit, TimeWait};
use crate::sink::samples;

const PLAIN: Style = Style {
    color: false,
    verbose: false,
    quiet: false,
    explain: false,
    zone: Zone::Utc,
};
const VERBOSE: Style = Style {
    verbose: true,
    explain: false,
    ..PLAIN
};

const HEADINGS: &str = "TIME (UTC)       CONN  FROM → TO                          STATE                     IN STATE  PROCESS";

fn written(style: Style, lines: &[Line]) -> String {
    samples::all_written(lines, |out| {
        Box::new(Text::new(out, samples::clock(), style))
    })
}

#[track_caller]
fn check(lines: &[Line], expect: &[&str]) {
    let text = written(PLAIN, lines);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines, expect, "\n{text}");
}

#[test]
fn a_transition_shows_its_time_its_process_and_its_error() {
    let seen = samples::transition();
    check(
        &[Line::Transition(seen.clone())],
        &[
            "14:03:07.123456  #3    127.0.0.1:39709 → :7878            SYN_RECV → ESTABLISHED    23.10 µs  server[4711]?",
        ],
    );
    let entered_unseen = Transition {
        subject: samples::without_process(seen.subject.clone()),
        in_state_ns: None,
        error: Some("ECONNRESET".into()),
        ..seen.clone()
    };
    check(
        &[Line::Transition(entered_unseen)],
        &[
            "14:03:07.123456  #3    127.0.0.1:39709 → :7878            SYN_RECV → ESTABLISHED           -  -  ECONNRESET",
        ],
    );
    let hostile = Transition {
        subject: Subject {
            comm: Some(Comm::from("\x1b[31m\u{9b}1m\n")),
            ..seen.subject.clone()
        },
        ..seen
    };
    check(
        &[Line::Transition(hostile)],
        &[
            "14:03:07.123456  #3    127.0.0.1:39709 → :7878            SYN_RECV → ESTABLISHED    23.10 µs  \\u{1b}[31m\\u{9b}1m\\n[4711]?",
        ],
    );
}

#[test]
fn a_listener_on_ipv6_is_in_brackets() {
    check(
        &[Line::Transition(samples::listen())],
        &[
            "14:03:07.123456  #1    [::]:7878                          CLOSE → LISTEN                   -  -",
        ],
    );
}

#[test]
fn a_long_tuple_shifts_only_the_columns_that_need_it() {
    let subject = Subject {
        family: 6,
        laddr: "2001:db8::1".parse().unwrap(),
        raddr: Some("2001:db8:1234:5678::2".parse().unwrap()),
        ..samples::client().subject
    };
    let connected = Transition {
        subject,
        oldstate: State::SynSent,
        ..samples::transition()
    };
    check(
        &[Line::Transition(connected)],
        &[
            "14:03:07.123456  #2    [2001:db8::1]:39709 → [2001:db8:1234:5678::2]:7878  SYN_SENT → ESTABLISHED  23.10 µs  nc[4712]",
        ],
    );
}

#[test]
fn a_late_accept_is_explained_once_below_its_verdict() {
    let lines = [
        Line::Accept(samples::late_accept()),
        Line::Connection(samples::late_connection()),
    ];
    check(
        &lines,
        &[
            "14:03:07.123456  #3    127.0.0.1:39709 → :7878            accept() returned to server[4711] after 5.000 ms, 2 still queued",
            "14:03:07.123456  #3    127.0.0.1:39709 → :7878            queued: the kernel finished the handshake 5.003 s before accept() returned to server[4711]",
            "                       late because server[4711] was blocked 4.900 s in fsync() (ext4_sync_file ←",
            "                       save_state ← handle_request), 100.0 ms waiting for a CPU; the other",
            "                       acceptor, worker[4713], was waiting for work",
            "14:03:07.123456  #3    127.0.0.1:39709 → :7878            ended: open for 5.103 s, closed here first, 18 B out, 0 B in, rtt 32.00 µs",
        ],
    );
    check(
        &[Line::Connection(Connection {
            verdict: Some(Verdict::NeverAccepted),
            reason: Some("still queued when the trace ended".to_owned()),
            accepted_mono_ns: None,
            ..samples::late_connection()
        })],
        &[
            "14:03:07.123456  #3    127.0.0.1:39709 → :7878            never accepted: still queued when the trace ended",
            "                       late because server[4711] was blocked 4.900 s in fsync() (ext4_sync_file ←",
            "                       save_state ← handle_request), 100.0 ms waiting for a CPU; the other",
            "                       acceptor, worker[4713], was waiting for work",
        ],
    );
}

#[test]
fn a_histogram_shows_the_reasons_of_long_waits() {
    check(
        &[Line::Histogram(samples::histogram())],
        &[
            "14:03:07.123456  server  :7878   3 connections, in the accept queue p50 30.72 µs p99 5.000 ms max 5.000 ms, 2 queued, 1 awaited; 1 connection waited long: 3.000 ms waiting for a lock, 2.000 ms waiting for a CPU",
        ],
    );
}

#[test]
fn a_verdict_is_shown_once() {
    let at_accept = [
        Line::Accept(samples::accept_with_verdict()),
        Line::Connection(samples::connection()),
    ];
    check(
        &at_accept,
        &[
            "14:03:07.123456  #3    127.0.0.1:39709 → :7878            accept() returned to server[4711] after 5.000 ms, 2 still queued",
            "14:03:07.123456  #3    127.0.0.1:39709 → :7878            queued: the kernel finished the handshake 5.003 s before accept() returned to server[4711]",
            "14:03:07.123456  #3    127.0.0.1:39709 → :7878            ended: open for 5.103 s, closed here first, 18 B out, 0 B in, rtt 32.00 µs",
        ],
    );
    let at_the_end = [
        Line::Accept(samples::accept()),
        Line::Connection(samples::connection()),
    ];
    check(
        &at_the_end,
        &[
            "14:03:07.123456  #3    127.0.0.1:39709 → :7878            accept() returned to server[4711] after 5.000 ms, 2 still queued",
            "14:03:07.123456  #3    127.0.0.1:39709 → :7878            queued: the kernel finished the handshake 5.003 s before accept() returned to server[4711]",
            "14:03:07.123456  #3    127.0.0.1:39709 → :7878            ended: open for 5.103 s, closed here first, 18 B out, 0 B in, rtt 32.00 µs",
        ],
    );
}

#[test]
fn a_verdict_that_changes_after_accept_is_shown_again() {
    let changed = Connection {
        subject: samples::server(),
        ..samples::unknown()
    };
    let text = written(
        PLAIN,
        &[
            Line::Accept(samples::accept_with_verdict()),
            Line::Connection(changed),
        ],
    );
    assert!(
        text.ends_with(
            "unknown: the trace began after the connection did  ECONNRESET  \
             incomplete: the trace began later, or lost events\n"
        ),
        "{text}"
    );
}

/// The client is unknown, so the local address is first.
#[test]
fn an_incomplete_connection_is_shown_as_incomplete() {
    check(
        &[Line::Connection(samples::unknown())],
        &[
            "14:03:07.123456  #3    127.0.0.1:7878 → 127.0.0.1:39709   unknown: the trace began after the connection did  ECONNRESET  incomplete: the trace began later, or lost events",
        ],
    );
}

#[test]
fn a_failed_accept_is_shown_unless_it_is_routine() {
    check(
        &[Line::Accept(samples::failed_accept("EMFILE"))],
        &[
            "14:03:07.123456  #1    127.0.0.1:7878                     accept() failed for server[4711]: EMFILE after 3.100 µs",
        ],
    );
    let routine = ["EAGAIN", "EWOULDBLOCK", "ERESTARTSYS"];
    let routine = routine.map(|errno| Line::Accept(samples::failed_accept(errno)));
    check(&routine, &[]);
    assert_eq!(written(VERBOSE, &routine).lines().count(), 3);
}

#[test]
fn repeated_failures_are_shown_once_a_second() {
    let failed = |ms: u64, errno| {
        let x = samples::failed_accept(errno);
        Line::Accept(Accept {
            mono_ns: x.mono_ns + ms * 1_000_000,
            ..x
        })
    };
    let mut lines: Vec<_> = (0..25).map(|n| failed(100 * n, "EMFILE")).collect();
    lines.insert(3, failed(250, "ECONNABORTED"));
    lines.push(Line::Accept(samples::accept()));
    let shown = |style, lines: &[Line]| {
        let text = written(style, lines);
        let shown = text.lines().filter(|it| it.contains("failed for"));
        let shown = shown.map(|it| it.split("accept() ").nth(1).unwrap().to_owned());
        shown.collect::<Vec<_>>()
    };
    assert_eq!(
        shown(PLAIN, &lines),
        [
            "failed for server[4711]: EMFILE after 3.100 µs",
            "failed for server[4711]: ECONNABORTED after 3.100 µs",
            "failed for server[4711]: EMFILE, 10 times more",
            "failed for server[4711]: EMFILE, 10 times more",
            "failed for server[4711]: EMFILE, 4 times more",
        ]
    );
    assert_eq!(shown(VERBOSE, &lines).len(), 26);
    // The end of the trace reports the remaining failures.
    lines.pop();
    lines.push(Line::Summary(samples::summary()));
    assert_eq!(
        shown(PLAIN, &lines).last().unwrap(),
        "failed for server[4711]: EMFILE, 4 times more"
    );
}

#[test]
fn a_clients_connection_shows_how_it_ended() {
    let client = samples::client();
    check(
        &[Line::Connection(client.clone())],
        &[
            "14:03:07.123456  #2    127.0.0.1:39709 → 127.0.0.1:7878   ended: connected in 45.20 µs, open for 5.103 s, closed here first, 18 B out, 0 B in, rtt 32.00 µs",
        ],
    );
    let open = Connection {
        closed_mono_ns: None,
        state: State::FinWait2,
        ending: Ending::default(),
        ..client.clone()
    };
    check(
        &[Line::Connection(open)],
        &[
            "14:03:07.123456  #2    127.0.0.1:39709 → 127.0.0.1:7878   still FIN_WAIT2 at the end of the trace: connected in 45.20 µs, open for 5.103 s",
        ],
    );
    let refused = Connection {
        syn_mono_ns: Some(client.mono_ns - 45_200),
        established_mono_ns: None,
        handshake_ns: None,
        error: Some("ECONNREFUSED".into()),
        ending: Ending {
            ended: Some(Ended::Refused),
            ..Ending::default()
        },
        ..client
    };
    check(
        &[Line::Connection(refused)],
        &[
            "14:03:07.123456  #2    127.0.0.1:39709 → 127.0.0.1:7878   ended: not connected after 45.20 µs, refused  ECONNREFUSED",
        ],
    );
}

#[test]
fn a_lost_line_shows_how_many_events_were_lost_and_why() {
    check(
        &[Line::Lost(samples::lost())],
        &[
            "14:03:07.123456  LOST 1234 events of inet_sock_set_state: the ring buffer was full, what is open now is incomplete",
        ],
    );
    let calls = Lost {
        hook: Hook::InetCskAccept,
        why: Why::TooManyCalls,
        count: 1,
        ..samples::lost()
    };
    check(
        &[Line::Lost(calls)],
        &[
            "14:03:07.123456  LOST 1 call of accept(): too many were in flight, what is open now is incomplete",
        ],
    );
}

#[test]
fn verbose_adds_ids_context_and_evidence() {
    let transition = written(VERBOSE, &[Line::Transition(samples::transition())]);
    assert!(
        transition.ends_with("  (softirq on cpu 1)  (sk:11)  (net:[4026531840])\n"),
        "{transition}"
    );
    let mut contained = samples::transition();
    contained.subject.container = Some("4f66ad9a0b2e8b3c".into());
    let contained = written(VERBOSE, &[Line::Transition(contained)]);
    assert!(
        contained.ends_with("  (net:[4026531840])  (container 4f66ad9a0b2e)\n"),
        "{contained}"
    );
    let mut named = samples::transition();
    let names = Container {
        name: Some("app".into()),
        pod: Some("web-0".into()),
        namespace: Some("shop".into()),
        ..Container::new("4f66ad9a0b2e8b3c")
    };
    named.subject.set_container(&names);
    let named = written(VERBOSE, &[Line::Transition(named)]);
    assert!(
        named.ends_with("  (container 4f66ad9a0b2e app)  (pod web-0.shop)\n"),
        "{named}"
    );
    let connection = written(VERBOSE, &[Line::Connection(samples::connection())]);
    assert!(connection.contains("(evidence: "), "{connection}");
}

/// Colour codes are the only difference.
#[test]
fn colours_change_no_character() {
    let style = Style {
        color: true,
        ..PLAIN
    };
    let mut colored = written(style, &samples::all());
    assert!(colored.contains("\x1b[33mqueued\x1b[0m"));
    while let Some(from) = colored.find('\x1b') {
        let to = from + colored[from..].find('m').unwrap();
        colored.replace_range(from..=to, "");
    }
    assert_eq!(colored, written(PLAIN, &samples::all()));
}

#[test]
fn retransmitted_syns_and_resets_are_shown_but_not_retransmitted_data() {
    let lost_data = Retransmit {
        retransmitted: crate::event::Retransmitted::Data,
        ..samples::retransmit()
    };
    check(
        &[
            Line::Retransmit(samples::retransmit()),
            Line::Retransmit(lost_data),
            Line::Reset(samples::reset()),
        ],
        &[
            "14:03:07.123456  #2    127.0.0.1:39709 → 127.0.0.1:7878   SYN sent again, 2 so far            nc[4712]",
            "14:03:07.123456  #2    127.0.0.1:39709 → 127.0.0.1:7878   RST sent: TCP_ABORT_ON_CLOSE        nc[4712]",
        ],
    );
}

#[test]
fn an_end_that_is_not_orderly_is_shown_with_who_closed_first() {
    let aborted = Connection {
        ending: Ending {
            ended: Some(Ended::Aborted),
            closed_first: Some(ClosedFirst::Remote),
            unread_bytes: Some(7),
            retransmits: Some(2),
            ..samples::ending()
        },
        ..samples::client()
    };
    check(
        &[Line::Connection(aborted)],
        &[
            "14:03:07.123456  #2    127.0.0.1:39709 → 127.0.0.1:7878   ended: connected in 45.20 µs, open for 5.103 s, closed by the peer first, aborted by its process, 18 B out, 0 B in, 7 B unread, 2 retransmitted, rtt 32.00 µs",
        ],
    );
    let timed_out = Connection {
        handshake_ns: None,
        established_mono_ns: None,
        ending: Ending {
            ended: Some(Ended::Timeout),
            syn_retransmits: Some(6),
            ..Ending::default()
        },
        ..samples::client()
    };
    check(
        &[Line::Connection(timed_out)],
        &[
            "14:03:07.123456  #2    127.0.0.1:39709 → 127.0.0.1:7878   ended: not connected after 5.103 s, SYN sent again 6×, timed out",
        ],
    );
}

/// The line of a connection that was reset in the accept queue comes only when accept() returns it.
#[test]
fn open_time_ends_at_the_close_not_at_the_line() {
    let line = samples::client();
    let since = line.established_mono_ns.unwrap();
    let reset = Connection {
        closed_mono_ns: Some(since + 100_300_000),
        mono_ns: since + 601_500_000,
        ..line
    };
    let text = ending::Ending(&reset).to_string();
    assert!(text.contains("open for 100.3 ms"), "{text}");
}

/// The SYN time of a client with TCP_FASTOPEN_CONNECT is estimated from its round trip.
#[test]
fn an_estimated_handshake_is_marked() {
    let estimated = Connection {
        syn_source: Some(crate::fields::Source::Srtt),
        ..samples::client()
    };
    let text = ending::Ending(&estimated).to_string();
    assert!(text.contains("connected in ≈ 45.20 µs"), "{text}");
}

#[test]
fn a_bucket_is_distinguished_from_its_socket() {
    let closing = Transition {
        oldstate: State::FinWait2,
        newstate: State::Close,
        in_state_ns: Some(8_583),
        bucket: Some(State::FinWait2),
        subject: samples::client().subject,
        ..samples::transition()
    };
    let open = TimeWait {
        bucket_end: None,
        ..samples::time_wait()
    };
    check(
        &[
            Line::Transition(closing),
            Line::TimeWait(samples::time_wait()),
            Line::TimeWait(open),
        ],
        &[
            "14:03:07.123456  #2    127.0.0.1:39709 → 127.0.0.1:7878   FIN_WAIT2 → CLOSE         8.583 µs  nc[4712]  (the socket is gone, FIN_WAIT2 goes on without it)",
            "14:03:07.123456  #2    127.0.0.1:39709 → 127.0.0.1:7878   TIME_WAIT expired: FIN_WAIT2 for 500.0 ms, TIME_WAIT for 60.01 s",
        ],
    );
}

#[test]
fn only_listeners_are_shown_of_preexisting_sockets() {
    let connection = Preexisting {
        subject: samples::client().subject,
        state: State::Established,
        backlog_len: None,
        backlog_max: None,
        ..samples::preexisting()
    };
    check(
        &[
            Line::Preexisting(samples::preexisting()),
            Line::Preexisting(connection),
        ],
        &[
            "14:03:07.123456  #1    127.0.0.1:7878                     in LISTEN before                    server[4711]  (2 queued)",
        ],
    );
}

#[test]
fn a_table_replaces_the_log() {
    let fields = ["ts", "conn", "laddr", "verdict", "accept_queue_ns"].map(str::to_owned);
    let columns = crate::sink::columns::Columns::of(&fields, &[]);
    let lines = [
        Line::Session(samples::session()),
        Line::Transition(samples::transition()),
        Line::Accept(Accept {
            verdict: Some(Verdict::Queued),
            ..samples::accept()
        }),
        Line::Lost(samples::lost()),
        Line::Connection(samples::client()),
    ];
    let text = samples::all_written(&lines, |out| {
        Box::new(Text::new(out, samples::clock(), PLAIN).with_columns(columns))
    });
    let rows: Vec<&str> = text.lines().collect();
    assert_eq!(
        rows[0],
        "TS                 CONN  LADDR            VERDICT         ACCEPT_QUEUE_NS"
    );
    assert_eq!(
        rows[1],
        "14:03:07.123456       3  127.0.0.1        queued                  5.003 s"
    );
    assert!(rows[2].contains("LOST"), "{text}");
    assert_eq!(
        rows[3],
        "14:03:07.123456       2  127.0.0.1        -                             -"
    );
    assert_eq!(rows.len(), 4);
}
