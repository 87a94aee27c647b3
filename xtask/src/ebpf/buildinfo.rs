//! BUILDINFO, beside the committed object: what it was built from and with.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use super::toolchain::Toolchain;
use crate::cmd;

const SOURCES: &str = "tcptrace-ebpf";

/// `key: value` lines, in this order.
#[derive(Debug, PartialEq, Eq)]
pub struct BuildInfo {
    /// Keys and values that name the tools. Equal tools make equal bytes.
    tools: Vec<(String, String)>,
    pub sources_sha256: String,
    pub object_sha256: String,
    pub object_size: usize,
}

impl BuildInfo {
    pub fn new(root: &Path, toolchain: &Toolchain, object: &[u8]) -> Result<BuildInfo> {
        Ok(BuildInfo {
            tools: tools(root, toolchain)?,
            sources_sha256: sources_sha256(root)?,
            object_sha256: hex(&Sha256::digest(object)),
            object_size: object.len(),
        })
    }

    pub fn write(&self, root: &Path) -> Result<()> {
        let path = path(root);
        fs::write(&path, self.to_text()).with_context(|| format!("cannot write {}", path.display()))
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        for (key, value) in &self.tools {
            text += &format!("{key}: {value}\n");
        }
        text += &format!("sources-sha256: {}\n", self.sources_sha256);
        text += &format!("object-sha256: {}\n", self.object_sha256);
        text += &format!("object-size: {}\n", self.object_size);
        text
    }
}

fn path(root: &Path) -> PathBuf {
    root.join("tcptrace/ebpf/BUILDINFO")
}

/// Everything outside the source that the object's bytes can depend on.
fn tools(root: &Path, toolchain: &Toolchain) -> Result<Vec<(String, String)>> {
    let cargo = cmd::output(cmd::cargo(root).arg("--version"))?;
    Ok([
        ("rustc", toolchain.rustc_version.as_str()),
        ("llvm", &toolchain.llvm_version),
        ("bpf-linker", &toolchain.linker_version),
        ("cargo", &cargo),
    ]
    // The tools say their own names: `cargo 1.95.0 (…)`.
    .map(|(key, value)| {
        (
            key.to_owned(),
            value.trim_start_matches(key).trim().to_owned(),
        )
    })
    .to_vec())
}

/// One hash over all that the object is made of: the files of tcptrace-ebpf, the crates below it
/// and the profile. What only the host's crates use (the rest of Cargo.lock and of Cargo.toml) is
/// left out, so that a change there does not make the object look stale.
fn sources_sha256(root: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let mut add = |name: &str, content: &[u8]| {
        hash.update(format!("{name} {}\n", content.len()));
        hash.update(content);
    };
    for file in files_below(&root.join(SOURCES))? {
        let content = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.strip_prefix(root)?.to_string_lossy().into_owned();
        add(&name, &content);
    }
    add("crates", crates(root)?.as_bytes());
    let manifest = root.join("Cargo.toml");
    let manifest = fs::read_to_string(&manifest)
        .with_context(|| format!("cannot read {}", manifest.display()))?;
    for table in ["[workspace.package]", "[profile.release]", "[profile.ebpf]"] {
        add(table, toml_table(&manifest, table).as_bytes());
    }
    Ok(hex(&hash.finalize()))
}

/// Name, version and features of every crate that the eBPF build takes in.
fn crates(root: &Path) -> Result<String> {
    let tree = cmd::output(
        cmd::cargo(root)
            .args(["tree", "--locked", "--package", "tcptrace-ebpf"])
            .args(["--features", "bpf", "--target", "bpfel-unknown-none"])
            .args(["--edges", "normal,build", "--prefix", "none", "--no-dedupe"])
            .args(["--format", "{p} [{f}]"]),
    )?;
    let mut crates: Vec<String> = tree.lines().map(without_path).collect();
    crates.sort();
    crates.dedup();
    Ok(crates.join("\n"))
}

/// `name v1.0.0 (/the/folder) [features]` without the folder, which differs by machine.
fn without_path(line: &str) -> String {
    match (line.find(" (/"), line.rfind(" [")) {
        (Some(path), Some(features)) => format!("{}{}", &line[..path], &line[features..]),
        _ => line.to_owned(),
    }
}

/// The lines of one table of a TOML file, without comments and empty lines.
fn toml_table(toml: &str, header: &str) -> String {
    toml.lines()
        .map(str::trim)
        .skip_while(|line| *line != header)
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect::<Vec<_>>()
        .join("\n")
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
