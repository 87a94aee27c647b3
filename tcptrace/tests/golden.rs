//! Golden tests: recorded traces of real connections must produce the same lines on every machine.
//! `UPDATE=1 cargo test -p tcptrace --test golden` rewrites the expected files; read the difference
//! before committing it.
//!
//! golden/README.md describes each recording. tests/src/recording.rs records them.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tcptrace::event::State;
use tcptrace::replay::Recorded;
use tcptrace::sink::text::{Style, Zone};
use tcptrace::sink::{Json, Sink, Text};

/// A buffer that a sink writes to and that can be read afterwards.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn recordings() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let entries = fs::read_dir(folder).unwrap().map(|it| it.unwrap().path());
    let is_recording = |path: &PathBuf| path.extension().is_some_and(|it| it == "trace");
    let mut paths: Vec<_> = entries.filter(is_recording).collect();
    paths.sort();
    assert!(paths.len() >= 12, "{} recordings", paths.len());
    paths
}

/// The outputs of a recording.
struct Replayed {
    text: String,
    json: String,
}

fn replay(path: &Path) -> Replayed {
    let name = path.display();
    let recorded = Recorded::open(path).unwrap_or_else(|error| panic!("{name}: {error}"));
    let clock = recorded.clock();
    let style = Style {
        color: false,
        verbose: true,
        quiet: false,
        explain: false,
        zone: Zone::Utc,
    };
    let (text, json) = (Written::default(), Written::default());
    let mut sinks: [Box<dyn Sink>; 2] = [
        Box::new(Text::new(Box::new(text.clone()), clock, style)),
        Box::new(Json::new(Box::new(json.clone()), clock)),
    ];
    let done = recorded.write_to(&mut sinks);
    let damage = done.unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(damage.is_none(), "{name}: {damage}");
    Replayed {
        text: text.text(),
        json: json.text(),
    }
}

#[test]
fn recorded_traces_match_the_expected_files() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut differ = vec![];
    for path in recordings() {
        let replayed = replay(&path);
        for (extension, text) in [("txt", replayed.text), ("jsonl", replayed.json)] {
            let path = path.with_extension(extension);
            if update {
                fs::write(&path, text).unwrap();
                continue;
            }
            let expected = fs::read_to_string(&path)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            if text != expected {
                let (mut old, mut new) = (expected.lines(), text.lines());
                let first = std::iter::from_fn(|| Some((old.next(), new.next())))
                    .enumerate()
                    .find(|(_, (old, new))| old != new);
                differ.push(format!("{}: {first:#?}", path.display()));
            }
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

#[test]
fn every_recording_is_described_in_the_readme() {
    let text = include_str!("golden/README.md");
    for path in recordings() {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let (_, words) = text
            .split_once(&format!("\n## {name}\n\n"))
            .unwrap_or_else(|| panic!("{name} is not in golden/README.md"));
        let words = words.split("\n\n").next().unwrap();
        let words: Vec<&str> = words.split_ascii_whitespace().collect();
        let words = words.join(" ");
        assert!(
            words.contains("Recorded from the scenario"),
            "{name}: {words}"
        );
    }
}

/// JSON is an export format only.
#[test]
fn json_lines_cannot_be_replayed() {
    for path in recordings() {
        let error = Recorded::open(&path.with_extension("jsonl")).err().unwrap();
        assert!(error.to_string().contains("it is JSON"), "{error}");
    }
}

/// Expected files must not stay behind when a recording is renamed.
#[test]
fn every_expected_file_has_its_recording() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|it| it != "md") {
            assert!(path.with_extension("trace").exists(), "{}", path.display());
        }
    }
}

/// The recordings together cover every state of RFC 9293's diagram, as the kernel implements it.
#[test]
fn every_state_is_entered_and_left_in_some_recording() {
    let (mut entered, mut left) = (BTreeSet::new(), BTreeSet::new());
    for path in recordings() {
        for line in replay(&path).json.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let state = |name: &str| serde_json::from_value::<State>(line[name].clone()).ok();
            if line["event"] == "transition" {
                entered.extend(state("newstate"));
                left.extend(state("oldstate"));
            }
        }
    }
    // BOUND_INACTIVE exists only in the kernel's socket iterators.
    let all = State::ALL.into_iter();
    let all: BTreeSet<State> = all.filter(|&it| it != State::BoundInactive).collect();
    assert_eq!(entered, all);
    assert_eq!(left, all);
}

/// Returns the bytes of JSON about the connections `conns`, the two ends of one.
fn json_of(name: &str, conns: [u64; 2]) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let json = fs::read_to_string(folder.join(name).with_extension("jsonl")).unwrap();
    let is_of = |line: &&str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["conn"].as_u64().is_some_and(|it| conns.contains(&it))
    };
    json.lines().filter(is_of).map(|line| line.len() + 1).sum()
}

/// Each connection takes at most 4 KB: connect(), accept() and a RST, as in the benchmark's load,
/// with both ends. FINs and TIME_WAIT add four lines.
#[test]
fn a_connection_takes_at_most_4_kb_of_json() {
    let reset = json_of("reset_in_queue", [2, 3]);
    assert!((2_000..=4_096).contains(&reset), "{reset} bytes");
    let closed = json_of("late_accept", [2, 3]);
    assert!((2_000..=5_400).contains(&closed), "{closed} bytes");
}

/// JSON omits the fields of a transition that follow from its cause. The schema describes each
/// cause.
#[test]
fn the_schema_describes_every_cause_with_its_function_and_rfc_section() {
    let schema = include_str!("../../docs/schema/tcptrace-2.json");
    let schema: serde_json::Value = serde_json::from_str(schema).unwrap();
    let causes = schema["$defs"]["Cause"]["oneOf"].as_array().unwrap();
    let mut met = BTreeSet::new();
    for path in recordings() {
        for line in Recorded::open(&path).unwrap() {
            let line = serde_json::to_value(line).unwrap();
            let Some(cause) = line["cause"].as_str() else {
                continue;
            };
            let description = causes.iter().find(|it| it["const"] == cause);
            let description = description
                .and_then(|it| it["description"].as_str())
                .unwrap();
            for name in ["function", "rfc9293"] {
                let name = line[name].as_str().unwrap();
                assert!(
                    description.contains(name),
                    "{name} of {cause}: {description}"
                );
            }
            met.insert(cause.to_owned());
        }
    }
    assert!(met.len() >= 10, "{met:?}");
}
