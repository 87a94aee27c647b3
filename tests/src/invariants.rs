//! Checks that hold for every line of every trace.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::Value;

use crate::schema::schema;
use crate::trace::{Line, Trace};

static SCHEMA: LazyLock<Validator> =
    LazyLock::new(|| jsonschema::validator_for(schema()).expect("the schema is valid"));

/// Runs all checks.
pub fn check(trace: &Trace) {
    assert!(trace.session().is("session"), "the session comes first");
    assert!(trace.summary().is("summary"), "the summary comes last");
    for line in &trace.lines {
        follows_the_schema(line);
        // No namespace has inode 0, and every event happens in a namespace.
        assert!(line.0.get("netns").is_none_or(|it| *it != 0), "{line}");
        if line.is("connection") {
            verdict_follows_from_the_times(line);
        }
    }
    every_connection_is_consistent(trace);
    the_summary_adds_up(trace);
}

pub fn follows_the_schema(line: &Line) {
    if let Err(error) = SCHEMA.validate(&line.0) {
        panic!(
            "violates the schema: {error} at {} in {line}",
            error.instance_path()
        );
    }
}

/// Recomputes the verdict from the line's own times, with code that is independent of tcptrace.
fn verdict_follows_from_the_times(line: &Line) {
    let established = line.maybe("established_mono_ns");
    let called = line.maybe("accept_called_mono_ns");
    let accepted = line.maybe("accepted_mono_ns");
    let syn = line.maybe("syn_mono_ns");
    let wait = established.zip(accepted).map(|(e, a)| a.saturating_sub(e));
    assert_eq!(line.maybe("accept_queue_ns"), wait, "the wait in {line}");
    let handshake = syn.zip(established).map(|(syn, e)| e - syn);
    assert_eq!(
        line.maybe("handshake_ns"),
        handshake,
        "the handshake in {line}"
    );
    assert!(called <= accepted || accepted.is_none(), "{line}");
    assert!(
        line["closed_mono_ns"].is_null() || line["state"] == "CLOSE",
        "{line}"
    );

    let sound = match line["verdict"].as_str() {
        None => line["side"] != "server",
        // Two CPUs can act in the same nanosecond.
        Some("queued") => established <= called && established.is_some(),
        Some("awaited") => called <= established && established <= accepted,
        Some("overlapped" | "fast_open") => accepted.is_some(),
        Some("unfinished") => established.is_none() && accepted.is_none(),
        Some("never_accepted") => established.is_some() && accepted.is_none(),
        Some("unknown") => true,
        Some(_) => false,
    };
    assert!(sound, "the verdict of {line}");
}

/// Checks that each connection has one `connection` line and no step back in time. Only its bucket's
/// lines and RSTs that the kernel sends from a closed socket follow that line.
fn every_connection_is_consistent(trace: &Trace) {
    let mut latest: HashMap<u64, u64> = HashMap::new();
    let mut entered: HashMap<u64, (&Value, u64)> = HashMap::new();
    let mut ended = HashSet::new();
    for line in &trace.lines {
        let Some(conn) = line.0.get("conn").and_then(Value::as_u64) else {
            continue;
        };
        let of_bucket = line.is("time_wait") || line.is_synthetic();
        // TIME_WAIT still answers after the socket is gone.
        let may_follow = line.is("segment") || (line.is("reset") && line["direction"] == "sent");
        assert!(
            of_bucket || may_follow || !ended.contains(&conn),
            "after the end of #{conn}: {line}"
        );
        let now = line.num("mono_ns");
        let before = latest.insert(conn, now).unwrap_or(0);
        assert!(before <= now, "#{conn} was at {before} before {line}");
        if line.is("transition") && !of_bucket {
            let since = entered.insert(conn, (&line["newstate"], now));
            if let (Some((state, since)), Some(ns)) = (since, line.maybe("in_state_ns")) {
                assert_eq!(line["oldstate"], *state, "{line}");
                assert_eq!(ns, now - since, "time in {state} in {line}");
            }
        }
        if line.is("connection") {
            ended.insert(conn);
        }
    }
    // A connection that is older than the trace and had no event has only its `preexisting` line.
    let is_old = |conn: u64| {
        let mut lines = trace
            .lines
            .iter()
            .filter(|line| line.0.get("conn") == Some(&conn.into()));
        lines.all(|line| line.is("preexisting"))
    };
    for (conn, _) in latest {
        let is_listener = |line: &&Line| line.0["conn"] == conn && line.0["side"] == "listener";
        assert!(
            ended.contains(&conn)
                || trace.lines.iter().any(|line| is_listener(&line))
                || is_old(conn),
            "no connection line for #{conn}"
        );
    }
}

fn the_summary_adds_up(trace: &Trace) {
    let summary = trace.summary();
    let events = |event| trace.lines.iter().filter(move |line| line.is(event));
    let count = |field: &str, value: Value| -> u64 {
        events("connection").filter(|it| it[field] == value).count() as u64
    };
    // At --depth histogram, ordinary connections appear only as counts.
    let counted = |side: &str, field: &str| -> u64 {
        let own = events("histogram").filter(|it| it["side"] == side);
        own.map(|it| it.num(field)).sum()
    };

    for (hook, balance) in summary["hook_counts"].as_object().expect("an object") {
        let balance = Line(balance.clone());
        let [seen, filtered, emitted, lost] =
            ["seen", "filtered", "emitted", "lost"].map(|it| balance.num(it));
        assert_eq!(seen, filtered + emitted + lost, "{hook}: {balance}");
        let reported: u64 = events("lost")
            .filter(|line| line["hook"] == hook.as_str())
            .map(|line| line.num("count"))
            .sum();
        assert_eq!(reported, lost, "{hook}: the lost lines against {balance}");
    }
    summary.shows(&[
        ("undecodable", &0),
        (
            "servers",
            &(count("side", "server".into()) + counted("server", "went_well")),
        ),
        (
            "clients",
            &(count("side", "client".into()) + counted("client", "went_well")),
        ),
        ("incomplete", &count("complete", false.into())),
    ]);

    let mut verdicts: BTreeMap<&str, u64> = BTreeMap::new();
    for line in events("connection") {
        if let Some(verdict) = line["verdict"].as_str() {
            *verdicts.entry(verdict).or_default() += 1;
        }
    }
    for (verdict, total) in summary["verdicts"].as_object().expect("an object") {
        let mut found = verdicts.remove(verdict.as_str()).unwrap_or(0);
        if let "queued" | "awaited" = verdict.as_str() {
            found += counted("server", verdict);
        }
        assert_eq!(*total, found, "verdict {verdict} in {summary}");
    }
    assert!(verdicts.is_empty(), "not in the summary: {verdicts:?}");
    let violated = &summary["verdicts"].get("violated");
    assert!(violated.is_none_or(|n| *n == 0), "violated: {summary}");
}
