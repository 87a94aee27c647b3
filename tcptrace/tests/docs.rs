//! Tests that the commands of README.md and of the book parse with the program's own command line.

mod documents;

use std::fs;
use std::path::Path;

use clap::Parser as _;
use tcptrace::cli::Cli;

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
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut parsed = 0;
    for path in documents::paths(&root, &["README.md", "CONTRIBUTING.md", "SECURITY.md"]) {
        let text = fs::read_to_string(&path).unwrap();
        for line in documents::lines(&text) {
            for words in line.calls() {
                if let Err(error) = Cli::try_parse_from(on_this_machine(words)) {
                    panic!("{}:{}: {words:?}\n{error}", path.display(), line.number);
                }
                parsed += 1;
            }
        }
    }
    assert!(parsed > 100, "{parsed} commands");
}

#[test]
fn calls_are_found_in_pipelines_and_behind_prompts() {
    let text = "```sh\ntcptrace -p 1   # a comment\nls\n\nssh host tcptrace a | sudo tcptrace b > c\n\
                duckdb \"a\nb\" | tcptrace d\n```\ntcptrace no\n```console\n$ tcptrace 'x y'\n\
                tcptrace output\n```\n";
    let lines = documents::lines(text);
    let found: Vec<(usize, String)> = lines
        .iter()
        .flat_map(|line| line.calls().map(|words| (line.number, words.join(" "))))
        .collect();
    let expected = [
        (2, "tcptrace -p 1"),
        (5, "tcptrace a"),
        (5, "tcptrace b"),
        (6, "tcptrace d"),
        (11, "tcptrace x y"),
    ];
    assert_eq!(
        found,
        expected.map(|(line, words)| (line, words.to_owned()))
    );
    assert_eq!(lines[3].programs[0], ["duckdb", "a\nb"]);
}
