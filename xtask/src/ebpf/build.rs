//! Builds the eBPF object reproducibly: no path of this machine enters it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{buildinfo::BuildInfo, strip, toolchain::Toolchain};
use crate::cmd;

const TARGET: &str = "bpfel-unknown-none";

/// The object that the loader embeds.
pub fn object_path(root: &Path) -> PathBuf {
    root.join("tcptrace/ebpf/tcptrace.bpf.o")
}

/// Builds the object to be committed, and records its sources and tools.
pub fn committed(root: &Path) -> Result<()> {
    let toolchain = Toolchain::find(root)?;
    let object = stripped(root, &toolchain, "bpf")?;
    write(&object_path(root), &object)?;
    BuildInfo::new(root, &toolchain, &object)?.write(root)
}

/// Builds the object that also logs, for debugging the programs.
pub fn diagnostics(root: &Path) -> Result<()> {
    let object = stripped(root, &Toolchain::find(root)?, "log")?;
    write(&root.join("target/ebpf/tcptrace-log.bpf.o"), &object)
}

/// Compiles tcptrace-ebpf with `feature` and strips debug information.
pub fn stripped(root: &Path, toolchain: &Toolchain, feature: &str) -> Result<Vec<u8>> {
    let target_dir = root.join("target/ebpf");
    cmd::run(
        cmd::cargo(root)
            .args(["build", "--locked", "--profile", "ebpf", "-Zbuild-std=core"])
            .args(["--package", "tcptrace-ebpf", "--bin", "tcptrace-ebpf"])
            .args(["--features", feature, "--target", TARGET, "--target-dir"])
            .arg(&target_dir)
            .env("PATH", &toolchain.path)
            .env("RUSTC", &toolchain.rustc)
            // -Zbuild-std and the programs' intrinsics are unstable.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", rustflags(root, toolchain)?)
            .env_remove("RUSTC_WRAPPER")
            .env_remove("RUSTC_WORKSPACE_WRAPPER"),
    )?;
    let path = target_dir.join(TARGET).join("ebpf/tcptrace-ebpf");
    let object = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    strip::debug_info(&object).with_context(|| format!("cannot strip {}", path.display()))
}

/// Returns the compiler's flags, separated as CARGO_ENCODED_RUSTFLAGS requires.
fn rustflags(root: &Path, toolchain: &Toolchain) -> Result<String> {
    let mut flags = vec![
        "-Clink-arg=--btf".to_owned(),
        "--cfg=bpf_target_arch=\"x86_64\"".to_owned(),
    ];
    for (from, to) in remaps(root, toolchain)? {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    }
    Ok(flags.join("\x1f"))
}

/// Returns the replacements for folders of this machine in the object's BTF. If several prefixes
/// match a path, rustc uses the last. So the project comes first: the others may lie inside it.
fn remaps(root: &Path, toolchain: &Toolchain) -> Result<Vec<(PathBuf, &'static str)>> {
    let mut remaps = vec![(root.to_path_buf(), ".")];
    // The folder's name depends on the machine's registry.
    let registry = cmd::cargo_home()?.join("registry/src");
    let entries =
        fs::read_dir(&registry).with_context(|| format!("cannot read {}", registry.display()))?;
    for entry in entries {
        remaps.push((entry?.path(), "/cargo"));
    }
    let library = toolchain.library_source()?;
    // Debian's folder is a symbolic link, and rustc uses both of its paths.
    let canonical = fs::canonicalize(&library)
        .with_context(|| format!("cannot resolve {}", library.display()))?;
    for folder in [canonical, library] {
        // cargo names a source below the project's folder by its relative path.
        if let Ok(relative) = folder.strip_prefix(root) {
            remaps.push((relative.to_path_buf(), "/rust"));
        }
        remaps.push((folder, "/rust"));
    }
    Ok(remaps)
}

fn write(path: &Path, object: &[u8]) -> Result<()> {
    fs::write(path, object).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{}: {} bytes", path.display(), object.len());
    Ok(())
}
