//! Tests of the packages: each is installed, or unpacked, in a root of its own and used there.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::PACKAGE;
use crate::cmd;

/// Debian's tools for the tests.
pub const TOOLS: [&str; 2] = ["cpio", "mmdebstrap"];

/// The conclusion of `tcptrace demo` when its four experiments have shown what they should.
const SHOWN: &str = "Shown: the kernel finishes the three-way handshake by itself.";

/// Installs the Debian package in a fresh Debian 12, uses it there, and removes it.
pub fn deb(root: &Path) -> Result<()> {
    let scratch = scratch(root, "debian-12")?;
    let package = super::deb(root, &scratch.join("dist"))?;
    cmd::run(
        Command::new("lintian")
            .args([
                "--allow-root",
                "--fail-on",
                "error",
                "--tag-display-limit",
                "0",
            ])
            .arg(&package),
    )?;
    let debian = scratch.join("root");
    cmd::output(
        Command::new("mmdebstrap")
            .args([
                "--quiet",
                "--variant=minbase",
                "--include=man-db",
                "bookworm",
            ])
            // The root of a container may exclude documentation, and so may this one's host.
            .arg("--dpkgopt=path-include=/usr/share/man/*")
            .arg(&debian),
    )?;
    fs::copy(&package, debian.join("tcptrace.deb"))?;
    inside(&debian, &["dpkg", "--install", "/tcptrace.deb"])?;
    let verified = inside(&debian, &["dpkg", "--verify", PACKAGE])?;
    ensure!(verified.is_empty(), "dpkg --verify: {verified}");
    demo(&inside(&debian, &["tcptrace", "demo"])?)?;
    for (section, page) in [
        ("8", "tcptrace"),
        ("8", "tcptrace-record"),
        ("5", "tcptrace-json"),
    ] {
        let text = inside(&debian, &["man", section, page])?;
        let title = format!("{page}({section})");
        ensure!(text.starts_with(&title), "man {section} {page}: {text:.60}");
    }
    inside(&debian, &["dpkg", "--remove", PACKAGE])?;
    let left: Vec<String> = files_named(&debian, "tcptrace")?;
    ensure!(left == ["tcptrace.deb"], "left after removal: {left:?}");
    clean(&scratch)
}

/// Unpacks the RPM, and compares what is in it with the Debian package.
pub fn rpm(root: &Path) -> Result<()> {
    let scratch = scratch(root, "rpm")?;
    let package = super::rpm(root, &scratch.join("dist"))?;
    let conflicts = cmd::output(
        Command::new("rpm")
            .args(["-qp", "--conflicts"])
            .arg(&package),
    )?;
    ensure!(
        conflicts.trim() == "tcptrace",
        "conflicts with {conflicts:?}"
    );
    let unpacked = scratch.join("root");
    fs::create_dir_all(&unpacked)?;
    let mut unpack = Command::new("sh");
    unpack
        .current_dir(&unpacked)
        .args(["-c", "rpm2cpio \"$0\" | cpio --quiet -idm"])
        .arg(&package);
    cmd::run(&mut unpack)?;
    let version = cmd::output(Command::new(unpacked.join("usr/bin/tcptrace")).arg("--version"))?;
    ensure!(
        version.trim() == format!("tcptrace {}", super::version(root)?),
        "{version}"
    );
    ensure!(
        unpacked
            .join("usr/share/man/man8/tcptrace-record.8.gz")
            .is_file(),
        "the RPM has no man pages"
    );
    clean(&scratch)
}

/// Runs the static binary in a root that has nothing else but the kernel's file systems.
pub fn static_binary(root: &Path) -> Result<()> {
    let scratch = scratch(root, "static")?;
    let binary = super::static_binary(root, &scratch.join("dist"))?;
    let empty = scratch.join("root");
    fs::create_dir_all(&empty)?;
    fs::copy(&binary, empty.join("tcptrace"))?;
    demo(&inside(&empty, &["/tcptrace", "demo"])?)?;
    clean(&scratch)
}

/// Runs a command with this root directory, which gets /proc, /sys and /dev, and returns its output.
fn inside(directory: &Path, words: &[&str]) -> Result<String> {
    let script = "set -e; for d in proc sys dev; do mkdir -p \"$0/$d\"; mount --rbind \"/$d\" \"$0/$d\"; done; \
                  exec chroot \"$0\" \"$@\"";
    let mut command = cmd::as_root(Path::new("unshare"))?;
    command
        .args(["--mount", "--propagation=private", "sh", "-c", script])
        .arg(directory)
        .args(words)
        .env("LC_ALL", "C.UTF-8")
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("MANWIDTH", "80");
    cmd::output(&mut command)
}

fn demo(output: &str) -> Result<()> {
    ensure!(
        output.contains(SHOWN),
        "the demo has not shown it: {output}"
    );
    Ok(())
}

/// Returns the files below `directory` whose path contains `part`, as paths from there.
fn files_named(directory: &Path, part: &str) -> Result<Vec<String>> {
    let mut find = cmd::as_root(Path::new("find"))?;
    find.arg(directory)
        .args(["-xdev", "-type", "f", "-printf", "%P\\n"]);
    let found = cmd::output(&mut find)?;
    let named = found.lines().filter(|path| path.contains(part));
    // dpkg notes what it has done.
    let named = named.filter(|path| !path.starts_with("var/"));
    Ok(named.map(str::to_owned).collect())
}

/// Makes an empty directory for a test.
fn scratch(root: &Path, name: &str) -> Result<PathBuf> {
    let scratch = root.join("target/dist-test").join(name);
    clean(&scratch)?;
    fs::create_dir_all(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
    Ok(scratch)
}

fn clean(scratch: &Path) -> Result<()> {
    let mut remove = cmd::as_root(Path::new("rm"))?;
    cmd::run(remove.args(["-rf", "--one-file-system", "--"]).arg(scratch))
}
