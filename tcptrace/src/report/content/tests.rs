use std::path::Path;

use serde_json::Value;

use super::*;
use crate::replay::Recorded;
use crate::sink::samples;

/// Returns the content of the page for a recording in `tests/golden`.
fn gathered(name: &str, lines: usize) -> (Value, Value, usize) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    let recorded = Recorded::open(&path).unwrap();
    let mut content = Content::new(recorded.clock(), name.to_owned());
    for line in recorded.take(lines) {
        content.line(&line);
    }
    let finished = content.finish();
    (
        serde_json::to_value(&finished.trace).unwrap(),
        serde_json::to_value(&finished.connections).unwrap(),
        finished.diagrams.len(),
    )
}

fn cell<'a>(table: &'a Value, name: &str, row: usize) -> &'a Value {
    let column = &table["columns"][name];
    let cell = column.get("all").unwrap_or(&column["cells"][row]);
    match column["kind"] == "text" {
        true => cell
            .as_u64()
            .map_or(&Value::Null, |at| &table["texts"][at as usize]),
        false => cell,
    }
}

#[test]
fn a_connection_becomes_a_row_with_its_json_names() {
    let (trace, table, blocks) = gathered("late_accept.trace", usize::MAX);
    assert_eq!(table["rows"], 2);
    // The client's end closes first, so its row is first.
    assert_eq!(cell(&table, "conn", 0), 2);
    assert_eq!(cell(&table, "side", 1), "server");
    assert_eq!(cell(&table, "verdict", 1), "queued");
    assert_eq!(cell(&table, "accept_queue_ns", 1), 418_771_331);
    assert_eq!(cell(&table, "listener", 1), 1);
    assert_eq!(cell(&table, "complete", 1), 1);
    // The session line's time in CLOCK_MONOTONIC is 24206801828942.
    assert_eq!(
        cell(&table, "established_at", 1),
        24_206_807_959_087u64 - 24_206_801_828_942
    );
    assert_eq!(cell(&table, "cookie", 1), "136781");
    assert_eq!(trace["began_wall_ns"], "1795279683626255307");
    assert_eq!(trace["diagrams"]["conns"], serde_json::json!([[2, 3]]));
    assert_eq!(blocks, 1);
}

#[test]
fn a_connection_without_an_end_line_is_shown_as_far_as_it_was_seen() {
    // After seven lines the server is ESTABLISHED, and accept() has just returned.
    let (trace, table, _) = gathered("late_accept.trace", 7);
    assert_eq!(trace["without_end"], 2);
    assert_eq!(table["rows"], 2);
    assert_eq!(cell(&table, "has_end_line", 1), 0);
    assert_eq!(cell(&table, "complete", 1), 0);
    assert_eq!(cell(&table, "state", 1), "ESTABLISHED");
    assert_eq!(cell(&table, "verdict", 1), "queued");
    assert!(cell(&table, "ended", 1).is_null());
}

#[test]
fn a_time_wait_bucket_is_not_a_separate_connection() {
    let (trace, table, _) = gathered("time_wait_reused.trace", usize::MAX);
    assert_eq!(trace["without_end"], 0);
    let conns: Vec<&Value> = (0..4).map(|row| cell(&table, "conn", row)).collect();
    assert_eq!(table["rows"], 4, "{conns:?}");
}

#[test]
fn lost_events_are_in_the_page_with_their_counts() {
    let (trace, _, _) = gathered("loss.trace", usize::MAX);
    let lost = trace["lost"].as_array().unwrap();
    let sum: u64 = lost.iter().map(|it| it["count"].as_u64().unwrap()).sum();
    assert_eq!(sum, 10_968);
    assert_eq!(trace["summary"]["incomplete"], 12);
}

#[test]
fn a_late_accept_is_in_its_row_and_its_stack_is_in_the_page_once() {
    let frame = |function: &str, line| Frame {
        address: 0x2000,
        function: Some(function.to_owned()),
        file: Some("server.c".to_owned()),
        line,
        inlined: line.is_some(),
        ..Frame::default()
    };
    let mut content = Content::new(samples::clock(), "x".to_owned());
    content.line(&Line::Stack(Stack {
        mono_ns: samples::NOW,
        stack: 1,
        pid: 4711,
        kernel_frames: vec![Frame {
            address: 0xffff_ffff_8100_0000,
            ..Frame::default()
        }],
        user_frames: vec![frame("save", Some(3)), frame("main", None)],
    }));
    content.line(&Line::Accept(samples::late_accept()));
    content.line(&Line::Connection(samples::late_connection()));
    let finished = content.finish();
    let stacks = serde_json::to_value(&finished.stacks).unwrap();
    let expected = json!({"1": {
        "pid": 4711,
        "kernel": [["ffffffff81000000"]],
        "user": [
            ["2000", "save", null, "server.c", 3, true],
            ["2000", "main", null, "server.c"],
        ],
    }});
    assert_eq!(stacks, expected);
    let table = serde_json::to_value(&finished.connections).unwrap();
    assert_eq!(cell(&table, "late_reason", 0), "blocked");
    assert_eq!(cell(&table, "acceptor_blocked_ns", 0), 4_900_000_000u64);
    let because = cell(&table, "late_because", 0).as_str().unwrap();
    assert!(
        because.starts_with("late because server[4711]"),
        "{because}"
    );
    assert!(table["columns"].get("acceptor_blocked_in").is_none());
    // Without a `connection` line, the accept() line has the reason.
    let mut content = Content::new(samples::clock(), "x".to_owned());
    content.line(&Line::Accept(samples::late_accept()));
    let table = serde_json::to_value(content.finish().connections).unwrap();
    assert_eq!(cell(&table, "late_reason", 0), "blocked");
}
