//! Recordings to make pages of, and the pages.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;
use tempfile::TempDir;
use tests::run::tcptrace;

/// Lines of one connection with both ends here, #2 and #3; its server was late to call accept().
pub const LATE_ACCEPT: &str = include_str!("../../tcptrace/tests/golden/late_accept.jsonl");
/// Events were lost, and six connections are incomplete.
pub const LOSS: &str = include_str!("../../tcptrace/tests/golden/loss.jsonl");

/// A folder for recordings and their pages.
pub struct Desk(TempDir);

impl Desk {
    pub fn new() -> Desk {
        Desk(tempfile::tempdir().expect("a folder"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Makes a page of a recording.
    pub fn report(&self, name: &str, recording: &str) -> (PathBuf, Output) {
        let file = self.path(name);
        fs::write(&file, recording).expect("room for a recording");
        report(&file)
    }

    /// The same of one that must be whole.
    pub fn page(&self, name: &str, recording: &str) -> PathBuf {
        let (page, output) = self.report(name, recording);
        assert!(output.status.success(), "{output:?}");
        page
    }
}

/// `tcptrace report FILE -o FILE.html`
pub fn report(file: &Path) -> (PathBuf, Output) {
    let page = file.with_extension("html");
    let [from, to] = [file, &page].map(|it| it.to_str().expect("a path of text"));
    let output = tcptrace(&["report", from, "-o", to]).output();
    (page.clone(), output.expect("tcptrace runs"))
}

/// `late_accept` with the lines changed.
pub fn changed(change: impl Fn(&mut Value)) -> String {
    let lines = LATE_ACCEPT.lines().map(|line| {
        let mut line: Value = serde_json::from_str(line).expect("JSON");
        change(&mut line);
        format!("{line}\n")
    });
    lines.collect()
}

/// Many connections like `late_accept`, both ends, as `--depth connections` has them: each 0.2 ms
/// after the one before, from another port. The number is that of ends.
pub fn many(file: &Path, ends: u64) {
    let lines = LATE_ACCEPT.lines().map(serde_json::from_str);
    let lines: Vec<Value> = lines.collect::<Result<_, _>>().expect("JSON");
    let mut out = BufWriter::new(File::create(file).expect("a file"));
    writeln!(out, "{}", lines[0]).expect("room");
    let told = |line: &&Value| line["event"] == "accept" || line["event"] == "connection";
    let of_one: Vec<&Value> = lines.iter().filter(told).collect();
    for n in 0..ends / 2 {
        for line in &of_one {
            let mut line = (*line).clone();
            for (name, value) in line.as_object_mut().expect("an object") {
                let Some(number) = value.as_u64() else {
                    continue;
                };
                *value = match name.as_str() {
                    "conn" | "peer_conn" => number + 2 * n,
                    name if name.ends_with("mono_ns") => number + n * 200_000,
                    // The client's.
                    "lport" | "rport" if number == 44070 => 1024 + n % 60_000,
                    _ => number,
                }
                .into();
            }
            writeln!(out, "{line}").expect("room");
        }
    }
    writeln!(out, "{}", lines[lines.len() - 1]).expect("room");
}
