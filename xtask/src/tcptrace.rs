//! Builds tcptrace and runs it, as root.

use std::{
    env,
    ffi::OsString,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Error, Result};

use crate::cmd;

/// Builds the release binary. Returns its path.
pub fn build(root: &Path) -> Result<PathBuf> {
    build_with(root, &[])
}

/// Like [`build`], with further arguments for cargo.
pub fn build_with(root: &Path, args: &[&str]) -> Result<PathBuf> {
    let build = ["build", "--quiet", "--release", "--package", "tcptrace"];
    cmd::run(cmd::cargo(root).args(build).args(args))?;
    Ok(target(root).join("release/tcptrace"))
}

/// Cargo's target directory. Like cargo, respects the user's choice.
pub fn target(root: &Path) -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR") {
        Some(target) => root.join(target),
        None => root.join("target"),
    }
}

/// Replaces this process by tcptrace with these arguments. Returns only on failure. Unlike tests,
/// tcptrace reads its configuration files.
pub fn exec(root: &Path, args: &[OsString]) -> Result<()> {
    let mut command = cmd::as_root(&build(root)?)?;
    command.args(args).env_remove("TCPTRACE_NO_CONFIG");
    let error = command.exec();
    Err(Error::new(error).context(format!("cannot start `{}`", cmd::line(&command))))
}
