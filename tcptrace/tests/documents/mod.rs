//! The command lines of README.md and of the book. The tests that parse them and those that run them
//! share this file.

use std::fs;
use std::path::{Path, PathBuf};

/// A command line of a document.
#[derive(Debug, PartialEq, Eq)]
pub struct Line {
    /// Number of its first line in the document.
    pub number: usize,
    /// The words of each program of a pipeline, without redirections, sudo, and ssh with its host.
    pub programs: Vec<Vec<String>>,
}

impl Line {
    /// Returns the words of each call of tcptrace, beginning with `tcptrace`.
    pub fn calls(&self) -> impl Iterator<Item = &[String]> {
        let programs = self.programs.iter().map(Vec::as_slice);
        programs.filter(|words| words.first().is_some_and(|it| it == "tcptrace"))
    }
}

/// Returns the pages of the book and `others`, names in the repository's folder `root`.
pub fn paths(root: &Path, others: &[&str]) -> Vec<PathBuf> {
    let entries = fs::read_dir(root.join("docs/src")).unwrap();
    let pages = entries.map(|entry| entry.unwrap().path());
    let others = others.iter().map(|name| root.join(name));
    let mut all: Vec<PathBuf> = pages.chain(others).collect();
    all.retain(|path| path.extension().is_some_and(|it| it == "md"));
    all.sort();
    all
}

/// Returns the command lines of a document. Blocks of `sh` have one command a line, unless a quotation
/// goes on; in blocks of `console` a `$` stands before each.
pub fn lines(text: &str) -> Vec<Line> {
    let mut language = None;
    let mut found = vec![];
    let mut begun: Option<(usize, String)> = None;
    for (line, number) in text.lines().zip(1..) {
        if let Some(after) = line.trim_start().strip_prefix("```") {
            assert_eq!(begun, None, "a quotation is not closed");
            language = language.is_none().then(|| after.trim().to_owned());
            continue;
        }
        let command = match (language.as_deref(), &begun) {
            (Some("sh"), _) | (Some("console"), Some(_)) => Some(line),
            (Some("console"), None) => line.strip_prefix("$ "),
            _ => None,
        };
        let Some(command) = command else { continue };
        let (number, command) = match begun.take() {
            Some((number, begin)) => (number, format!("{begin}\n{command}")),
            None => (number, command.to_owned()),
        };
        match shlex::split(&command) {
            Some(words) if words.is_empty() => {}
            Some(words) => found.push(Line {
                number,
                programs: programs(&words),
            }),
            None => begun = Some((number, command)),
        }
    }
    found
}

fn programs(words: &[String]) -> Vec<Vec<String>> {
    let parts = words.split(|word| word == "|" || word == "&&");
    let programs = parts.map(|part| {
        let redirected = |word: &String| word.starts_with('>') || word.starts_with("2>");
        let end = part.iter().position(redirected).unwrap_or(part.len());
        let begin = match part.first().map(String::as_str) {
            Some("sudo") => 1,
            Some("ssh") => 2,
            _ => 0,
        };
        part[begin.min(end)..end].to_vec()
    });
    programs.collect()
}
