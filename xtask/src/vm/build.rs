//! Static builds of what runs in a VM, which has no libraries.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::cmd;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Programs by the name that they have in a VM's /bin.
pub type Programs = BTreeMap<String, PathBuf>;

/// tcptrace and the init.
pub fn tcptrace(root: &Path) -> Result<Programs> {
    let mut programs = init(root)?;
    programs.extend(cargo(root, &["build", "--package", "tcptrace", "--bins"])?);
    Ok(programs)
}

/// The init, and tcptrace/examples/kernel.rs as `kernel`.
pub fn kernel_facts(root: &Path) -> Result<Programs> {
    let mut programs = init(root)?;
    programs.extend(cargo(
        root,
        &["build", "--package", "tcptrace", "--example", "kernel"],
    )?);
    Ok(programs)
}

/// tcptrace, the init, the scenario tests as `scenarios`, and what they start.
pub fn scenarios(root: &Path) -> Result<Programs> {
    let mut programs = tcptrace(root)?;
    programs.extend(cargo(
        root,
        &["test", "--no-run", "--package", "tests", "--test=scenarios"],
    )?);
    Ok(programs)
}

fn init(root: &Path) -> Result<Programs> {
    cargo(root, &["build", "--package", "tests", "--bin", "vm-init"])
}

/// Builds statically, and says which programs came of it.
fn cargo(root: &Path, words: &[&str]) -> Result<Programs> {
    let mut cargo = cmd::cargo(root);
    cargo
        .args(words)
        .args(["--quiet", "--release", "--target", TARGET, "--target-dir"])
        // A folder of its own: other flags would make cargo build everything anew each time.
        .arg(root.join("target/vm/build"))
        .arg("--message-format=json-render-diagnostics")
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static");
    programs(&cmd::output(&mut cargo)?)
}

/// The executables in cargo's messages, one JSON object a line.
fn programs(messages: &str) -> Result<Programs> {
    let mut programs = Programs::new();
    for message in messages.lines() {
        let message: Value =
            serde_json::from_str(message).context("cargo's messages are no JSON")?;
        if let (Some(name), Some(path)) = (
            message["target"]["name"].as_str(),
            message["executable"].as_str(),
        ) {
            programs.insert(name.to_owned(), path.into());
        }
    }
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_executables_are_taken() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"tests"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"scenarios"},"executable":"/a/deps/scenarios-1"}
{"reason":"build-finished","success":true}"#;
        let programs = programs(messages).unwrap();
        assert_eq!(programs.len(), 1);
        assert_eq!(programs["scenarios"], Path::new("/a/deps/scenarios-1"));
    }
}
