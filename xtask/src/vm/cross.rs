//! cargo for arm64, on a machine that has no such processor.
//!
//! The compiler is the one of the eBPF toolchain, because Debian has its standard library for every
//! processor. The C compiler and the C library are Debian's too.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::{Arch, apt::Apt};
use crate::{cmd, ebpf};

const TARGET: &str = "aarch64-unknown-linux-gnu";

/// The package of the standard library. Another package has the same library as a shared one.
const LIBRARY: &str = "libstd-rust-web-dev";

/// Returns a cargo that builds for arm64, after the subcommand. Downloads what it needs the first
/// time.
pub fn cargo(root: &Path, words: &[&str]) -> Result<Command> {
    let rustc = ebpf::compiler(root)?;
    let library = standard_library(root, &rustc)?;
    if !library.is_dir() {
        unpack(root, &library).context("cannot get Rust's standard library for arm64")?;
    }
    let mut cargo = cmd::cargo(root);
    cargo
        .args(words)
        .args(["--profile", "cross", "--target", TARGET])
        .env("RUSTC", rustc)
        .env(
            "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER",
            "aarch64-linux-gnu-gcc",
        )
        .env("CC_aarch64_unknown_linux_gnu", "aarch64-linux-gnu-gcc")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER");
    Ok(cargo)
}

/// Returns the folder in which the compiler searches the standard library.
fn standard_library(root: &Path, rustc: &Path) -> Result<PathBuf> {
    let mut sysroot = Command::new(rustc);
    let sysroot = cmd::output(sysroot.current_dir(root).args(["--print", "sysroot"]))?;
    Ok(Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET))
}

/// Unpacks the standard library.
fn unpack(root: &Path, library: &Path) -> Result<()> {
    println!("Downloading Rust's standard library for arm64 (34 MB)");
    let folder = root.join("target/vm/arm64-library");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let apt = Apt::of_this_machines_suites(&root.join("target/vm/apt"), Arch::Aarch64)?;
    apt.update()?;
    apt.download(&[LIBRARY.to_owned()], &folder)?;
    let unpacked = folder.join("unpacked");
    for package in fs::read_dir(&folder)? {
        cmd::run(
            Command::new("dpkg-deb")
                .arg("-x")
                .arg(package?.path())
                .arg(&unpacked),
        )?;
    }
    let found = unpacked.join("usr/lib/rustlib").join(TARGET);
    ensure!(found.is_dir(), "{LIBRARY} has no {TARGET}");
    // Last, so that an interrupted download leaves nothing.
    fs::rename(&found, library)
        .with_context(|| format!("cannot move it to {}", library.display()))?;
    fs::remove_dir_all(&folder)?;
    Ok(())
}
