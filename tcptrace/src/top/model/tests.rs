//! Tests of the model: lines in, view out.

use super::*;
use crate::fields::{Backlog, BlockedIn, LateReason, LateTimes, Lost, RunningIn};
use crate::sink::samples;
use crate::sink::samples::NOW;

const MS: u64 = 1_000_000;
const S: u64 = 1_000 * MS;

/// A model under test. Times are relative to the trace's start, [`NOW`].
struct Trace(Model);

impl Trace {
    /// Starts a trace with all hooks.
    fn new() -> Trace {
        Trace::with_hooks(&[
            Hook::InetSockSetState,
            Hook::InetCskAccept,
            Hook::RequestSock,
            Hook::ListenOverflow,
        ])
    }

    fn with_hooks(hooks: &[Hook]) -> Trace {
        let mut model = Model::new(10);
        model.line(&Line::Session(Session {
            hooks: hooks
                .iter()
                .map(|&hook| (hook, Some("kprobe".to_owned())))
                .collect(),
            ..samples::session()
        }));
        Trace(model)
    }

    /// Listener 1 on 127.0.0.1:7878.
    fn listen(&mut self) {
        self.0.line(&Line::Transition(Transition {
            oldstate: State::Close,
            newstate: State::Listen,
            backlog: Backlog {
                backlog_max: Some(128),
                ..Backlog::default()
            },
            subject: samples::listener(),
            ..samples::transition()
        }));
    }

    fn step(&mut self, conn: u64, at: u64, from: State, to: State) {
        self.0.line(&Line::Transition(Transition {
            mono_ns: NOW + at,
            subject: subject(conn),
            oldstate: from,
            newstate: to,
            ..samples::transition()
        }));
    }

    fn establish(&mut self, conn: u64, at: u64) {
        self.step(conn, at, State::Listen, State::SynRecv);
        self.step(conn, at, State::SynRecv, State::Established);
    }

    fn accept(&mut self, conn: u64, at: u64, wait: Option<u64>, left: u32) {
        self.0.line(&Line::Accept(Accept {
            mono_ns: NOW + at,
            subject: Subject {
                pid_source: Some(PidSource::Accept),
                ..subject(conn)
            },
            established_mono_ns: wait.map(|wait| NOW + at - wait),
            accept_queue_ns: wait,
            backlog_len: left,
            ..samples::accept()
        }));
    }

    fn lose(&mut self, at: u64) {
        self.0.line(&Line::Lost(Lost {
            mono_ns: NOW + at,
            ..samples::lost()
        }));
    }

    fn view(&mut self, at: u64) -> View {
        self.0.view(NOW + at)
    }

    /// Returns the only row.
    fn row(&mut self, at: u64) -> Row {
        let mut view = self.view(at);
        assert_eq!(view.listeners.len(), 1, "{:#?}", view.listeners);
        view.listeners.remove(0)
    }
}

fn subject(conn: u64) -> Subject {
    Subject {
        conn: Some(conn),
        rport: Some(30_000 + conn as u16),
        ..samples::server()
    }
}

fn waiting(view: &View) -> Vec<u64> {
    let conns = view.waiting.iter().map(|it| it.subject.conn.unwrap());
    conns.collect()
}

#[test]
fn queue_depth_is_arrivals_minus_accepts() {
    let mut trace = Trace::new();
    trace.listen();
    for conn in [3, 4, 5] {
        trace.establish(conn, conn * MS);
    }
    let row = trace.row(10 * MS);
    assert_eq!(row.depth, Depth::Exact(3));
    assert_eq!(row.backlog.backlog_max, Some(128));
    assert_eq!(row.key.to_string(), "127.0.0.1:7878");
    trace.accept(3, 10 * MS, Some(7 * MS), 2);
    let view = trace.view(11 * MS);
    assert_eq!(waiting(&view), [4, 5], "the longest first");
    assert_eq!(view.listeners[0].depth, Depth::Exact(2));
    assert_eq!((view.waiting_more, view.waiting_unnamed), (0, 0));
}

#[test]
fn the_queue_length_reported_by_the_kernel_overrides_the_count() {
    let mut trace = Trace::new();
    trace.listen();
    trace.establish(3, 0);
    trace.accept(3, MS, Some(MS), 7);
    assert_eq!(trace.row(MS).depth, Depth::Exact(7));
    let view = trace.view(MS);
    assert_eq!(view.waiting_unnamed, 7, "their arrival was not seen");
}

#[test]
fn the_depth_of_a_preexisting_queue_starts_at_its_length_in_the_snapshot() {
    let mut trace = Trace::new();
    trace.0.line(&Line::Preexisting(samples::preexisting()));
    trace.establish(9, MS);
    let view = trace.view(2 * MS);
    assert_eq!(view.listeners[0].depth, Depth::Exact(3));
    assert_eq!(waiting(&view), [9]);
    assert_eq!(view.waiting_unnamed, 2);
    // An older connection is accepted, whose ESTABLISHED time is unknown.
    trace.accept(2, 3 * MS, None, 2);
    let row = trace.row(3 * MS);
    assert_eq!(row.depth, Depth::Exact(2));
    assert_eq!(row.p99_ns, None, "its wait is unknown");
}

#[test]
fn the_queue_depth_of_an_unseen_listener_is_a_lower_bound_until_its_first_accept() {
    let mut trace = Trace::new();
    trace.establish(3, 0);
    let row = trace.row(MS);
    assert_eq!((row.depth, row.sockets), (Depth::AtLeast(1), 0));
    assert_eq!(row.backlog.backlog_max, None);
    assert_eq!(row.fill(), None);
    // The first accept() provides the socket's number and the queue's limit.
    trace.accept(3, MS, Some(MS), 4);
    let row = trace.row(MS);
    assert_eq!((row.depth, row.sockets), (Depth::Exact(4), 1));
    assert_eq!(row.backlog.backlog_max, Some(128));
}

#[test]
fn lost_events_make_the_queue_depth_doubtful_until_the_kernel_reports_it() {
    let mut trace = Trace::new();
    trace.listen();
    trace.establish(3, 0);
    trace.lose(MS);
    let view = trace.view(MS);
    assert_eq!(view.listeners[0].depth, Depth::Doubtful(1));
    assert_eq!(view.lost.iter().map(|(_, n)| n).sum::<u64>(), 1234);
    // The event of connection 3's accept() was lost. The accept() of connection 4 reports an empty
    // queue.
    trace.establish(4, 2 * MS);
    trace.accept(4, 3 * MS, Some(MS), 0);
    let view = trace.view(3 * MS);
    assert_eq!(view.listeners[0].depth, Depth::Exact(0));
    assert_eq!(waiting(&view), [0; 0]);
}

#[test]
fn without_an_accept_hook_the_depth_is_doubtful() {
    let mut trace = Trace::with_hooks(&[Hook::InetSockSetState]);
    trace.listen();
    trace.establish(3, 0);
    let row = trace.row(MS);
    assert_eq!(row.depth, Depth::Doubtful(1));
    assert_eq!((row.half_open, row.overflows), (None, None));
}

#[test]
fn an_accept_before_established_leaves_an_empty_queue() {
    let mut trace = Trace::new();
    trace.listen();
    trace.step(3, 0, State::Listen, State::SynRecv);
    trace.accept(3, MS, None, 0);
    trace.step(3, MS + 1, State::SynRecv, State::Established);
    let view = trace.view(2 * MS);
    assert_eq!(waiting(&view), [0; 0]);
    assert_eq!(view.listeners[0].depth, Depth::Exact(0));
}

#[test]
fn a_connection_reset_in_the_queue_stays_queued() {
    let mut trace = Trace::new();
    trace.listen();
    trace.establish(3, 0);
    trace.step(3, MS, State::Established, State::Close);
    let view = trace.view(2 * MS);
    assert_eq!(view.waiting[0].state, State::Close);
    assert_eq!(view.listeners[0].depth, Depth::Exact(1));
}

#[test]
fn a_connection_closed_by_its_process_counts_as_accepted() {
    let mut trace = Trace::new();
    trace.listen();
    trace.establish(3, 0);
    trace.0.line(&Line::Transition(Transition {
        subject: Subject {
            pid_source: Some(PidSource::Close),
            ..subject(3)
        },
        oldstate: State::Established,
        newstate: State::FinWait1,
        ..samples::transition()
    }));
    let view = trace.view(MS);
    assert_eq!(waiting(&view), [0; 0]);
    assert_eq!(view.listeners[0].depth, Depth::Exact(0));
}

#[test]
fn an_evicted_connection_still_counts_in_the_queue() {
    let mut trace = Trace::new();
    trace.listen();
    trace.establish(3, 0);
    trace.0.line(&Line::Connection(Connection {
        subject: subject(3),
        accepted_mono_ns: None,
        closed_mono_ns: None,
        state: State::Established,
        complete: false,
        ..samples::connection()
    }));
    let view = trace.view(MS);
    assert_eq!(waiting(&view), [0; 0]);
    assert_eq!(view.listeners[0].depth, Depth::Exact(1));
    assert_eq!(view.waiting_unnamed, 1);
}

#[test]
fn half_open_connections_are_counted_until_they_end() {
    let mut trace = Trace::new();
    trace.listen();
    trace.step(3, 0, State::Listen, State::NewSynRecv);
    trace.step(4, 0, State::Listen, State::NewSynRecv);
    assert_eq!(trace.row(0).half_open, Some(2));
    trace.establish(3, MS);
    trace.0.line(&Line::Connection(Connection {
        subject: subject(4),
        accepted_mono_ns: None,
        established_mono_ns: None,
        verdict: Some(Verdict::Unfinished),
        ..samples::connection()
    }));
    let row = trace.row(MS);
    assert_eq!((row.half_open, row.depth), (Some(0), Depth::Exact(1)));
}

#[test]
fn rates_and_quantiles_cover_the_window_only() {
    let mut trace = Trace::new();
    trace.listen();
    for conn in 0..100 {
        trace.establish(conn, conn * 10 * MS);
        trace.accept(conn, conn * 10 * MS + MS, Some((conn + 1) * MS / 10), 0);
    }
    let row = trace.row(S);
    assert_eq!(row.connections_per_s.round(), 100.0);
    assert_eq!(row.accepted_per_s.round(), 100.0);
    assert_eq!(row.max_ns, Some(10 * MS));
    let close = |ns: Option<u64>, to: u64| ns.unwrap().abs_diff(to) <= to / 50;
    assert!(close(row.p50_ns, 5 * MS), "{row:?}");
    assert!(close(row.p99_ns, 99 * MS / 10), "{row:?}");
    assert!(row.longest_ns.contains(&Some(10 * MS)));
    let row = trace.row(5 * S);
    assert_eq!(
        row.connections_per_s.round(),
        20.0,
        "since the start of the trace"
    );
    let row = trace.row(12 * S);
    assert_eq!((row.p99_ns, row.connections_per_s), (None, 0.0));
    assert_eq!((row.connections, row.accepted), (100, 100), "totals");
    assert!(row.longest_ns.contains(&Some(10 * MS)));
}

#[test]
fn sockets_with_the_same_address_share_a_row() {
    let mut trace = Trace::new();
    trace.listen();
    trace.0.line(&Line::Transition(Transition {
        oldstate: State::Close,
        newstate: State::Listen,
        subject: Subject {
            conn: Some(2),
            ..samples::listener()
        },
        ..samples::transition()
    }));
    trace.establish(3, 0);
    trace.establish(4, 0);
    // The reported length is that of one socket's queue.
    trace.accept(3, MS, Some(MS), 0);
    let row = trace.row(MS);
    assert_eq!(
        (row.sockets, row.depth, row.fill()),
        (2, Depth::Exact(1), None)
    );
}

#[test]
fn a_wildcard_listener_gets_the_connections_to_every_address() {
    let mut trace = Trace::new();
    trace.0.line(&Line::Transition(samples::listen()));
    trace.0.line(&Line::Transition(Transition {
        newstate: State::Listen,
        ..samples::listen()
    }));
    trace.establish(3, 0);
    let row = trace.row(MS);
    assert_eq!(row.key.to_string(), "[::]:7878");
    assert_eq!(row.depth, Depth::Exact(1));
}

#[test]
fn a_listener_known_by_its_accept_moves_to_its_own_address_when_that_is_known() {
    let mut trace = Trace::new();
    trace.establish(3, 0);
    trace.accept(3, MS, Some(MS), 1);
    trace.establish(4, 2 * MS);
    assert_eq!(trace.row(2 * MS).key.to_string(), "127.0.0.1:7878");
    trace.0.line(&Line::Preexisting(Preexisting {
        subject: Subject {
            laddr: "0.0.0.0".parse().unwrap(),
            ..samples::listener()
        },
        ..samples::preexisting()
    }));
    let row = trace.row(3 * MS);
    assert_eq!(row.key.to_string(), "0.0.0.0:7878");
    assert_eq!((row.depth, row.accepted), (Depth::Exact(2), 1));
    trace.accept(4, 4 * MS, Some(2 * MS), 1);
    let view = trace.view(5 * MS);
    assert_eq!((waiting(&view).len(), view.waiting_unnamed), (0, 1));
    assert_eq!(view.listeners.len(), 1);
}

#[test]
fn a_closed_listener_stays_in_the_view_for_ten_seconds() {
    let mut trace = Trace::new();
    trace.listen();
    trace.establish(3, 0);
    trace.0.line(&Line::Transition(Transition {
        mono_ns: NOW + MS,
        subject: samples::listener(),
        oldstate: State::Listen,
        newstate: State::Close,
        ..samples::transition()
    }));
    let row = trace.row(2 * MS);
    assert!(row.closed);
    assert_eq!(row.depth, Depth::Exact(0));
    assert_eq!(trace.view(60 * S).listeners, []);
}

#[test]
fn a_verdict_of_both_an_accept_and_a_connection_line_is_listed_once() {
    let mut trace = Trace::new();
    trace.0.line(&Line::Accept(samples::accept_with_verdict()));
    trace.0.line(&Line::Connection(samples::connection()));
    trace.0.line(&Line::Connection(samples::client()));
    let view = trace.view(MS);
    let verdicts: Vec<Verdict> = view.verdicts.iter().map(|it| it.verdict).collect();
    assert_eq!(verdicts, [Verdict::Queued]);
}

#[test]
fn entries_beyond_the_limits_are_counted() {
    let mut trace = Trace::new();
    trace.listen();
    let many = MOST_CONNECTIONS as u64 + 5;
    for conn in 0..many {
        trace.establish(10 + conn, conn);
    }
    let view = trace.view(MS);
    assert_eq!(view.listeners[0].depth, Depth::Exact(many));
    assert_eq!(view.waiting.len(), MOST_SHOWN);
    assert_eq!(view.waiting_more, many - MOST_SHOWN as u64);
    assert_eq!(view.waiting_unnamed, 0);
    for conn in 0..many {
        trace.accept(10 + conn, 2 * MS, Some(MS), (many - 1 - conn) as u32);
    }
    let view = trace.view(3 * MS);
    assert_eq!(view.listeners[0].depth, Depth::Exact(0));
    assert_eq!((view.waiting.len(), view.waiting_more), (0, 0));

    for port in 0..MOST_LISTENERS as u16 + 3 {
        trace.0.line(&Line::Preexisting(Preexisting {
            subject: Subject {
                conn: Some(100_000 + u64::from(port)),
                lport: Some(10_000 + port),
                ..samples::listener()
            },
            ..samples::preexisting()
        }));
    }
    let view = trace.view(3 * MS);
    assert_eq!((view.listeners.len(), view.left_out), (MOST_LISTENERS, 4));
}

/// At the end of a recorded trace no ended connection is still waiting.
#[test]
fn recorded_traces_end_with_the_totals_of_their_summaries() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|it| it != "trace") {
            continue;
        }
        let mut model = Model::new(10);
        let mut end_ns = 0;
        let mut summary = None;
        for line in crate::replay::Recorded::open(&path).unwrap() {
            end_ns = line.mono_ns();
            model.line(&line);
            if let Line::Summary(x) = line {
                summary = Some(x);
            }
        }
        let (view, summary) = (model.view(end_ns), summary.unwrap());
        let name = path.display();
        assert_eq!(waiting(&view), [0; 0], "{name}");
        let total = |count: fn(&Row) -> u64| view.listeners.iter().map(count).sum::<u64>();
        let of = |count: fn(&crate::fields::ListenerSummary) -> u64| {
            summary.listeners.iter().map(count).sum::<u64>()
        };
        assert_eq!(total(|it| it.accepted), of(|it| it.accepted), "{name}");
        assert_eq!(
            total(|it| it.never_accepted),
            of(|it| it.never_accepted),
            "{name}"
        );
        assert_eq!(
            total(|it| it.failed_accepts),
            of(|it| it.failed_accepts),
            "{name}"
        );
        assert_eq!(total(|it| it.half_open.unwrap_or(0)), 0, "{name}");
        let overflows = of(|it| it.overflows.unwrap_or(0));
        assert_eq!(total(|it| it.overflows.unwrap_or(0)), overflows, "{name}");
        // Every verdict of the summary is in the list.
        for (verdict, count) in summary.verdicts {
            let listed = view.verdicts.iter().filter(|it| it.verdict == verdict);
            assert!(listed.count() as u64 >= count, "{name}: {verdict:?}");
        }
        seen += 1;
    }
    assert!(seen >= 12, "{seen} recordings");
}

/// Returns the explanation of a wait with one place in which the acceptor was blocked.
fn blocked_in(reason: LateReason, syscall: &'static str) -> Option<Box<Late>> {
    Some(Box::new(Late {
        acceptor_tid: Some(4711),
        acceptor_running_ns: 0,
        acceptor_runnable_ns: 0,
        acceptor_throttled_ns: 0,
        acceptor_blocked_ns: 100,
        acceptor_unseen_ns: 0,
        acceptor_blocked_in: vec![BlockedIn {
            syscall: Some(syscall.into()),
            function: None,
            late_reason: reason,
            ns: 100,
            times: 1,
            stack: None,
            woken_by: None,
        }],
        acceptor_running_in: vec![RunningIn {
            function: Some("parse\u{1b}[m".to_owned()),
            user_mode: true,
            samples: 1,
            stack: None,
        }],
        other_acceptors: vec![],
        late_reason: reason,
        late_because: String::new(),
        times: LateTimes::default(),
    }))
}

#[test]
fn late_waits_of_the_window_are_summed_by_main_cause() {
    let mut trace = Trace::new();
    trace.listen();
    let accept = |conn: u64, at: u64, late: Option<Box<Late>>| {
        Line::Accept(Accept {
            mono_ns: NOW + at,
            subject: subject(conn),
            accept_queue_ns: Some(100 * MS),
            late,
            ..samples::accept()
        })
    };
    let fsync = || blocked_in(LateReason::Blocked, "fsync");
    trace.0.line(&accept(2, S, fsync()));
    trace.0.line(&accept(3, 5 * S, fsync()));
    trace
        .0
        .line(&accept(4, 6 * S, blocked_in(LateReason::Lock, "futex")));
    trace
        .0
        .line(&accept(5, 6 * S, blocked_in(LateReason::Running, "")));
    trace
        .0
        .line(&accept(6, 6 * S, blocked_in(LateReason::Cpu, "")));
    trace.0.line(&accept(7, 6 * S, None));
    // The line of an accepted connection repeats the explanation. That of another has it alone.
    let ended = |conn, accepted_mono_ns| {
        Line::Connection(Connection {
            mono_ns: NOW + 7 * S,
            subject: subject(conn),
            established_mono_ns: Some(NOW + 4 * S),
            accepted_mono_ns,
            late: blocked_in(LateReason::NotWoken, "epoll_wait"),
            ..samples::connection()
        })
    };
    trace.0.line(&ended(8, Some(NOW + 5 * S)));
    trace.0.line(&ended(9, None));
    let mut causes = |at: u64| -> Vec<String> {
        let view = trace.0.view(NOW + at);
        let late = view.listeners[0].late.iter();
        late.map(|(cause, ns)| format!("{cause} {}", ns / MS))
            .collect()
    };
    let others = [
        "lock futex() 100",
        "running parse\\u{1b}[m 100",
        "no CPU 100",
    ];
    let expected = [
        &["not woken epoll_wait() 3000", "blocked fsync() 200"],
        &others[..],
    ]
    .concat();
    assert_eq!(causes(8 * S), expected);
    // The first second leaves the window of ten seconds.
    let expected = [
        &["not woken epoll_wait() 3000", "blocked fsync() 100"],
        &others[..],
    ]
    .concat();
    assert_eq!(causes(12 * S), expected);
    assert!(causes(30 * S).is_empty());
}
