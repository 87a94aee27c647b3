//! Recorded traces of real connections, told again: the same lines must come of them on any
//! machine. `UPDATE=1 cargo test -p tcptrace --test golden` writes what comes of them now; read
//! the difference before you commit it.
//!
//! Each begins with a comment that says what happened. How they are recorded:
//! tests/src/recording.rs.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tcptrace::event::State;
use tcptrace::replay::Recorded;
use tcptrace::sink::text::{Style, Zone};
use tcptrace::sink::{Json, Sink, Text};
use tcptrace::story::Input;

/// Bytes that are written into a sink and read afterwards.
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
    let is_recording = |path: &PathBuf| path.extension().is_some_and(|it| it == "events");
    let mut paths: Vec<_> = entries.filter(is_recording).collect();
    paths.sort();
    assert!(paths.len() >= 12, "{} recordings", paths.len());
    paths
}

/// What comes of a file.
struct Told {
    text: String,
    json: String,
    /// What `--write` has written.
    recording: String,
}

fn told(path: &Path) -> Told {
    let name = path.display();
    let recorded = Recorded::open(path).unwrap_or_else(|error| panic!("{name}: {error}"));
    let clock = recorded.clock();
    let style = Style {
        color: false,
        verbose: true,
        explain: false,
        zone: Zone::Utc,
    };
    let [text, json, recording] = [(); 3].map(|()| Written::default());
    let mut sinks: [Box<dyn Sink>; 3] = [
        Box::new(Text::new(Box::new(text.clone()), clock, style)),
        Box::new(Json::new(Box::new(json.clone()), clock)),
        Box::new(Json::recording(Box::new(recording.clone()), clock)),
    ];
    let done = recorded.tell(&mut sinks);
    let damage = done.unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(damage.is_none(), "{name}: {damage}");
    Told {
        text: text.text(),
        json: json.text(),
        recording: recording.text(),
    }
}

#[test]
fn recorded_traces_are_told_as_ever() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut differ = vec![];
    for path in recordings() {
        let told = told(&path);
        let files = [
            ("txt", told.text),
            ("json", told.json),
            ("jsonl", told.recording),
        ];
        for (extension, told) in files {
            let path = path.with_extension(extension);
            if update {
                fs::write(&path, told).unwrap();
                continue;
            }
            let expected = fs::read_to_string(&path)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            if told != expected {
                let (mut old, mut new) = (expected.lines(), told.lines());
                let first = std::iter::from_fn(|| Some((old.next(), new.next())))
                    .enumerate()
                    .find(|(_, (old, new))| old != new);
                differ.push(format!("{}: {first:#?}", path.display()));
            }
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

/// `tcptrace replay` of what `--write` has written gives it again, and the log of that time.
#[test]
fn json_lines_are_told_again() {
    for path in recordings() {
        let expected = |extension| fs::read_to_string(path.with_extension(extension)).unwrap();
        let told = told(&path.with_extension("jsonl"));
        assert_eq!(told.recording, expected("jsonl"), "{}", path.display());
        assert_eq!(told.json, expected("json"), "{}", path.display());
        assert_eq!(told.text, expected("txt"), "{}", path.display());
    }
}

#[test]
fn every_recording_says_what_happened() {
    for path in recordings() {
        let text = fs::read_to_string(&path).unwrap();
        let words = text.lines().take_while(|line| line.starts_with('#'));
        assert!(words.count() >= 2, "{}", path.display());
    }
}

/// Reading a line and writing it gives the line.
#[test]
fn a_recording_is_read_as_it_was_written() {
    for path in recordings() {
        for line in fs::read_to_string(&path).unwrap().lines() {
            if !line.starts_with('#') {
                let input: Input = serde_json::from_str(line).unwrap();
                assert_eq!(serde_json::to_string(&input).unwrap(), line);
            }
        }
    }
}

/// No expectation is left behind when a recording is renamed.
#[test]
fn every_expectation_has_its_recording() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        assert!(path.with_extension("events").exists(), "{}", path.display());
    }
}

/// The recordings together pass through the whole diagram of RFC 9293, as the kernel draws it.
#[test]
fn every_state_is_entered_and_left() {
    let (mut entered, mut left) = (BTreeSet::new(), BTreeSet::new());
    for path in recordings() {
        for line in told(&path).json.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let state = |name: &str| serde_json::from_value::<State>(line[name].clone()).ok();
            if line["event"] == "transition" {
                entered.extend(state("newstate"));
                left.extend(state("oldstate"));
            }
        }
    }
    // Sockets are in this one for the kernel's iterators only.
    let all = State::ALL.into_iter();
    let all: BTreeSet<State> = all.filter(|&it| it != State::BoundInactive).collect();
    assert_eq!(entered, all);
    assert_eq!(left, all);
}

/// Bytes of JSON of connection `conn` and its other end.
fn json_of(name: &str, conns: [u64; 2]) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let json = fs::read_to_string(folder.join(name).with_extension("json")).unwrap();
    let is_of = |line: &&str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["conn"].as_u64().is_some_and(|it| conns.contains(&it))
    };
    json.lines().filter(is_of).map(|line| line.len() + 1).sum()
}

/// 4 KB: connect(), accept() and a RST, as the benchmark's load does, with both ends and all that
/// happens to them. With FINs and TIME_WAIT there are four lines more.
#[test]
fn a_connection_is_4_kb_of_json() {
    let reset = json_of("reset_in_queue", [2, 3]);
    assert!((2_000..=4_096).contains(&reset), "{reset} bytes");
    let closed = json_of("late_accept", [2, 3]);
    assert!((2_000..=5_400).contains(&closed), "{closed} bytes");
}

/// What JSON leaves out of a transition follows from its cause: the schema says it of each.
#[test]
fn the_schema_says_what_a_cause_means() {
    let schema = include_str!("../../docs/schema/tcptrace-2.json");
    let schema: serde_json::Value = serde_json::from_str(schema).unwrap();
    let causes = schema["$defs"]["Cause"]["oneOf"].as_array().unwrap();
    let mut met = BTreeSet::new();
    for path in recordings() {
        for line in told(&path).recording.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let Some(cause) = line["cause"].as_str() else {
                continue;
            };
            let said = causes.iter().find(|it| it["const"] == cause);
            let said = said.and_then(|it| it["description"].as_str()).unwrap();
            for name in ["function", "rfc9293"] {
                let name = line[name].as_str().unwrap();
                assert!(said.contains(name), "{name} of {cause}: {said}");
            }
            met.insert(cause.to_owned());
        }
    }
    assert!(met.len() >= 10, "{met:?}");
}
