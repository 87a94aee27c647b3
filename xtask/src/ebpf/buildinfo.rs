//! BUILDINFO, beside the committed object: its sources and tools.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use super::toolchain::Toolchain;
use crate::{cmd, files};

const SOURCES: &str = "tcptrace-ebpf";

/// The key of a line of BUILDINFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    Rustc,
    Llvm,
    Linker,
    Cargo,
    Sources,
    Object,
    Size,
}

impl Key {
    /// Everything except the source on which the object's bytes can depend.
    pub const TOOLS: [Key; 4] = [Key::Rustc, Key::Llvm, Key::Linker, Key::Cargo];
    const ALL: [Key; 7] = [
        Key::Rustc,
        Key::Llvm,
        Key::Linker,
        Key::Cargo,
        Key::Sources,
        Key::Object,
        Key::Size,
    ];
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Key::Rustc => "rustc",
            Key::Llvm => "llvm",
            Key::Linker => "bpf-linker",
            Key::Cargo => "cargo",
            Key::Sources => "sources-sha256",
            Key::Object => "object-sha256",
            Key::Size => "object-size",
        })
    }
}

/// The value of each [`Key`], in the order of [`Key::ALL`].
#[derive(Debug, PartialEq, Eq)]
pub struct BuildInfo([String; Key::ALL.len()]);

impl BuildInfo {
    pub fn new(root: &Path, toolchain: &Toolchain, object: &[u8]) -> Result<BuildInfo> {
        let cargo = cmd::output(cmd::cargo(root).arg("--version"))?;
        Ok(BuildInfo([
            after_name("rustc", &toolchain.rustc_version),
            toolchain.llvm_version.clone(),
            after_name("bpf-linker", &toolchain.linker_version),
            after_name("cargo", &cargo),
            sources_sha256(root)?,
            hex(&Sha256::digest(object)),
            object.len().to_string(),
        ]))
    }

    pub fn read(root: &Path) -> Result<BuildInfo> {
        let path = path(root);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        BuildInfo::parse(&text).with_context(|| format!("cannot understand {}", path.display()))
    }

    pub fn parse(text: &str) -> Result<BuildInfo> {
        let mut values = Vec::new();
        for key in Key::ALL {
            let value = text
                .lines()
                .find_map(|line| line.strip_prefix(&format!("{key}: ")))
                .with_context(|| format!("no line `{key}: …`"))?;
            values.push(value.to_owned());
        }
        Ok(BuildInfo(values.try_into().expect("one value a key")))
    }

    pub fn get(&self, key: Key) -> &str {
        &self.0[key as usize]
    }

    pub fn write(&self, root: &Path) -> Result<()> {
        let path = path(root);
        fs::write(&path, self.to_text()).with_context(|| format!("cannot write {}", path.display()))
    }

    fn to_text(&self) -> String {
        Key::ALL
            .map(|key| format!("{key}: {}\n", self.get(key)))
            .concat()
    }
}

fn path(root: &Path) -> PathBuf {
    root.join("tcptrace/ebpf/BUILDINFO")
}

/// Returns `1.95.0 (…)` for `cargo 1.95.0 (…)`.
fn after_name(tool: &str, version: &str) -> String {
    version.trim_start_matches(tool).trim().to_owned()
}

/// Returns one hash over all sources of the object: the files of tcptrace-ebpf, its dependencies,
/// and the profile. The rest of Cargo.lock and Cargo.toml is left out, so that changes there do not
/// make the object look stale.
fn sources_sha256(root: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let mut add = |name: &str, content: &[u8]| {
        hash.update(format!("{name} {}\n", content.len()));
        hash.update(content);
    };
    for file in files::below(&root.join(SOURCES))? {
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

/// Returns name, version and features of every crate in the eBPF build.
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

/// Removes the folder, which differs by machine, from `name v1.0.0 (/the/folder) [features]`.
fn without_path(line: &str) -> String {
    match (line.find(" (/"), line.rfind(" [")) {
        (Some(path), Some(features)) => format!("{}{}", &line[..path], &line[features..]),
        _ => line.to_owned(),
    }
}

/// Returns the lines of one table of a TOML file, without comments and empty lines.
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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buildinfo_survives_writing_and_parsing() {
        let values = ["1.96", "22.1.8", "0.13.0", "1.95", "5a", "0b", "140336"];
        let info = BuildInfo(values.map(str::to_owned));
        assert_eq!(BuildInfo::parse(&info.to_text()).unwrap(), info);
        assert_eq!(info.get(Key::Size), "140336");
    }

    #[test]
    fn a_missing_line_is_named() {
        let error = BuildInfo::parse("rustc: 1.96\nllvm: 22\n").unwrap_err();
        assert_eq!(error.to_string(), "no line `bpf-linker: …`");
    }

    #[test]
    fn crates_are_named_without_their_folder() {
        assert_eq!(
            without_path("tcptrace-ebpf v0.1.0 (/somewhere/tcptrace-ebpf) [bpf]"),
            "tcptrace-ebpf v0.1.0 [bpf]"
        );
        assert_eq!(
            without_path("zerocopy-derive v0.8.63 (proc-macro) []"),
            "zerocopy-derive v0.8.63 (proc-macro) []"
        );
    }

    #[test]
    fn a_table_ends_at_the_next_one() {
        let toml = "[a]\nx = 1\n[b]\n# why\ny = 2\n\nz = 3\n[c]\nx = 4\n";
        assert_eq!(toml_table(toml, "[b]"), "y = 2\nz = 3");
        assert_eq!(toml_table(toml, "[d]"), "");
    }
}
