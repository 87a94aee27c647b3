//! Explanations and diagrams of recorded traces. `UPDATE=1 cargo test -p tcptrace --test explain`
//! rewrites the expected files; read the difference before committing it.

mod recordings;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tcptrace::diagram::text::{Look, draw};
use tcptrace::diagram::{
    Arrow, Call, CallName, Collector, Diagram, Evidence, Group, ItemKind, Keep, Kind, MarkKind,
    Place, mermaid,
};
use tcptrace::event::State;
use tcptrace::fields::{Line, Verdict};
use tcptrace::replay::Recorded;

use recordings::{recording, recordings};

fn diagrams(path: &Path, keep: Keep) -> Vec<Diagram> {
    let recorded = Recorded::open(path).unwrap();
    let mut collector = Collector::new(keep);
    let mut groups: Vec<Group> = vec![];
    for line in recorded {
        groups.extend(collector.take(&line));
    }
    groups.extend(collector.finish());
    let diagrams = groups.iter().map(|group| Diagram::of(group).unwrap());
    diagrams.collect()
}

/// Returns the connection of a recording that has exactly one.
fn only(name: &str) -> Diagram {
    let mut diagrams = diagrams(&recording(name), Keep::UntilGone);
    assert_eq!(diagrams.len(), 1, "{name}");
    diagrams.remove(0)
}

fn arrows(diagram: &Diagram) -> Vec<&Arrow> {
    let arrows = diagram.items.iter().filter_map(|item| match &item.what {
        ItemKind::Arrow(arrow) => Some(arrow),
        _ => None,
    });
    arrows.collect()
}

fn arrow(diagram: &Diagram, from: Place, kind: Kind) -> &Arrow {
    let all = arrows(diagram);
    let mut found = all.iter().filter(|it| it.from == from && it.kind == kind);
    match (found.next(), found.next()) {
        (Some(it), None) => it,
        (first, second) => panic!("not one {kind:?}: {first:?}, {second:?}"),
    }
}

fn call(diagram: &Diagram, name: CallName) -> (u64, &Call) {
    let mut calls = diagram.items.iter().filter_map(|item| match &item.what {
        ItemKind::Call(call) if call.name == name => Some((item.at_ns, call)),
        _ => None,
    });
    calls.next().unwrap()
}

fn states(diagram: &Diagram, place: Place) -> Vec<State> {
    let states = diagram.items.iter().filter_map(|item| match &item.what {
        ItemKind::State(span) if span.place == place => Some(span.state),
        _ => None,
    });
    states.collect()
}

/// Returns when an end entered a state.
fn entered(diagram: &Diagram, place: Place, state: State) -> u64 {
    let mut items = diagram.items.iter();
    let is = |what: &ItemKind| matches!(what, ItemKind::State(span) if span.place == place && span.state == state);
    items.find(|item| is(&item.what)).unwrap().at_ns
}

#[test]
fn a_queued_connection_waits_from_established_to_the_return_of_accept() {
    let diagram = only("late_accept");
    assert_eq!(diagram.conns().collect::<Vec<_>>(), [2, 3]);
    let (since_ns, wait) = diagram.wait().unwrap();
    assert_eq!(
        since_ns,
        entered(&diagram, Place::Right, State::Established)
    );
    let (called_ns, accept) = call(&diagram, CallName::Accept);
    assert_eq!(
        (accept.place, accept.until_ns),
        (Place::Right, Some(wait.until_ns))
    );
    assert!(wait.taken && since_ns < called_ns);
    assert_eq!(wait.until_ns - since_ns, 418_771_331);
    // connect() returned before accept() was called.
    let (_, connect) = call(&diagram, CallName::Connect);
    assert!(connect.until_ns.unwrap() < called_ns);
}

#[test]
fn an_awaited_connection_begins_after_the_call_of_accept() {
    let diagram = only("conversation");
    let (called_ns, accept) = call(&diagram, CallName::Accept);
    assert!(accept.begun && called_ns < diagram.zero_ns);
    assert_eq!(
        diagram.zero_ns,
        entered(&diagram, Place::Left, State::SynSent)
    );
}

#[test]
fn without_segments_arrows_are_marked_as_inferred() {
    let diagram = only("late_accept");
    assert!(!diagram.segments);
    let syn = arrow(&diagram, Place::Left, Kind::Syn);
    assert_eq!(syn.evidence, Evidence::Inferred);
    assert_eq!(syn.sent_ns, Some(diagram.zero_ns));
    // No hook sees the SYN arrive at the server.
    assert_eq!(syn.received_ns, None);
    // Two changes of state follow from the FIN, but it is one segment.
    let fin = arrow(&diagram, Place::Right, Kind::Fin);
    assert_eq!(
        fin.sent_ns,
        Some(entered(&diagram, Place::Right, State::LastAck))
    );
    assert_eq!(
        fin.received_ns,
        Some(entered(&diagram, Place::Left, State::TimeWait))
    );
}

#[test]
fn a_segment_seen_at_both_ends_is_one_arrow() {
    let diagram = only("across_namespaces");
    assert!(diagram.segments);
    let kinds: Vec<Kind> = arrows(&diagram).iter().map(|it| it.kind).collect();
    use Kind::{Ack, Fin, Syn, SynAck};
    assert_eq!(kinds, [Syn, SynAck, Ack, Fin, Fin, Ack]);
    for arrow in arrows(&diagram) {
        assert_eq!(arrow.evidence, Evidence::Seen);
        assert!(arrow.sent_ns.unwrap() < arrow.received_ns.unwrap());
    }
}

#[test]
fn segments_without_a_socket_are_matched_by_their_sequence_numbers() {
    // The peer is a script with a raw socket, so the kernel has no connection at that end.
    let diagram = only("three_segments_close");
    assert_eq!(diagram.left.subject, None);
    let syn = arrow(&diagram, Place::Left, Kind::Syn);
    let header = syn.header.unwrap();
    assert_eq!((header.seq, header.rel_seq), (1_000_000, Some(0)));
    assert!(syn.sent_ns.is_some() && syn.received_ns.is_some());
    let fins: Vec<bool> = arrows(&diagram)
        .iter()
        .filter(|it| it.from == Place::Right && it.kind == Kind::Fin)
        .map(|it| it.again)
        .collect();
    assert_eq!(fins, [false, true]);
}

#[test]
fn a_remote_end_has_no_states_and_only_the_arrows_that_the_local_end_shows() {
    let diagram = only("half_open");
    assert_eq!(diagram.left.subject, None);
    assert!(diagram.left.addr.is_some() && diagram.left.port.is_some());
    assert!(states(&diagram, Place::Left).is_empty());
    let half_open = entered(&diagram, Place::Right, State::NewSynRecv);
    let syn = arrow(&diagram, Place::Left, Kind::Syn);
    assert_eq!((syn.sent_ns, syn.received_ns), (None, Some(half_open)));
    let syn_ack = arrow(&diagram, Place::Right, Kind::SynAck);
    assert_eq!(
        (syn_ack.sent_ns, syn_ack.received_ns),
        (Some(half_open), None)
    );
}

#[test]
fn a_dropped_ack_is_marked_at_the_servers_kernel() {
    let path = recording("overflow_ack");
    let all = diagrams(&path, Keep::UntilGone);
    let unfinished = all
        .iter()
        .find(|it| it.conns().any(|conn| conn == 3))
        .unwrap();
    let verdict = unfinished.right.connection.as_ref().unwrap().verdict;
    assert_eq!(verdict, Some(Verdict::Unfinished));
    let drops = unfinished.items.iter().filter(|item| match &item.what {
        ItemKind::Mark(mark) => {
            mark.place == Place::Right && matches!(mark.kind, MarkKind::Overflow(_))
        }
        _ => false,
    });
    assert_eq!(drops.count(), 2);
    // The drop is no evidence that the client's ACK arrived at the connection.
    let ack = arrow(unfinished, Place::Left, Kind::Ack);
    assert_eq!(ack.received_ns, None);
    assert!(unfinished.wait().is_none());
}

#[test]
fn an_rst_is_seen_if_the_kernel_reports_it() {
    let refused = only("refused");
    let rst = arrow(&refused, Place::Right, Kind::Rst);
    assert_eq!(rst.evidence, Evidence::Seen);
    assert_eq!(rst.reason.as_deref(), Some("NO_SOCKET"));
    let (_, connect) = call(&refused, CallName::Connect);
    assert_eq!(connect.error.as_deref(), Some("ECONNREFUSED"));

    // A change of state and the kernel's reset event a moment later are about the same RST.
    let queued = only("reset_in_queue");
    let rst = arrow(&queued, Place::Left, Kind::Rst);
    assert_eq!(rst.evidence, Evidence::Seen);
    assert!(rst.received_ns.is_some());
}

#[test]
fn a_client_without_a_port_sends_nothing() {
    let all = diagrams(&recording("no_free_port"), Keep::UntilGone);
    let failed = all.iter().find(|it| it.conns().eq([4])).unwrap();
    assert!(arrows(failed).is_empty());
    let (_, connect) = call(failed, CallName::Connect);
    assert!(connect.until_ns.is_some());
}

#[test]
fn time_wait_continues_after_the_socket_is_freed() {
    let diagram = only("time_wait");
    let states = states(&diagram, Place::Left);
    assert_eq!(states[states.len() - 2..], [State::TimeWait, State::Close]);
    let freed = diagram.items.iter().any(|item| {
        let freed = MarkKind::SocketFreed {
            bucket: State::TimeWait,
        };
        matches!(&item.what, ItemKind::Mark(mark) if mark.kind == freed)
    });
    assert!(freed);
    // `UntilEnded` returns the connection before TIME_WAIT ends.
    let mut early = diagrams(&recording("time_wait"), Keep::UntilEnded);
    assert_eq!(early.len(), 1);
    assert!(early.remove(0).end_ns < diagram.end_ns);
}

#[test]
fn every_diagram_is_sorted_and_claims_no_more_than_was_seen() {
    for path in recordings() {
        let name = path.display();
        for diagram in diagrams(&path, Keep::UntilGone) {
            assert!(diagram.items.is_sorted_by_key(|item| item.at_ns), "{name}");
            for item in &diagram.items {
                let until = match &item.what {
                    ItemKind::State(span) => span.until_ns,
                    ItemKind::Call(call) => call.until_ns,
                    ItemKind::Wait(wait) => Some(wait.until_ns),
                    ItemKind::Arrow(arrow) => {
                        assert!(arrow.sent_ns.or(arrow.received_ns).is_some(), "{name}");
                        assert!(
                            !diagram.segments || arrow.evidence == Evidence::Seen,
                            "{name}: {arrow:?}"
                        );
                        arrow.received_ns
                    }
                    ItemKind::Mark(_) => None,
                };
                assert!(
                    until.is_none_or(|until| item.at_ns <= until),
                    "{name}: {item:?}"
                );
            }
            for place in Place::BOTH {
                let known = diagram.endpoint(place).subject.is_some();
                assert_eq!(known, !states(&diagram, place).is_empty(), "{name}");
            }
        }
    }
}

#[test]
fn a_text_diagram_fits_80_columns_also_in_ascii() {
    for path in recordings() {
        for diagram in diagrams(&path, Keep::UntilGone) {
            for ascii in [false, true] {
                let text = draw(
                    &diagram,
                    Look {
                        color: false,
                        ascii,
                    },
                );
                let widest = text.lines().map(|line| line.chars().count()).max();
                assert!(widest <= Some(80), "{}:\n{text}", path.display());
                assert!(!ascii || text.is_ascii(), "{}:\n{text}", path.display());
            }
        }
    }
}

/// A longer wait has more rows.
#[test]
fn a_longer_wait_is_drawn_longer() {
    let rows = |name: &str| {
        let text = draw(
            &only(name),
            Look {
                color: false,
                ascii: false,
            },
        );
        text.lines().filter(|line| line.contains("┊▒")).count()
    };
    let (short, middle, long) = (rows("older_listener"), rows("mptcp"), rows("late_accept"));
    assert!(short < middle && middle < long, "{short} {middle} {long}");
}

fn explain(name: &str, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tcptrace"))
        .arg("explain")
        .arg(recording(name))
        .args(args)
        .env("TZ", "UTC0")
        .output()
        .unwrap()
}

#[test]
fn explanations_match_the_expected_files() {
    let update = std::env::var_os("UPDATE").is_some();
    for name in [
        "late_accept",
        "conversation",
        "half_open",
        "overflow_ack",
        "refused",
        "reset_in_queue",
        "three_segments_close",
    ] {
        let output = explain(name, &[]);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let path = recording(name).with_extension("explain");
        if update {
            fs::write(&path, text).unwrap();
            continue;
        }
        let expected = fs::read_to_string(&path).unwrap();
        let (mut old, mut new) = (expected.lines(), text.lines());
        let first = std::iter::from_fn(|| Some((old.next(), new.next())))
            .take_while(|lines| *lines != (None, None))
            .find(|(old, new)| old != new);
        assert_eq!(first, None, "{name}");
    }
}

#[test]
fn a_connection_is_found_by_the_number_of_either_end() {
    let all = String::from_utf8(explain("loss", &[]).stdout).unwrap();
    assert!(all.matches("0 is").count() > 5);
    for end in ["2", "3"] {
        let one = String::from_utf8(explain("loss", &["--conn", end]).stdout).unwrap();
        assert_eq!(one.matches("0 is").count(), 1);
        assert!(one.starts_with("#2 → #3 "), "{one}");
    }
}

#[test]
fn an_unknown_number_is_refused_with_a_list_of_the_known_ones() {
    for (conn, what) in [("99", "has no connection 99"), ("1", "1 is a listener")] {
        let output = explain("loss", &["--conn", conn]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(
            stderr.starts_with("tcptrace: ") && stderr.contains(what),
            "{stderr}"
        );
        assert!(stderr.contains("2-11, 13-19"), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(output.stdout.is_empty());
    }
    let missing = explain("no_such_recording", &[]);
    assert_eq!(missing.status.code(), Some(2));
}

#[test]
fn a_closed_pipe_is_success() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tcptrace"))
        .arg("explain")
        .arg(recording("loss"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

/// A busy server may leave a thousand TIME_WAIT buckets per second, each for a minute.
#[test]
fn connections_held_for_time_wait_are_bounded() {
    let recorded = Recorded::open(&recording("time_wait")).unwrap();
    let lines: Vec<Line> = recorded.collect();
    let ended = |line: &Line| matches!(line, Line::Connection(_));
    let last = lines.iter().rposition(ended).unwrap();
    let mut collector = Collector::new(Keep::UntilGone);
    let mut given = vec![];
    const CONNECTIONS: u64 = 20_000;
    for n in 0..CONNECTIONS {
        for line in &lines[..=last] {
            let mut line = line.clone();
            let Some(conn) = line.subject_mut().and_then(|it| it.conn.as_mut()) else {
                continue;
            };
            *conn += 2 * n;
            match &mut line {
                Line::Accept(x) => x.peer_conn = x.peer_conn.map(|it| it + 2 * n),
                Line::Connection(x) => x.peer_conn = x.peer_conn.map(|it| it + 2 * n),
                _ => {}
            }
            given.extend(collector.take(&line));
        }
    }
    let kept = collector.finish();
    let lines: usize = kept.map(|group| group.lines.len()).sum();
    assert!(lines <= 131_072, "{lines}");
    // Connections that are released early are complete except for the end of TIME_WAIT. The oldest
    // is released first.
    assert!(given.len() > 1_000);
    assert!(given.iter().map(|it| &it.conns).is_sorted());
    for group in given {
        assert_eq!(group.lines.iter().filter(|line| ended(line)).count(), 2);
    }
}

/// Checks the syntax only. Mermaid's own output was checked by hand.
#[test]
fn mermaid_has_every_arrow_and_balanced_activations() {
    for path in recordings() {
        for diagram in diagrams(&path, Keep::UntilGone) {
            let text = mermaid::draw(&diagram);
            assert!(text.starts_with("sequenceDiagram\n"));
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            let drawn = lines.iter().filter(|line| {
                line.split_once(": ").is_some_and(|(who, _)| {
                    who.starts_with('K')
                        && who.ends_with(|c: char| c.is_ascii_digit())
                        && who.matches('K').count() == 2
                })
            });
            assert_eq!(drawn.count(), arrows(&diagram).len(), "{text}");
            for process in ["P1", "P2"] {
                let count = |word: &str| {
                    let line = format!("{word} {process}");
                    lines.iter().filter(|it| **it == line).count()
                };
                assert!(count("deactivate") <= count("activate"), "{text}");
            }
        }
    }
}
