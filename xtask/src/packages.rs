//! Debian packages that the tests rest on.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{cmd, vm};

/// What Debian's LLVM, unpacked and not installed, needs from the system, and a linker.
const TOOLCHAIN: [&str; 7] = [
    "gcc",
    "libc6-dev",
    "libedit2",
    "libffi8",
    "libxml2",
    "libz3-4",
    "zlib1g",
];

fn needed() -> Vec<&'static str> {
    [&TOOLCHAIN[..], &vm::PACKAGES].concat()
}

/// Sees to it that the packages are there: installs what is missing, or names it.
pub fn ensure(install: bool) -> Result<()> {
    let Some(missing) = missing() else {
        println!(
            "This is no Debian: whether {} are here is not known",
            needed().join(", ")
        );
        return Ok(());
    };
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if !install {
        bail!(
            "missing packages: {names}. Run `cargo xtask test --install`, or `sudo apt-get \
             install {names}`"
        );
    }
    println!("Installing {names}");
    let get = |arguments: &[&str]| -> Result<()> {
        let mut apt = cmd::as_root(Path::new("apt-get"))?;
        apt.env("DEBIAN_FRONTEND", "noninteractive")
            .args(["-qq", "-y"])
            .args(arguments);
        cmd::run(&mut apt)
    };
    let mut install = vec!["install", "--no-install-recommends"];
    install.extend(missing);
    if get(&install).is_err() {
        // The package lists are missing, or older than the archive.
        get(&["update"])?;
        get(&install).context("apt cannot install what the tests need")?;
    }
    Ok(())
}

/// The packages that are not installed; `None` where there is no dpkg to ask.
fn missing() -> Option<Vec<&'static str>> {
    let mut missing = Vec::new();
    for package in needed() {
        let output = Command::new("dpkg-query")
            .args(["--show", "--showformat", "${db:Status-Status}", package])
            .stderr(Stdio::null())
            .output()
            .ok()?;
        if output.stdout != b"installed" {
            missing.push(package);
        }
    }
    Some(missing)
}
