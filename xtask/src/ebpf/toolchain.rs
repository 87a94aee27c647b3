//! The eBPF toolchain: a rustc with the source of its own `core`, and a bpf-linker that reads the
//! bitcode of that rustc.
//!
//! `core` is built from source for the eBPF target. Only its own compiler can build it.

use std::{
    env,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::cmd;

/// Names a compiler that replaces the one made by `setup`. bpf-linker is then found on PATH.
const RUSTC_VARIABLE: &str = "TCPTRACE_EBPF_RUSTC";

/// Returns the folder of the toolchain that `setup` makes.
pub fn folder(root: &Path) -> PathBuf {
    root.join("target/ebpf-toolchain")
}

/// A toolchain that was tested to run.
pub struct Toolchain {
    pub rustc: PathBuf,
    /// PATH on which rustc finds bpf-linker.
    pub path: OsString,
    /// The first line of `rustc -vV`.
    pub rustc_version: String,
    /// The version of the LLVM that rustc was built with.
    pub llvm_version: String,
    pub linker_version: String,
}

impl Toolchain {
    /// Whether the environment names a compiler. It is never replaced, even if it fails.
    pub fn is_chosen_by_user() -> bool {
        env::var_os(RUSTC_VARIABLE).is_some()
    }

    /// Finds the compiler that the environment names, else the one made by `setup`.
    pub fn find(root: &Path) -> Result<Toolchain> {
        let path = env::var_os("PATH").unwrap_or_default();
        match env::var_os(RUSTC_VARIABLE) {
            Some(rustc) => Toolchain::try_out(rustc.into(), path)
                .with_context(|| format!("{RUSTC_VARIABLE} names no usable eBPF toolchain")),
            None => {
                let folder = folder(root);
                let rustc = folder.join("rustc");
                ensure!(
                    rustc.exists(),
                    "no eBPF toolchain here: run `cargo xtask ebpf setup`"
                );
                let ours = [folder.join("bin")].into_iter();
                let path = env::join_paths(ours.chain(env::split_paths(&path)))?;
                Toolchain::try_out(rustc, path)
                    .context("the eBPF toolchain is broken: run `cargo xtask ebpf setup`")
            }
        }
    }

    fn try_out(rustc: PathBuf, path: OsString) -> Result<Toolchain> {
        let versions = cmd::output(Command::new(&rustc).arg("-vV"))?;
        let linker = cmd::output(
            Command::new("bpf-linker")
                .arg("--version")
                .env("PATH", &path),
        )?;
        let toolchain = Toolchain {
            rustc_version: versions.lines().next().unwrap_or_default().to_owned(),
            llvm_version: llvm_version(&versions)?,
            linker_version: linker.trim().to_owned(),
            rustc,
            path,
        };
        let core = toolchain.library_source()?.join("library/core");
        ensure!(
            core.exists(),
            "{} comes without the source of core, {}",
            toolchain.rustc.display(),
            core.display()
        );
        Ok(toolchain)
    }

    /// Returns the folder in which the compiler searches the source of `core`.
    pub fn library_source(&self) -> Result<PathBuf> {
        let sysroot = cmd::output(Command::new(&self.rustc).args(["--print", "sysroot"]))?;
        Ok(Path::new(sysroot.trim()).join("lib/rustlib/src/rust"))
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Toolchain {
            rustc_version,
            llvm_version,
            linker_version,
            ..
        } = self;
        write!(f, "{rustc_version}, LLVM {llvm_version}, {linker_version}")
    }
}

/// Returns the LLVM version in the output of `rustc -vV`.
pub fn llvm_version(versions: &str) -> Result<String> {
    let line = versions
        .lines()
        .find_map(|l| l.strip_prefix("LLVM version: "));
    match line {
        Some(version) => Ok(version.to_owned()),
        None => bail!("`rustc -vV` names no LLVM version"),
    }
}
