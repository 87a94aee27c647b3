//! Static builds of what runs in a VM, which has no libraries.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::cmd;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Programs by the name that they have in a VM's /bin.
pub type Programs = BTreeMap<String, PathBuf>;

/// tcptrace and the init.
pub fn tcptrace(root: &Path) -> Result<Programs> {
    let mut programs = Programs::new();
    for (package, name) in [("tcptrace", "tcptrace"), ("tests", "vm-init")] {
        cargo(root, &["build", "--package", package, "--bin", name], &[])?;
        programs.insert(name.into(), folder(root).join(name));
    }
    Ok(programs)
}

/// The same, and the scenario tests as `scenarios`.
pub fn scenarios(root: &Path) -> Result<Programs> {
    let mut programs = tcptrace(root)?;
    let messages = cargo(
        root,
        &[
            "test",
            "--no-run",
            "--package",
            "tests",
            "--test",
            "scenarios",
        ],
        &["--message-format=json"],
    )?;
    // One JSON object a line; a test program is the only artifact of kind "test".
    let tests = messages
        .lines()
        .filter(|line| line.contains(r#""kind":["test"]"#))
        .find_map(|line| line.split(r#""executable":""#).nth(1)?.split('"').next())
        .context("cargo does not say where the scenario tests are")?;
    programs.insert("scenarios".into(), tests.into());
    // The programs that the tests start lie beside them.
    let folder = folder(root);
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        if path.is_file() && path.extension().is_none() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            programs.entry(name.into_owned()).or_insert(path);
        }
    }
    Ok(programs)
}

/// A target folder of its own: other flags would make cargo build everything anew each time.
fn target(root: &Path) -> PathBuf {
    root.join("target/vm/build")
}

fn folder(root: &Path) -> PathBuf {
    target(root).join(TARGET).join("release")
}

fn cargo(root: &Path, words: &[&str], more: &[&str]) -> Result<String> {
    let mut cargo = cmd::cargo(root);
    cargo
        .args(words)
        .args(["--quiet", "--release", "--target", TARGET, "--target-dir"])
        .arg(target(root))
        .args(more)
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static");
    cmd::output(&mut cargo)
}
