//! Rules of the project that neither rustc, Cargo nor clippy checks.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{cmd, docs, files, words};

const PACKAGES: [&str; 4] = ["tcptrace", "tcptrace-ebpf", "tests", "xtask"];

const MOST_LINES: usize = 600;

/// Split, so that this file does not break its own rule.
const MARKERS: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];

/// The first two commands that a reader types.
const COMMANDS: [&str; 2] = [
    "cargo xtask run -- --port 7878",
    "cargo xtask test --install",
];

/// Every crate in the dependencies of tcptrace-core. None of them opens a file or a socket, reads a
/// clock, or loads eBPF. The crate's clippy.toml restricts its use of std and of syscalls, of which it
/// uses the names only.
const PURE: [&str; 28] = [
    "anstyle",
    "bytes",
    "cfg_if",
    "cobs",
    "crc32fast",
    "dyn_clone",
    "foldhash",
    "hashbrown",
    "hashlink",
    "itoa",
    "memchr",
    "postcard",
    "ref_cast",
    "rustc_hash",
    "schemars",
    "serde",
    "serde_core",
    "serde_json",
    "smallvec",
    "syscalls",
    "tcptrace_core",
    "tcptrace_ebpf",
    "thiserror",
    "zerocopy",
    "zmij",
    "zstd",
    "zstd_safe",
    "zstd_sys",
];

pub fn run(root: &Path) -> Result<()> {
    let mut breaches = vec![];
    for package in PACKAGES {
        for file in files::below(&root.join(package))? {
            if file.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&file)
                    .with_context(|| format!("cannot read {}", file.display()))?;
                let path = file.strip_prefix(root)?.display().to_string();
                breaches.extend(source(&path, &text));
                breaches.extend(words::breaches(&path, &text));
            }
        }
    }
    let readme = fs::read_to_string(root.join("README.md")).context("cannot read README.md")?;
    breaches.extend(commands(&readme));
    breaches.extend(docs::links::broken(root)?);
    let tree = cmd::output(cmd::cargo(root).args([
        "tree",
        "--package=tcptrace-core",
        "--edges=normal,no-proc-macro",
        "--prefix=none",
        "--no-dedupe",
        "--format={lib}",
    ]))?;
    breaches.extend(impure(&tree)?);
    for breach in &breaches {
        println!("{breach}");
    }
    match breaches.len() {
        0 => Ok(()),
        n => bail!(
            "{n} breaches of the rules in xtask/src/tidy.rs, xtask/src/words.rs and xtask/src/docs/links.rs"
        ),
    }
}

/// Reports files that are too long, and postponed work.
fn source(path: &str, text: &str) -> Vec<String> {
    let lines = text.lines().count();
    let long = (lines > MOST_LINES)
        .then(|| format!("{path}:{lines}: longer than {MOST_LINES} lines: split it by meaning"));
    let put_off = text.lines().zip(1..).flat_map(|(line, number)| {
        let markers = MARKERS.iter().filter(|&&marker| line.contains(marker));
        markers.map(move |marker| {
            format!("{path}:{number}: {marker}: do it now, or say why it is as it is")
        })
    });
    long.into_iter().chain(put_off).collect()
}

fn commands(readme: &str) -> impl Iterator<Item = String> {
    COMMANDS
        .iter()
        .filter(|&&command| !readme.contains(command))
        .map(|command| format!("README.md:1: does not name `{command}`"))
}

/// Returns an error for each crate of `tree` (one name per line) that is not in [`PURE`].
fn impure(tree: &str) -> Result<Vec<String>> {
    let crates: BTreeSet<&str> = tree.split_ascii_whitespace().collect();
    ensure!(
        crates.contains("tcptrace_core"),
        "cargo tree does not list tcptrace-core itself"
    );
    let others = crates.iter().filter(|name| !PURE.contains(name));
    Ok(others
        .map(|name| format!("tcptrace/core/Cargo.toml: {name} is not in the list of pure crates"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_file_and_put_off_work_are_breaches_at_their_lines() {
        let long = "//\n".repeat(MOST_LINES + 1);
        let breaches = source("a.rs", &long);
        assert_eq!(breaches.len(), 1);
        assert!(breaches[0].starts_with("a.rs:601: "), "{}", breaches[0]);
        assert_eq!(source("a.rs", &long[3..]), [""; 0]);

        let text = format!("fn a() {{}}\n// {} later\n", MARKERS[0]);
        let breaches = source("a.rs", &text);
        assert_eq!(breaches.len(), 1);
        assert!(breaches[0].starts_with("a.rs:2: "), "{}", breaches[0]);
    }

    #[test]
    fn the_readme_has_the_first_commands() {
        assert_eq!(commands(&COMMANDS.join("\n")).count(), 0);
        assert_eq!(commands(COMMANDS[0]).count(), 1);
    }

    #[test]
    fn a_crate_that_can_do_io_is_a_breach() -> Result<()> {
        assert_eq!(impure("tcptrace_core\nserde\nserde_core\n")?, [""; 0]);
        let breaches = impure("tcptrace_core\nserde\nlibc\ntokio\nlibc\n")?;
        assert_eq!(breaches.len(), 2, "{breaches:?}");
        assert!(breaches[0].contains(" libc "), "{breaches:?}");
        assert!(impure("").is_err());
        Ok(())
    }
}
