//! Builds tcptrace and runs it, as root.

use std::{
    env,
    ffi::OsString,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Error, Result};

use crate::cmd;

/// Builds the release binary and gives its path.
pub fn build(root: &Path) -> Result<PathBuf> {
    build_with(root, &[])
}

/// The same with more arguments for cargo.
pub fn build_with(root: &Path, args: &[&str]) -> Result<PathBuf> {
    let build = ["build", "--quiet", "--release", "--package", "tcptrace"];
    cmd::run(cmd::cargo(root).args(build).args(args))?;
    // A target folder of the user's own choice is respected, as cargo does.
    let target = match env::var_os("CARGO_TARGET_DIR") {
        Some(target) => root.join(target),
        None => root.join("target"),
    };
    Ok(target.join("release/tcptrace"))
}

/// Becomes tcptrace with these arguments; returns only when that fails.
pub fn exec(root: &Path, args: &[OsString]) -> Result<()> {
    let mut command = cmd::as_root(&build(root)?)?;
    command.args(args);
    let error = command.exec();
    Err(Error::new(error).context(format!("cannot start `{}`", cmd::line(&command))))
}
