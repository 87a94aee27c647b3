//! Makes the eBPF toolchain under target/, without changing the system. It unpacks Debian's newest
//! rustc with the source of its `core`, and builds bpf-linker with the same LLVM. Debian's packages
//! rustc-web and rust-web-src exist for building web browsers.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::toolchain::{self, Toolchain};
use crate::cmd;

const LINKER_VERSION: &str = "0.13.0";

/// The LLVM versions that this bpf-linker supports.
const LINKER_LLVM: [&str; 3] = ["21", "22", "23"];

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// Unpacked packages do not find their libraries without LD_LIBRARY_PATH.
const RUSTC: &str = "\
#!/bin/sh
# Debian's rustc, unpacked beside this file.
here=$(dirname \"$(readlink -f \"$0\")\")
LD_LIBRARY_PATH=$here/debian/usr/lib/x86_64-linux-gnu exec \"$here/debian/usr/bin/rustc\" \"$@\"
";

/// Makes the missing parts of the toolchain.
pub fn make(root: &Path) -> Result<Toolchain> {
    if Toolchain::is_chosen_by_user() {
        return Toolchain::find(root);
    }
    if let Ok(toolchain) = Toolchain::find(root) {
        return Ok(toolchain);
    }
    compiler(root)?;
    let folder = toolchain::folder(root);
    if !answers(&folder.join("bin/bpf-linker"), "--version") {
        build_linker(&folder)?;
    }
    Toolchain::find(root)
}

/// Makes the compiler, unless it exists. It also builds for other processors than this machine's.
pub fn compiler(root: &Path) -> Result<PathBuf> {
    let folder = toolchain::folder(root);
    let rustc = folder.join("rustc");
    if !answers(&rustc, "-vV") {
        unpack_compiler(&folder)?;
    }
    Ok(rustc)
}

fn answers(program: &Path, argument: &str) -> bool {
    let mut command = Command::new(program);
    command
        .arg(argument)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn unpack_compiler(folder: &Path) -> Result<()> {
    let (packed, unpacked) = (folder.join("packages"), folder.join("debian"));
    for leftover in [&packed, &unpacked] {
        if leftover.exists() {
            fs::remove_dir_all(leftover)
                .with_context(|| format!("cannot remove {}", leftover.display()))?;
        }
    }
    fs::create_dir_all(&packed).with_context(|| format!("cannot make {}", packed.display()))?;

    println!("Downloading Debian's rustc and the source of its core (140 MB)");
    // Package lists that are older than the archive name an older rustc, or packages that are gone.
    let updated = update_package_lists();
    if let Err(error) = download(&packed) {
        updated?;
        return Err(error);
    }
    println!("Unpacking it (850 MB)");
    for package in fs::read_dir(&packed)? {
        cmd::run(
            Command::new("dpkg-deb")
                .arg("-x")
                .arg(package?.path())
                .arg(&unpacked),
        )?;
    }
    fs::remove_dir_all(&packed)?;

    let rustc = folder.join("rustc");
    fs::write(&rustc, RUSTC).with_context(|| format!("cannot write {}", rustc.display()))?;
    fs::set_permissions(&rustc, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn download(into: &Path) -> Result<()> {
    let packages = packages()?;
    cmd::run(
        Command::new("apt-get")
            // apt's user may not have access to root's folder.
            .args(["-qq", "-o", "APT::Sandbox::User=root", "download"])
            .args(packages)
            .current_dir(into),
    )
}

/// Returns rustc-web, its standard library and LLVM, whose names contain a version, and the source.
fn packages() -> Result<Vec<String>> {
    let needed = cmd::output(
        Command::new("apt-cache")
            .args(["depends", "--recurse", "--important", "rustc-web"])
            .stderr(Stdio::null()),
    )
    .context("cannot ask apt for rustc-web")?;
    // Names of packages are not indented, their dependencies are.
    let mut packages: Vec<String> = needed
        .lines()
        .filter(|name| {
            *name == "rustc-web"
                || name.starts_with("libstd-rust-web-")
                || name.starts_with("libllvm")
        })
        .map(str::to_owned)
        .collect();
    ensure!(!packages.is_empty(), "apt knows no package rustc-web");
    packages.push("rust-web-src".to_owned());
    Ok(packages)
}

fn update_package_lists() -> Result<()> {
    cmd::run(Command::new("apt-get").args(["-qq", "update"])).context(
        "cannot get rustc-web from apt. If the package lists are old, run `sudo apt-get update` \
         and try again; on a system without it, name a nightly rustc that has rust-src in \
         TCPTRACE_EBPF_RUSTC and put bpf-linker on PATH",
    )
}

fn build_linker(folder: &Path) -> Result<()> {
    let versions = cmd::output(Command::new(folder.join("rustc")).arg("-vV"))?;
    let llvm = toolchain::llvm_version(&versions)?;
    let llvm = llvm.split('.').next().unwrap_or_default();
    ensure!(
        LINKER_LLVM.contains(&llvm),
        "bpf-linker {LINKER_VERSION} cannot read the output of LLVM {llvm}: run `sudo apt-get \
         update`, remove {} and try again, so that a newer rustc-web is taken",
        folder.display()
    );
    println!("Building bpf-linker {LINKER_VERSION} against LLVM {llvm}");
    let prefix = folder.join("llvm");
    link_llvm(folder, &prefix)?;
    cmd::run(
        cmd::cargo(folder)
            .args(["install", "--quiet", "--locked", "--force", "bpf-linker"])
            .args(["--version", LINKER_VERSION, "--no-default-features"])
            .args(["--features", &format!("llvm-{llvm}"), "--root"])
            .arg(folder)
            .env("LLVM_PREFIX", &prefix)
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
            .env("CARGO_PROFILE_RELEASE_STRIP", "true"),
    )
}

/// bpf-linker's build searches `$LLVM_PREFIX/lib/libLLVM.so`, its program the versioned name.
fn link_llvm(folder: &Path, prefix: &Path) -> Result<()> {
    let library = llvm_library(&folder.join("debian").join(LIBRARIES))?;
    let lib = prefix.join("lib");
    if lib.exists() {
        fs::remove_dir_all(&lib)?;
    }
    fs::create_dir_all(&lib)?;
    let target = Path::new("../../debian").join(LIBRARIES).join(&library);
    for name in ["libLLVM.so", &library] {
        symlink(&target, lib.join(name))
            .with_context(|| format!("cannot make {}", lib.join(name).display()))?;
    }
    Ok(())
}

/// Returns the file name of rustc's LLVM, such as libLLVM.so.22.1.
fn llvm_library(libraries: &Path) -> Result<String> {
    for entry in fs::read_dir(libraries)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with("libLLVM.so.") {
            return Ok(name);
        }
    }
    bail!("{} holds no libLLVM.so", libraries.display())
}
