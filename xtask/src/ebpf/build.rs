//! Builds the eBPF object the same way everywhere: no path of this machine enters it.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{buildinfo::BuildInfo, strip, toolchain::Toolchain};
use crate::cmd;

const TARGET: &str = "bpfel-unknown-none";

/// What the loader embeds.
pub fn object_path(root: &Path) -> PathBuf {
    root.join("tcptrace/ebpf/tcptrace.bpf.o")
}

/// Builds the object that is committed, and writes down where it comes from.
pub fn committed(root: &Path) -> Result<()> {
    let toolchain = Toolchain::find(root)?;
    let object = stripped(root, &toolchain, "bpf")?;
    write(&object_path(root), &object)?;
    BuildInfo::new(root, &toolchain, &object)?.write(root)
}

/// Builds the object that also logs, for whoever looks for a fault in the programs.
pub fn diagnostics(root: &Path) -> Result<()> {
    let object = stripped(root, &Toolchain::find(root)?, "log")?;
    write(&root.join("target/ebpf/tcptrace-log.bpf.o"), &object)
}

/// Compiles tcptrace-ebpf with `feature` and takes the debug information off.
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
            // -Zbuild-std and the programs' intrinsics are not stable.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", rustflags(root, toolchain)?)
            .env_remove("RUSTC_WRAPPER")
            .env_remove("RUSTC_WORKSPACE_WRAPPER"),
    )?;
    let path = target_dir.join(TARGET).join("ebpf/tcptrace-ebpf");
    let object = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    strip::debug_info(&object).with_context(|| format!("cannot strip {}", path.display()))
}

/// The compiler's flags, separated as CARGO_ENCODED_RUSTFLAGS wants them.
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

/// Which folders of this machine get which name in the object's BTF. Of several prefixes that
/// fit a path rustc takes the last, so the project comes first: the others may lie inside it.
fn remaps(root: &Path, toolchain: &Toolchain) -> Result<Vec<(PathBuf, &'static str)>> {
    let mut remaps = vec![(root.to_path_buf(), ".")];
    // The name of the folder in it tells which registry the machine asks.
    let registry = cargo_home()?.join("registry/src");
    let entries =
        fs::read_dir(&registry).with_context(|| format!("cannot read {}", registry.display()))?;
    for entry in entries {
        remaps.push((entry?.path(), "/cargo"));
    }
    let library = toolchain.library_source()?;
    // Debian's is a symbolic link, and rustc names both ends of it.
    let canonical = fs::canonicalize(&library)
        .with_context(|| format!("cannot resolve {}", library.display()))?;
    for folder in [canonical, library] {
        // cargo names a source below the project's folder by its path from there.
        if let Ok(relative) = folder.strip_prefix(root) {
            remaps.push((relative.to_path_buf(), "/rust"));
        }
        remaps.push((folder, "/rust"));
    }
    Ok(remaps)
}

fn cargo_home() -> Result<PathBuf> {
    match env::var_os("CARGO_HOME") {
        Some(home) => Ok(home.into()),
        None => Ok(env::home_dir()
            .context("neither CARGO_HOME nor HOME is set")?
            .join(".cargo")),
    }
}

fn write(path: &Path, object: &[u8]) -> Result<()> {
    fs::write(path, object).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{}: {} bytes", path.display(), object.len());
    Ok(())
}
