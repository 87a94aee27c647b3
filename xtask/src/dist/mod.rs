//! Packages of tcptrace: `.deb`, `.rpm`, a static binary and its bill of materials, crates, and a
//! Containerfile.
//!
//! Everything goes into `target/dist`, with its checksums in `SHA256SUMS`.

pub mod proof;
mod stage;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

use self::stage::Stage;
use crate::{cmd, supply, tcptrace};

/// Name of the packages. Debian's `tcptrace` is the old analyser of packet captures.
const PACKAGE: &str = "tcptrace-ebpf";

/// Debian's tools that make and check the packages.
pub const TOOLS: [&str; 5] = ["binutils", "dpkg-dev", "lintian", "lowdown", "rpm"];

/// The crates in the order in which they can be published.
const CRATES: [&str; 3] = ["tcptrace-ebpf", "tcptrace-core", "tcptrace"];

/// The target of the static binary, Linux on this processor. Without a named target, cargo applies
/// RUSTFLAGS to procedural macros as well, which cannot be static.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Makes everything that is published.
pub fn run(root: &Path) -> Result<()> {
    let dist = root.join("target/dist");
    if dist.exists() {
        fs::remove_dir_all(&dist)?;
    }
    let made = Made {
        deb: deb(root, &dist)?,
        rpm: rpm(root, &dist)?,
        binary: static_binary(root, &dist)?,
        bill: bill_of_materials(root, &dist)?,
        containerfile: containerfile(&dist)?,
    };
    let crates = crates(root, &dist)?;
    let files = [
        &[
            made.deb,
            made.rpm,
            made.binary,
            made.bill,
            made.containerfile,
        ][..],
        &crates,
    ]
    .concat();
    checksums(&dist, &files)?;
    fs::remove_dir_all(dist.join("work"))?;
    for file in files {
        let kib = fs::metadata(&file)?.len() / 1024;
        println!("{kib:>7} KiB  {}", file.display());
    }
    Ok(())
}

struct Made {
    deb: PathBuf,
    rpm: PathBuf,
    binary: PathBuf,
    bill: PathBuf,
    containerfile: PathBuf,
}

/// Version of the workspace.
fn version(root: &Path) -> Result<String> {
    let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
    let line = manifest
        .lines()
        .find_map(|it| it.strip_prefix("version = "));
    let version = line.context("Cargo.toml has no version")?;
    Ok(version.trim_matches('"').to_owned())
}

/// Makes the Debian package, and returns its path.
fn deb(root: &Path, dist: &Path) -> Result<PathBuf> {
    let version = version(root)?;
    // Debian's tools look for a package's files in this directory.
    let stage = Stage::new(root, &dist.join("work/deb/debian").join(PACKAGE))?;
    stage.debian_documents(PACKAGE, &version)?;
    stage.service()?;
    let architecture = cmd::output(Command::new("dpkg").arg("--print-architecture"))?;
    let architecture = architecture.trim();
    let control = include_str!("templates/control")
        .replace("@VERSION@", &version)
        .replace("@ARCHITECTURE@", architecture)
        .replace("@KIB@", &stage.kib()?.to_string())
        .replace("@DEPENDS@", &stage.shared_libraries()?);
    stage.write("DEBIAN/control", control.as_bytes())?;
    stage.write("DEBIAN/md5sums", stage.md5sums()?.as_bytes())?;
    let file = dist.join(format!("{PACKAGE}_{version}_{architecture}.deb"));
    let mut build = Command::new("dpkg-deb");
    build
        .args(["--root-owner-group", "-Zxz", "--build"])
        .args([stage.directory(), &file]);
    cmd::output(&mut build)?;
    Ok(file)
}

/// Makes the package for distributions that use RPM, and returns its path.
fn rpm(root: &Path, dist: &Path) -> Result<PathBuf> {
    let version = version(root)?;
    let stage = Stage::new(root, &dist.join("work/rpm"))?;
    stage.licences(PACKAGE)?;
    stage.service()?;
    let list: Vec<String> = stage
        .files()?
        .iter()
        .map(|file| format!("/{file}"))
        .collect();
    let spec = include_str!("templates/spec")
        .replace("@VERSION@", &version)
        .replace("@FILES@", &stage.directory().display().to_string())
        .replace("@LIST@", &list.join("\n"));
    let top = dist.join("work/rpmbuild");
    fs::create_dir_all(&top)?;
    let spec_file = top.join("tcptrace.spec");
    fs::write(&spec_file, spec)?;
    let mut build = Command::new("rpmbuild");
    build
        .args(["-bb", "--quiet", "--define", "debug_package %{nil}"])
        .args(["--define", "__os_install_post %{nil}"])
        .args(["--define", "_build_id_links none"])
        .arg("--define")
        .arg(format!("_topdir {}", top.display()))
        .arg(&spec_file);
    cmd::output(&mut build)?;
    let built = top.join(format!("RPMS/x86_64/{PACKAGE}-{version}-1.x86_64.rpm"));
    let file = dist.join(format!("{PACKAGE}-{version}-1.x86_64.rpm"));
    fs::rename(&built, &file).with_context(|| format!("no {}", built.display()))?;
    Ok(file)
}

/// Builds the binary that needs no libc, and returns its path.
fn static_binary(root: &Path, dist: &Path) -> Result<PathBuf> {
    let mut build = cmd::cargo(root);
    build
        .args(["build", "--quiet", "--release", "--package=tcptrace"])
        .arg(format!("--target={TARGET}"))
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static -Cstrip=symbols");
    cmd::run(&mut build)?;
    let built = tcptrace::target(root).join(TARGET).join("release/tcptrace");
    let file = dist.join(format!("tcptrace-{}-x86_64-linux-static", version(root)?));
    fs::create_dir_all(dist)?;
    fs::copy(&built, &file).with_context(|| format!("no {}", built.display()))?;
    Ok(file)
}

/// Writes the bill of materials of the binary.
fn bill_of_materials(root: &Path, dist: &Path) -> Result<PathBuf> {
    let file = dist.join(format!("tcptrace-{}.cdx.json", version(root)?));
    supply::bill_of_materials(root, &file)?;
    Ok(file)
}

/// Writes the Containerfile for the static binary beside it.
fn containerfile(dist: &Path) -> Result<PathBuf> {
    let file = dist.join("Containerfile");
    fs::write(&file, include_str!("templates/Containerfile"))?;
    Ok(file)
}

/// Makes the crates as they would be published, building each, and returns their paths.
fn crates(root: &Path, dist: &Path) -> Result<Vec<PathBuf>> {
    let mut package = cmd::cargo(root);
    package.args(["package", "--quiet", "--allow-dirty"]);
    package.args(CRATES.map(|name| format!("--package={name}")));
    cmd::run(&mut package)?;
    let version = version(root)?;
    CRATES
        .iter()
        .map(|name| {
            let file = format!("{name}-{version}.crate");
            let built = tcptrace::target(root).join("package").join(&file);
            let file = dist.join(file);
            fs::copy(&built, &file).with_context(|| format!("no {}", built.display()))?;
            Ok(file)
        })
        .collect()
}

/// Writes `SHA256SUMS`, as sha256sum(1) does and checks.
fn checksums(dist: &Path, files: &[PathBuf]) -> Result<()> {
    let mut sums = String::new();
    for file in files {
        let name = file.file_name().context("a file has a name")?;
        let sum = Sha256::digest(fs::read(file)?);
        sums.push_str(&format!("{sum:x}  {}\n", name.display()));
    }
    fs::write(dist.join("SHA256SUMS"), sums)?;
    ensure!(!files.is_empty(), "nothing was made");
    Ok(())
}
