//! Whole exports as tables. DuckDB, ClickHouse, pandas and pyarrow load them without a schema and
//! find all values.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

const LIBRARIES: [&str; 4] = ["duckdb", "clickhouse", "pandas", "pyarrow"];

/// Number of kinds of lines.
const KINDS: usize = 13;

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
