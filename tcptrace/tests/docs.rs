//! Tests that the commands of README.md and of the book parse with the program's own command line.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser as _;
use tcptrace::cli::Cli;

fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let entries = fs::read_dir(root.join("docs/src")).unwrap();
    let pages = entries.map(|entry| entry.unwrap().path());
    let others = ["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(|name| root.join(name));
    let mut all: Vec<PathBuf> = pages.chain(others).collect();
    all.retain(|path| path.extension().is_some_and(|it| it == "md"));
    all.sort();
    all
}

/// Returns the words of each call of tcptrace, with the number of its line. Blocks of `sh` have one
/// command a line; in blocks of `console` a `$` stands before each.
fn commands(text: &str) -> Vec<(usize, Vec<String>)> {
    let mut language = None;
    let mut found = vec![];
    for (line, number) in text.lines().zip(1..) {
        if let Some(after) = line.trim_start().strip_prefix("```") {
            language = language.is_none().then(|| after.trim().to_owned());
            continue;
        }
        let command = match language.as_deref() {
            Some("sh") => Some(line),
            Some("console") => line.strip_prefix("$ "),
            _ => None,
        };
        let Some(command) = command else { continue };
        match shlex::split(command) {
            Some(words) => found.extend(calls(words).map(|call| (number, call))),
            None => assert!(!command.starts_with("tcptrace"), "{number}: {command}"),
        }
    }
    found
}

/// Returns the calls of tcptrace in a pipeline, without redirections.
fn calls(words: Vec<String>) -> impl Iterator<Item = Vec<String>> {
    let parts: Vec<Vec<String>> = words
        .split(|word| word == "|" || word == "&&")
        .map(|part| {
            let redirected = |word: &String| word.starts_with('>') || word.starts_with("2>");
            let end = part.iter().position(redirected).unwrap_or(part.len());
            let begin = match part.first().map(String::as_str) {
                Some("sudo") => 1,
                Some("ssh") => 2,
                _ => 0,
            };
            part[begin.min(end)..end].to_vec()
        })
        .collect();
    parts
        .into_iter()
        .filter(|part| part.first().is_some_and(|it| it == "tcptrace"))
}

/// Replaces the names of cgroups by an id, because this machine may not have them.
fn on_this_machine(words: &[String]) -> Vec<String> {
    let mut words = words.to_vec();
    for at in 1..words.len() {
        if words[at - 1] == "--cgroup" {
            words[at] = "1".to_owned();
        }
    }
    words
}

#[test]
fn every_command_of_the_documents_parses() {
    let mut parsed = 0;
    for path in documents() {
        let text = fs::read_to_string(&path).unwrap();
        for (line, words) in commands(&text) {
            if let Err(error) = Cli::try_parse_from(on_this_machine(&words)) {
                panic!("{}:{line}: {words:?}\n{error}", path.display());
            }
            parsed += 1;
        }
    }
    assert!(parsed > 100, "{parsed} commands");
}

#[test]
fn calls_are_found_in_pipelines_and_behind_prompts() {
    let text = "```sh\ntcptrace -p 1   # a comment\nls\nssh host tcptrace a | sudo tcptrace b > c\n\
                duckdb \"a\nb\"\n```\ntcptrace no\n```console\n$ tcptrace 'x y'\ntcptrace output\n```\n";
    let found = commands(text);
    let lines: Vec<(usize, String)> = found
        .into_iter()
        .map(|(line, words)| (line, words.join(" ")))
        .collect();
    let expected = [
        (2, "tcptrace -p 1"),
        (4, "tcptrace a"),
        (4, "tcptrace b"),
        (10, "tcptrace x y"),
    ];
    assert_eq!(
        lines,
        expected.map(|(line, words)| (line, words.to_owned()))
    );
}
