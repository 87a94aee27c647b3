//! Builds the programs of a VM, and finds their libraries.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Arch, cross};
use crate::cmd;

/// Programs by their names in a VM's /bin.
pub type Programs = BTreeMap<String, PathBuf>;

/// Builds tcptrace and the init.
pub fn tcptrace(root: &Path, arch: Arch) -> Result<Programs> {
    let mut programs = init(root, arch)?;
    let words = ["build", "--package", "tcptrace", "--bins"];
    programs.extend(cargo(root, arch, &words)?);
    Ok(programs)
}

/// Builds the init, and tcptrace/examples/kernel.rs as `kernel`.
pub fn kernel_facts(root: &Path, arch: Arch) -> Result<Programs> {
    let mut programs = init(root, arch)?;
    let words = ["build", "--package", "tcptrace", "--example", "kernel"];
    programs.extend(cargo(root, arch, &words)?);
    Ok(programs)
}

/// Builds tcptrace, the init, the scenario tests as `scenarios`, and `tests-helper`.
pub fn scenarios(root: &Path, arch: Arch) -> Result<Programs> {
    let mut programs = tcptrace(root, arch)?;
    let words = ["test", "--no-run", "--package", "tests", "--test=scenarios"];
    programs.extend(cargo(root, arch, &words)?);
    Ok(programs)
}

fn init(root: &Path, arch: Arch) -> Result<Programs> {
    let words = ["build", "--package", "tests", "--bin", "vm-init"];
    cargo(root, arch, &words)
}

/// Builds with cargo. Returns the programs of that build.
fn cargo(root: &Path, arch: Arch, words: &[&str]) -> Result<Programs> {
    let mut cargo = match arch {
        Arch::X86_64 => {
            let mut cargo = cmd::cargo(root);
            cargo.args(words).arg("--release");
            cargo
        }
        Arch::Aarch64 => cross::cargo(root, words)?,
    };
    cargo.args(["--quiet", "--message-format=json-render-diagnostics"]);
    programs(&cmd::output(&mut cargo)?)
}

/// Returns the libraries of all these programs, including the dynamic loader, and their paths in the
/// VM.
pub fn libraries(arch: Arch, programs: &Programs) -> Result<BTreeMap<PathBuf, PathBuf>> {
    let cross = arch.cross_libraries();
    if !cross.is_empty() {
        let in_vm = |file: PathBuf| {
            let name = file.file_name().context("a library has a name")?;
            Ok((Path::new("/lib").join(name), file))
        };
        return cross.into_iter().map(in_vm).collect();
    }
    let listed = cmd::output(Command::new("ldd").args(programs.values()))?;
    let same = |path: PathBuf| (path.clone(), path);
    Ok(listed.lines().filter_map(library).map(same).collect())
}

/// Parses `NAME => PATH (ADDRESS)` or `PATH (ADDRESS)`. The kernel's vDSO has no path.
fn library(line: &str) -> Option<PathBuf> {
    let (file, _address) = line.trim().rsplit_once(" (")?;
    let path = file.rsplit(" => ").next()?;
    path.starts_with('/').then(|| path.into())
}

/// Returns the executables in cargo's messages, one JSON object per line.
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
    fn libraries_are_listed_by_path() {
        for (line, path) in [
            ("/home/user/tcptrace:", None),
            ("\tlinux-vdso.so.1 (0x00007ffe26ffb000)", None),
            (
                "\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f0f2b9c7000)",
                Some("/lib/x86_64-linux-gnu/libc.so.6"),
            ),
            (
                "\t/lib64/ld-linux-x86-64.so.2 (0x00007f0f2bbbd000)",
                Some("/lib64/ld-linux-x86-64.so.2"),
            ),
            ("\tstatically linked", None),
        ] {
            assert_eq!(library(line).as_deref(), path.map(Path::new), "{line}");
        }
    }

    #[test]
    fn only_executables_are_listed() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"tests"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"scenarios"},"executable":"/a/deps/scenarios-1"}
{"reason":"build-finished","success":true}"#;
        let programs = programs(messages).unwrap();
        assert_eq!(programs.len(), 1);
        assert_eq!(programs["scenarios"], Path::new("/a/deps/scenarios-1"));
    }
}
