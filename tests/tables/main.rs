//! Whole exports as tables. DuckDB, ClickHouse, pandas and pyarrow load them without a schema and
//! find all values.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

const LIBRARIES: [&str; 4] = ["duckdb", "clickhouse", "pandas", "pyarrow"];

/// Number of kinds of lines.
const KINDS: usize = 14;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

/// Returns the libraries' findings in files.
fn found(paths: &[PathBuf]) -> Value {
    // Made by `cargo xtask test --install`.
    let python = folder("target/tables/bin/python");
    let script = folder("tests/tables/load.py");
    let output = Command::new(&python).arg(script).args(paths).output();
    let output = output.unwrap_or_else(|error| {
        let python = python.display();
        panic!("{python}: {error}; `cargo xtask test --install` installs what the tests need")
    });
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Counts line by line the figures that the libraries must find in a file.
fn counted(path: &Path) -> Value {
    let text = fs::read_to_string(path).expect("an export");
    let lines = text.lines().map(serde_json::from_str);
    let lines: Vec<Value> = lines.collect::<Result<_, _>>().expect("JSON Lines");
    let mut kinds: BTreeMap<&str, [u64; 3]> = BTreeMap::new();
    for line in &lines {
        let event = line["event"].as_str().expect("a kind");
        let counts = kinds.entry(event).or_default();
        let has = |key: &str| u64::from(!line[key].is_null());
        for (count, more) in counts.iter_mut().zip([1, has("ts"), has("mono_ns")]) {
            *count += more;
        }
    }
    let of = |event| lines.iter().filter(move |line| line["event"] == event);
    let accepts = of("accept").filter(|line| !line["conn"].is_null());
    let pairs = accepts.flat_map(|accept| {
        let connections = of("connection").filter(|line| line["conn"] == accept["conn"]);
        connections.map(move |connection| (accept, connection))
    });
    let pairs: Vec<_> = pairs.collect();
    let waited = pairs
        .iter()
        .filter_map(|(_, it)| it["accept_queue_ns"].as_u64());
    let name = pairs.iter().filter_map(|(it, _)| it["comm"].as_str()).max();
    json!({
        "kinds": kinds,
        "joined": [pairs.len(), waited.sum::<u64>(), name],
        "timestamp": true,
    })
}

#[track_caller]
fn all_find_the_same(paths: &[PathBuf]) {
    let found = found(paths);
    for path in paths {
        let expected = counted(path);
        let name = path.to_str().expect("a name");
        for library in LIBRARIES {
            assert_eq!(found[name][library], expected, "{library}: {name}");
        }
    }
}

/// Loads a line of every kind, and real traces.
#[test]
fn exports_of_real_traces_load_as_tables() {
    let examples = folder("docs/schema/examples.jsonl");
    let kinds = counted(&examples)["kinds"].as_object().map(|it| it.len());
    assert_eq!(kinds, Some(KINDS));
    let golden = fs::read_dir(folder("tcptrace/tests/golden")).expect("recordings");
    let golden = golden.map(|it| it.expect("a file").path());
    let golden = golden.filter(|path| path.extension().is_some_and(|it| it == "jsonl"));
    let mut exports: Vec<PathBuf> = golden.collect();
    assert!(exports.len() >= 12, "{}", exports.len());
    exports.sort();
    exports.push(examples);
    all_find_the_same(&exports);
}

/// Longer than the sample from which the libraries infer the columns, and than one block of each.
#[test]
fn a_long_export_loads_as_a_table() {
    const TIMES: u64 = 3_000;
    let export = folder("tcptrace/tests/golden/late_accept.jsonl");
    let text = fs::read_to_string(export).expect("an export");
    let lines: Vec<&str> = text.lines().collect();
    let [session, connections @ .., summary] = &lines[..] else {
        panic!("a session and a summary");
    };
    let mut long = format!("{session}\n");
    for n in 0..TIMES {
        for line in connections {
            let mut line: Value = serde_json::from_str(line).expect("JSON");
            for key in ["conn", "peer_conn", "listener"] {
                if let Some(conn) = line[key].as_u64() {
                    line[key] = (10 * n + conn).into();
                }
            }
            long += &format!("{line}\n");
        }
    }
    long += &format!("{summary}\n");
    let file = tempfile::Builder::new().suffix(".jsonl").tempfile();
    let file = file.expect("a file");
    fs::write(&file, long).expect("a written file");

    let found = found(&[file.path().to_owned()]);
    let found = &found[file.path().to_str().expect("a name")];
    let of = |event: &str| {
        connections
            .iter()
            .filter(|it| it.contains(&format!(r#"{{"event":"{event}""#)))
            .count() as u64
    };
    for library in LIBRARIES {
        let found = &found[library];
        for event in ["transition", "accept", "connection"] {
            assert_eq!(
                found["kinds"][event][0],
                TIMES * of(event),
                "{library}: {event}"
            );
        }
        assert_eq!(found["joined"][0], TIMES, "{library}");
    }
}

/// Returns the answers of DuckDB and ClickHouse to the queries of docs/src/sql.md, which must be
/// the same.
#[track_caller]
fn answers_of_the_page(export: &str) -> Value {
    let folder_of_file = tempfile::tempdir().expect("a folder");
    fs::write(folder_of_file.path().join("tcptrace.jsonl"), export).expect("a written file");
    let output = Command::new(folder("target/tables/bin/python"))
        .args(["tests/tables/sql.py", "docs/src/sql.md"].map(folder))
        .current_dir(folder_of_file.path())
        .output()
        .expect("python");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let answers: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let sections = answers.as_object().expect("sections").keys();
    assert_eq!(sections.collect::<Vec<_>>(), ["ClickHouse", "DuckDB"]);
    assert_eq!(answers["DuckDB"], answers["ClickHouse"]);
    answers["DuckDB"].clone()
}

/// Returns the first line of a kind in the examples of the schema that satisfies `wanted`.
fn example(event: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let examples = fs::read_to_string(folder("docs/schema/examples.jsonl")).expect("examples");
    let lines = examples.lines().map(serde_json::from_str);
    let mut lines = lines.map(|line: Result<Value, _>| line.expect("JSON"));
    lines
        .find(|line| line["event"] == event && wanted(line))
        .expect("an example")
}

/// Writes some keys of a line. Null removes a key.
fn with(line: &Value, keys: Value) -> String {
    let mut line = line.clone();
    let object = line.as_object_mut().expect("a line");
    for (key, value) in keys.as_object().expect("keys") {
        match value.is_null() {
            true => drop(object.remove(key)),
            false => drop(object.insert(key.clone(), value.clone())),
        }
    }
    format!("{line}\n")
}

#[test]
fn queries_of_the_page_find_slow_listeners_late_reasons_and_overflows() {
    const MS: u64 = 1_000_000;
    let server = example("connection", |line| line["side"] == "server");
    let mut export = String::new();
    let web = |pod: &str| json!({"k8s_pod_name": pod, "k8s_namespace_name": "shop"});
    let mut connection = |port: u16, pod: &str, wait: Option<u64>, reason: Option<&str>| {
        let mut keys = web(pod);
        keys["lport"] = port.into();
        keys["accept_queue_ns"] = wait.map(|ms| ms * MS).into();
        keys["late_reason"] = reason.into();
        export += &with(&server, keys);
    };
    for ms in 1..=200 {
        connection(80, "web-0", Some(ms), (ms > 100).then_some("blocked"));
    }
    connection(80, "web-0", None, None);
    connection(443, "web-1", Some(500), Some("cpu"));
    export += &with(
        &server,
        json!({"side": "client", "lport": 80, "late_reason": null}),
    );
    let overflow = example("overflow", |_| true);
    for (port, queue, max) in [(443, "syn", 256), (80, "accept", 127), (80, "accept", 128)] {
        let keys = json!({"lport": port, "queue": queue, "dropped": "syn", "queue_max": max});
        export += &with(&overflow, keys);
    }

    assert_eq!(
        answers_of_the_page(&export),
        json!([
            [[443, "web-1", 1, 500, 500], [80, "web-0", 200, 198.01, 200]],
            [
                ["shop", "web-0", "blocked", 100, 15.05],
                ["shop", "web-1", "cpu", 1, 0.5]
            ],
            [[80, "accept", "syn", 2, 128], [443, "syn", "syn", 1, 256]],
        ])
    );
}

/// Without containers, --why and overflows, a trace lacks the keys of the queries.
#[test]
fn queries_of_the_page_answer_for_a_trace_without_their_keys() {
    let export = folder("tcptrace/tests/golden/late_accept.jsonl");
    let export = fs::read_to_string(export).expect("an export");
    let mut lines = export.lines().map(serde_json::from_str::<Value>);
    let wait = lines.find_map(|line| line.ok()?["accept_queue_ns"].as_u64());
    let answers = answers_of_the_page(&export);
    let [waits, reasons, overflows] = [0, 1, 2].map(|n| answers[n].as_array().expect("rows"));
    assert_eq!((waits.len(), reasons.len(), overflows.len()), (1, 0, 0));
    assert_eq!((&waits[0][1], &waits[0][2]), (&Value::Null, &json!(1)));
    let ms = wait.expect("a wait") as f64 / 1e6;
    let found = waits[0][3].as_f64().expect("a number");
    assert!((found - ms).abs() < 0.001, "{found} {ms}");
}
