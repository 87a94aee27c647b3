//! Builds tcptrace and runs it, as root.

use std::{
    env,
    ffi::OsString,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Error, Result, ensure};

use crate::cmd;

/// Builds the release binary and gives its path.
pub fn build(root: &Path) -> Result<PathBuf> {
    cmd::run(cmd::cargo(root).args(["build", "--quiet", "--release", "--package", "tcptrace"]))?;
    // A target folder of the user's own choice is respected, as cargo does.
    let target = match env::var_os("CARGO_TARGET_DIR") {
        Some(target) => root.join(target),
        None => root.join("target"),
    };
    Ok(target.join("release/tcptrace"))
}

/// Becomes tcptrace with these arguments; returns only when that fails.
pub fn tcptrace(root: &Path, args: &[OsString]) -> Result<()> {
    let mut command = as_root(&build(root)?)?;
    command.args(args);
    let error = command.exec();
    Err(Error::new(error).context(format!("cannot start `{}`", cmd::line(&command))))
}

/// A command that runs `program` as root: by itself, or through sudo.
pub fn as_root(program: &Path) -> Result<Command> {
    if is_root()? {
        return Ok(Command::new(program));
    }
    ensure!(
        has_sudo(),
        "{} needs root, and there is no sudo here: run this command as root",
        program.display()
    );
    let mut sudo = Command::new("sudo");
    // What follows is the program and its arguments, nothing for sudo itself.
    sudo.arg("--").arg(program);
    Ok(sudo)
}

pub fn is_root() -> Result<bool> {
    let id = cmd::output(Command::new("id").arg("-u")).context("cannot tell whether I am root")?;
    Ok(id.trim() == "0")
}

fn has_sudo() -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join("sudo").is_file())
}
