//! Debian packages that the tests need, and those that the benchmark compares with.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{cmd, dist, tables, vm};

/// Libraries for Debian's unpacked LLVM, and a linker.
const TOOLCHAIN: [&str; 7] = [
    "gcc",
    "libc6-dev",
    "libedit2",
    "libffi8",
    "libxml2",
    "libz3-4",
    "zlib1g",
];

/// The browser for the page that `tcptrace report` makes.
pub const BROWSER: [&str; 2] = ["chromium", "chromium-driver"];

/// Readers of the packets of `-o pcapng`, and a terminal emulator for `tcptrace top`.
const VIEWERS: [&str; 2] = ["tshark", "tmux"];

/// The package of `nft`, by which a scenario redirects connections to another listener than their
/// destination.
const PACKET_FILTER: [&str; 1] = ["nftables"];

/// A client that commands of the documents trace.
const CLIENT: [&str; 1] = ["curl"];

/// Container runtimes, for scenarios in real containers.
const CONTAINERS: [&str; 3] = ["containerd", "podman", "runc"];

/// Installs the libraries that load exports as tables, see [`tables`].
const PYTHON: [&str; 1] = ["python3-venv"];

/// Prometheus with promtool, for `tcptrace export`, and the package of `systemd-analyze`.
const FLEET: [&str; 2] = ["prometheus", "systemd"];

fn needed() -> Vec<&'static str> {
    [
        &TOOLCHAIN[..],
        vm::Arch::X86_64.packages(),
        vm::Arch::Aarch64.packages(),
        &BROWSER,
        &VIEWERS,
        &PACKET_FILTER,
        &CLIENT,
        &CONTAINERS,
        &PYTHON,
        &FLEET,
        &dist::TOOLS,
        &dist::proof::TOOLS,
    ]
    .concat()
}

/// Installs the missing packages, or names them in an error.
pub fn ensure(root: &Path, install: bool) -> Result<()> {
    ensure_debians(install)?;
    tables::ensure(root, install)
}

fn ensure_debians(install: bool) -> Result<()> {
    let Some(missing) = missing(&needed()) else {
        println!(
            "This is not Debian, so it is unknown whether {} are installed",
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
    install_all(&missing).context("apt cannot install what the tests need")
}

/// Installs those of these packages that are missing.
pub fn install(packages: &[&'static str]) -> Result<()> {
    let missing =
        missing(packages).context("there is no dpkg here: install the other tools by hand")?;
    if missing.is_empty() {
        return Ok(());
    }
    install_all(&missing).context("apt cannot install the other tools")
}

/// Returns `name version` of the installed ones of these packages; empty without dpkg.
pub fn versions(packages: &[&str]) -> Vec<String> {
    let version = |package: &&str| {
        let output = Command::new("dpkg-query")
            .args(["--show", "--showformat", "${db:Status-Status} ${Version}"])
            .arg(package)
            .stderr(Stdio::null())
            .output()
            .ok()?;
        let output = String::from_utf8(output.stdout).ok()?;
        let version = output.strip_prefix("installed ")?;
        Some(format!("{package} {version}"))
    };
    packages.iter().filter_map(version).collect()
}

fn install_all(packages: &[&str]) -> Result<()> {
    println!("Installing {}", packages.join(" "));
    let get = |arguments: &[&str]| -> Result<()> {
        let mut apt = cmd::as_root(Path::new("apt-get"))?;
        apt.env("DEBIAN_FRONTEND", "noninteractive")
            .args(["-qq", "-y"])
            .args(arguments);
        cmd::run(&mut apt)
    };
    let mut install = vec!["install", "--no-install-recommends"];
    install.extend(packages);
    if get(&install).is_err() {
        // The package lists are missing, or older than the archive.
        get(&["update"])?;
        get(&install)?;
    }
    Ok(())
}

/// Returns the packages that are not installed; `None` without dpkg.
fn missing(packages: &[&'static str]) -> Option<Vec<&'static str>> {
    let mut missing = Vec::new();
    for &package in packages {
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
