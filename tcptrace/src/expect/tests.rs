//! Tests of parsing and judging expectations.

use super::*;
use crate::event::Hook;
use crate::fields::{self, Depth, LateTimes, Line, NetnsCounters, QueueCounters, Session, Summary};
use crate::sink::samples;

fn expectation(text: &str) -> Expectation {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn quantities_relations_and_values_are_parsed() {
    let it = expectation("accept_queue_p99@7878<10ms");
    assert_eq!(it.quantity, Quantity::AcceptQueue(Share::P99));
    assert_eq!(
        (it.port, it.relation, it.value),
        (Some(7878), Relation::Less, 10_000_000)
    );
    for (text, relation) in [
        ("lost<1", Relation::Less),
        ("lost <= 1", Relation::AtMost),
        ("lost>1", Relation::Greater),
        ("lost>=1", Relation::AtLeast),
        ("lost==1", Relation::Equal),
        (" lost != 1 ", Relation::Other),
    ] {
        let it = expectation(text);
        assert_eq!((it.relation, it.value), (relation, 1), "{text}");
    }
    for (text, ns) in [
        ("950ns", 950),
        ("1.5ms", 1_500_000),
        ("20us", 20_000),
        ("20µs", 20_000),
        ("0.25 s", 250_000_000),
        ("2m", 120_000_000_000),
        ("0", 0),
    ] {
        let it = expectation(&format!("handshake_max<{text}"));
        assert_eq!(it.value, ns, "{text}");
    }
    for (name, quantity) in Quantity::all() {
        let value = if quantity.is_time() { "1s" } else { "1" };
        assert_eq!(expectation(&format!("{name}=={value}")).quantity, quantity);
    }
}

#[test]
fn a_parse_error_names_the_faulty_part() {
    for (text, expected) in [
        ("", "a quantity, <"),
        ("accepted", "a quantity, <"),
        ("accepted=3", "the relations are"),
        ("accepted=>3", "the relations are"),
        ("<3", "'' is no quantity; there are accept_queue_p50, "),
        ("accept_queue_p98<1ms", "there are accept_queue_p50, "),
        ("acepted==0", "never_accepted, unfinished"),
        ("accepted@http==0", "'http' is no port"),
        ("accepted@0==0", "'0' is no port"),
        ("accepted@70000==0", "'70000' is no port"),
        ("lost@80==0", "lost==0"),
        (
            "accept_queue_p99<10",
            "'10' is no time: accept_queue_p99 wants one with a unit",
        ),
        ("accept_queue_p99<", "'' is no time"),
        ("accept_queue_p99<1.2.3ms", "'1.2.3ms' is no time"),
        ("accept_queue_p99<-1ms", "'-1ms' is no time"),
        ("accepted<3ms", "'3ms' is no number: accepted is a count"),
        ("accepted<-1", "'-1' is no number"),
    ] {
        let error = text.parse::<Expectation>().unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

/// Judges `text` by a trace with these hooks, depth and lines. The trace lost no events.
fn judged(
    text: &str,
    hooks: &[Hook],
    depth: Depth,
    lines: &[Line],
    end: Option<Summary>,
) -> Judgement {
    let expectation = expectation(text);
    let mut measured = Measured::new(std::slice::from_ref(&expectation));
    measured.line(&Line::Session(Session {
        hooks: hooks
            .iter()
            .map(|&hook| (hook, Some("kprobe".to_owned())))
            .collect(),
        depth,
        ..samples::session()
    }));
    lines.iter().for_each(|line| measured.line(line));
    if let Some(summary) = end {
        measured.line(&Line::Summary(summary));
    }
    expectation.judge(&measured)
}

/// The sample lines of events and connections, without those about the trace itself.
fn sampled() -> Vec<Line> {
    let of_the_trace = |line: &Line| {
        matches!(
            line,
            Line::Session(_)
                | Line::Histogram(_)
                | Line::Stack(_)
                | Line::Lost(_)
                | Line::Summary(_)
        )
    };
    let lines = samples::all().into_iter();
    lines.filter(|line| !of_the_trace(line)).collect()
}

fn end() -> Summary {
    Summary {
        hook_counts: [].into(),
        listeners: vec![],
        ..samples::summary()
    }
}

/// Judges `text` by all sample lines, with all hooks.
fn judge(text: &str) -> Judgement {
    judged(text, &Hook::ALL, Depth::Events, &sampled(), Some(end()))
}

#[test]
fn every_relation_compares_with_the_measured_value() {
    // The samples have exactly one queued connection.
    for (met, texts) in [
        (
            true,
            [
                "queued<2",
                "queued<=1",
                "queued==1",
                "queued>=1",
                "queued>0",
                "queued!=2",
            ],
        ),
        (
            false,
            [
                "queued<1",
                "queued<=0",
                "queued==2",
                "queued>=2",
                "queued>1",
                "queued!=1",
            ],
        ),
    ] {
        for text in texts {
            let judgement = judge(text);
            assert_eq!(judgement.met, met, "{judgement:?}");
            let word = if met { "holds" } else { "NOT MET" };
            assert_eq!(judgement.text, format!("expected {text}: {word}, 1"));
        }
    }
}

#[test]
fn every_time_and_count_can_be_judged() {
    for (text, value) in [
        ("accept_queue_p50<6s", "5.003 s"),
        ("accept_queue_p99<6s", "5.003 s"),
        ("accept_queue_max@7878<6s", "5.003 s"),
        ("handshake_max<1ms", "45.20 µs"),
        ("handshake_max@7878<1ms", "45.20 µs"),
        ("connections==2", "2"),
        ("servers==1", "1"),
        ("clients==1", "1"),
        ("clients@7878==1", "1"),
        ("accepted==1", "1"),
        ("queued@7878==1", "1"),
        ("unknown==1", "1"),
        ("never_accepted==0", "0"),
        ("overflows==1", "1"),
        ("half_open_failed==0", "0"),
        ("failed_accepts==1", "1"),
        ("retransmits==1", "1"),
        ("resets==1", "1"),
        ("incomplete==1", "1"),
        ("lost==0", "0"),
        ("queued@80==0", "0"),
        ("late_connections==1", "1"),
        ("late_blocked<5s", "4.900 s"),
        ("late_cpu@7878<=100ms", "100.0 ms"),
        ("late_lock==0", "0 ns"),
        ("late_blocked@80==0", "0 ns"),
    ] {
        let judgement = judged(text, &Hook::ALL, Depth::Events, &sampled(), Some(end()));
        assert_eq!(judgement.text, format!("expected {text}: holds, {value}"));
    }
}

#[test]
fn a_condition_on_an_unobserved_value_is_not_met() {
    use Depth::{Connections, Events};
    let state = [Hook::InetSockSetState];
    let most = [Hook::InetSockSetState, Hook::InetCskAccept];
    for (text, hooks, depth, reason) in [
        (
            "accept_queue_p99<1h",
            &most[..],
            Events,
            "no accept-queue wait was measured",
        ),
        (
            "handshake_p99<1h",
            &most,
            Events,
            "no handshake was measured",
        ),
        (
            "never_accepted==0",
            &state,
            Events,
            "no hook of this trace sees accept()",
        ),
        (
            "accepted==0",
            &state,
            Events,
            "no hook of this trace sees accept()",
        ),
        (
            "half_open_failed==0",
            &most,
            Connections,
            "cannot be seen on this kernel",
        ),
        (
            "resets==0",
            &most,
            Connections,
            "are not reported one by one at this --depth",
        ),
        (
            "retransmits==0",
            &most,
            Connections,
            "are not reported one by one at this --depth",
        ),
        (
            "unfinished==0",
            &most,
            Events,
            "except where a SYN-ACK was sent again",
        ),
    ] {
        let judgement = judged(text, hooks, depth, &[], Some(end()));
        assert!(!judgement.met, "{judgement:?}");
        assert!(
            judgement.text.contains(": NOT MET, not known: "),
            "{judgement:?}"
        );
        assert!(judgement.text.contains(reason), "{judgement:?}");
    }
    let cut_off = judged("accepted==0", &Hook::ALL, Depth::Events, &[], None);
    assert!(
        !cut_off.met && cut_off.text.contains("no end"),
        "{cut_off:?}"
    );
}

/// Judges an expectation about overflows by the rise of the counters of two namespaces, without a
/// hook that sees overflows.
fn by_counters(text: &str, filtered: bool, rises: [(Option<u64>, Option<u64>); 2]) -> Judgement {
    let queues = |listen_overflows| QueueCounters {
        listen_overflows,
        ..QueueCounters::default()
    };
    let counters = rises.map(|(at_least, at_most)| NetnsCounters {
        netns: 1,
        at_least: at_least.map(queues),
        at_most: at_most.map(queues),
        likely_listener: None,
    });
    let expectation = expectation(text);
    let mut measured = Measured::new(std::slice::from_ref(&expectation));
    let session = samples::session();
    measured.line(&Line::Session(Session {
        filters: match filtered {
            true => session.filters.clone(),
            false => [].into(),
        },
        ..session
    }));
    measured.line(&Line::Summary(Summary {
        netns_counters: counters.into(),
        ..end()
    }));
    expectation.judge(&measured)
}

#[test]
fn namespace_counters_bound_overflows_when_no_hook_sees_them() {
    let none = (Some(0), Some(0));
    let some = (Some(3), Some(5));
    for (text, filtered, rises, expected) in [
        ("overflows==0", false, [none, none], "holds, 0"),
        ("overflows>=3", false, [none, some], "holds, at most 5"),
        ("overflows<=5", false, [some, none], "holds, at most 5"),
        ("overflows==0", false, [some, none], "NOT MET, at most 5"),
        ("overflows>3", false, [some, none], "NOT MET, not known: "),
        (
            "overflows<9",
            false,
            [some, (Some(0), None)],
            "NOT MET, not known: ",
        ),
        (
            "overflows>0",
            false,
            [some, (None, None)],
            "holds, at least 3",
        ),
        // The counters may include listeners that are not traced.
        ("overflows>0", true, [some, none], "NOT MET, not known: "),
        (
            "overflows@80>0",
            false,
            [some, none],
            "NOT MET, not known: ",
        ),
        ("overflows@80==0", true, [none, none], "holds, 0"),
        ("overflows@80<=5", true, [some, none], "holds, at most 5"),
    ] {
        let judgement = by_counters(text, filtered, rises);
        assert_eq!(
            judgement.met,
            expected.starts_with("holds"),
            "{judgement:?}"
        );
        let start = format!("expected {text}: {expected}");
        assert!(judgement.text.starts_with(&start), "{judgement:?}");
    }
}

#[test]
fn a_trace_with_lost_events_decides_only_what_they_cannot_change() {
    let lossy = || Some(samples::summary());
    let judge = |text| judged(text, &Hook::ALL, Depth::Events, &sampled(), lossy());
    // The true counts and maximum can only be larger, because events were lost.
    for (text, met) in [
        ("queued>=1", true),
        ("queued<1", false),
        ("accept_queue_max>1s", true),
    ] {
        let judgement = judge(text);
        assert_eq!(judgement.met, met, "{judgement:?}");
        assert!(judgement.text.contains("at least"), "{judgement:?}");
    }
    for text in [
        "queued<100",
        "never_accepted==0",
        "accept_queue_p99<1h",
        "overflows<100",
    ] {
        let judgement = judge(text);
        assert!(!judgement.met, "{judgement:?}");
        assert!(
            judgement.text.contains("not known: 1 events were lost"),
            "{judgement:?}"
        );
    }
    assert_eq!(judge("lost==0").text, "expected lost==0: NOT MET, 1");
}

#[test]
fn a_histogram_bounds_quantiles_by_its_buckets() {
    let lines = [Line::Histogram(samples::histogram())];
    let hooks = [Hook::InetCskAccept];
    let judge = |text| judged(text, &hooks, Depth::Histogram, &lines, Some(end()));
    assert_eq!(judge("accepted==3").text, "expected accepted==3: holds, 3");
    assert!(judge("queued@7878==2").met);
    // Two of three waits are in the bucket that ends at 30.719 µs.
    let below = judge("accept_queue_p50<31us");
    assert!(below.met, "{below:?}");
    assert!(
        below
            .text
            .contains("at most 30.72 µs, as --depth histogram"),
        "{below:?}"
    );
    let within = judge("accept_queue_p50<30us");
    assert!(
        !within.met && within.text.contains("not known"),
        "{within:?}"
    );
    let above = judge("accept_queue_p50<27us");
    assert!(!above.met && !above.text.contains("not known"), "{above:?}");
    assert!(judge("accept_queue_max<=5ms").met);
    assert!(!judge("accept_queue_max<5ms").met);
}

/// The lines add up to the summary, in total and at every port.
#[test]
fn recorded_traces_add_up_to_their_summaries() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|it| it != "trace") {
            continue;
        }
        let read = || crate::replay::Recorded::open(&path).unwrap();
        let Some(Line::Summary(summary)) = read().last() else {
            panic!("no summary");
        };
        let mut expectations = vec![
            format!("servers=={}", summary.servers),
            format!("clients=={}", summary.clients),
            format!("incomplete=={}", summary.incomplete),
        ];
        for (verdict, count) in &summary.verdicts {
            expectations.push(format!("{}=={count}", verdict.name()));
        }
        for listener in &summary.listeners {
            let port = listener.lport.unwrap();
            expectations.push(format!("accepted@{port}=={}", listener.accepted));
            expectations.push(format!(
                "never_accepted@{port}=={}",
                listener.never_accepted
            ));
            expectations.push(format!(
                "failed_accepts@{port}=={}",
                listener.failed_accepts
            ));
            if let Some(n) = listener.overflows {
                expectations.push(format!("overflows@{port}=={n}"));
            }
            if let Some(ns) = listener.accept_queue_p99_ns {
                expectations.push(format!("accept_queue_p99@{port}=={ns}ns"));
            }
        }
        let expectations: Vec<Expectation> =
            expectations.iter().map(|it| expectation(it)).collect();
        let mut measured = Measured::new(&expectations);
        let lost: u64 = summary.hook_counts.values().map(|it| it.lost).sum();
        for line in read() {
            measured.line(&line);
        }
        for expectation in &expectations {
            let judgement = expectation.judge(&measured);
            let sure = judgement.met || lost > 0;
            assert!(sure, "{}: {}", path.display(), judgement.text);
        }
        seen += 1;
    }
    assert!(seen >= 12, "{seen} recordings");
}

/// Time without knowledge about an acceptor may belong to any reason.
#[test]
fn unseen_waits_are_bounds_of_every_reason() {
    let times = LateTimes {
        late_connections: 1,
        late_blocked_ns: 4_000_000,
        late_unseen_ns: 2_000_000,
        ..LateTimes::default()
    };
    let line = Line::Histogram(fields::Histogram {
        late: Some(times),
        ..samples::histogram()
    });
    let judge = |text: &str| {
        let lines = [line.clone()];
        judged(text, &Hook::ALL, Depth::Histogram, &lines, Some(end())).text
    };
    let why = "the reasons of 2.000 ms of waiting time are not known";
    for (text, result) in [
        (
            "late_blocked<7ms",
            format!("holds, at most 6.000 ms, as {why}"),
        ),
        (
            "late_blocked<5ms",
            format!("NOT MET, not known: {why}; at most 6.000 ms"),
        ),
        (
            "late_blocked<4ms",
            format!("NOT MET, at most 6.000 ms, as {why}"),
        ),
        ("late_unseen==2ms", "holds, 2.000 ms".to_owned()),
    ] {
        assert_eq!(judge(text), format!("expected {text}: {result}"));
    }
}

#[test]
fn waits_by_reason_need_why() {
    let session = Session {
        why_ns: None,
        ..samples::session()
    };
    let why = "only --why explains waits in the accept queue";
    for text in ["late_cpu<1ms", "late_connections==0"] {
        assert_eq!(expectation(text).unseen(&session).as_deref(), Some(why));
        assert_eq!(expectation(text).unseen(&samples::session()), None);
    }
}

#[test]
fn a_quantity_without_its_hook_is_unseen_for_this_reason() {
    let unseen = |text: &str, hooks: &[Hook], depth| {
        let hooks = hooks.iter().map(|&it| (it, Some("kprobe".to_owned())));
        expectation(text).unseen(&Session {
            hooks: hooks.chain([(Hook::TcpReset, None)]).collect(),
            depth,
            ..samples::session()
        })
    };
    for (text, why) in [
        (
            "overflows>0",
            "segments that meet a full queue cannot be seen on this kernel",
        ),
        (
            "half_open_failed>0",
            "half-open connections cannot be seen on this kernel",
        ),
        ("resets>0", "RSTs cannot be seen on this kernel"),
        (
            "accept_queue_p99>1ms",
            "no hook of this trace sees accept()",
        ),
    ] {
        assert_eq!(unseen(text, &[], Depth::Events).as_deref(), Some(why));
    }
    for (text, hook) in [
        ("overflows>0", Hook::ListenOverflow),
        ("half_open_failed>0", Hook::RequestSock),
        ("accept_queue_max@80>1ms", Hook::InetCskAccept),
        ("retransmits>0", Hook::TcpRetransmitSkb),
    ] {
        assert_eq!(unseen(text, &[hook], Depth::Events), None, "{text}");
    }
    for text in ["handshake_max>1ms", "connections>0", "lost>0", "unknown>0"] {
        assert_eq!(unseen(text, &[], Depth::Events), None, "{text}");
    }
    let lighter = unseen(
        "retransmits>0",
        &[Hook::TcpRetransmitSkb],
        Depth::Connections,
    );
    assert!(lighter.unwrap().ends_with("at this --depth"));
}
