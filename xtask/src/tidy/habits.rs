//! Rules that hold for every file.

use super::{
    Breach,
    code::{Code, is_word},
};

const MOST_LINES: usize = 600;

/// Spelled in halves, or this file would break its own rule.
const MARKERS: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];

/// The first two commands that a reader types.
const COMMANDS: [&str; 2] = [
    "cargo xtask run -- --port 7878",
    "cargo xtask test --install",
];

pub fn readme(text: &str) -> Vec<Breach> {
    let missing = COMMANDS.iter().filter(|&&command| !text.contains(command));
    let breach = |command: &&str| Breach {
        path: "README.md".to_owned(),
        line: 1,
        what: format!("does not name `{command}`"),
    };
    missing.map(breach).collect()
}

pub fn source(code: &Code) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let mut breach = |line, what: String| {
        breaches.push(Breach {
            path: code.path.clone(),
            line,
            what,
        });
    };
    let lines: Vec<&str> = code.text.lines().collect();
    if lines.len() > MOST_LINES {
        breach(
            lines.len(),
            format!("is longer than {MOST_LINES} lines: split it by meaning"),
        );
    }
    for (index, line) in lines.iter().enumerate() {
        for marker in MARKERS.iter().filter(|&&marker| line.contains(marker)) {
            breach(
                index + 1,
                format!("{marker}: do it now, or say why it is as it is"),
            );
        }
    }
    for (line, next) in after_word(code, "dbg") {
        if next.starts_with('!') {
            breach(line, "dbg! was left behind".to_owned());
        }
    }
    // In the eBPF programs nearly every line is unsafe, for the one reason in memory.rs.
    let host = !code.path.starts_with("tcptrace-ebpf/");
    for (line, next) in after_word(code, "unsafe") {
        let claims = next.starts_with('{') || next.starts_with("impl");
        if host && claims && !is_justified(&lines, line - 1) {
            breach(
                line,
                "unsafe without a `// SAFETY:` comment above it".to_owned(),
            );
        }
    }
    breaches
}

/// Wherever `word` stands in the code: its line, and the text that follows it.
fn after_word(code: &Code, word: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < code.bare.len() {
        let length = code.bare[at..].iter().take_while(|&&c| is_word(c)).count();
        if code.bare[at..at + length].iter().copied().eq(word.chars()) {
            let rest = code.bare[at + length..].iter();
            let next = rest.skip_while(|c| c.is_whitespace()).take(4).collect();
            found.push((code.line_at(at), next));
        }
        at += length.max(1);
    }
    found
}

/// Whether a SAFETY comment stands above the statement that the line at `index` belongs to.
fn is_justified(lines: &[&str], index: usize) -> bool {
    for line in lines[..index].iter().rev().map(|line| line.trim()) {
        let comment = line.starts_with("//");
        if comment && line.contains("SAFETY:") {
            return true;
        }
        let statement_before = line.is_empty() || line.ends_with([';', '{', '}', ',']);
        if !comment && statement_before {
            return false;
        }
    }
    false
}
