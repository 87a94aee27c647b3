//! Runs other programs. Every error names the command line that failed.

use std::{
    env,
    ffi::OsStr,
    iter,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Error, Result, ensure};

/// Returns the project's top folder.
///
/// Asks cargo at run time, because a compiled-in path becomes wrong when the folder is moved.
pub fn root() -> Result<PathBuf> {
    let xtask = env::var_os("CARGO_MANIFEST_DIR")
        .context("CARGO_MANIFEST_DIR is not set: start this program as `cargo xtask`")?;
    let root = Path::new(&xtask)
        .parent()
        .context("xtask lies in no folder")?;
    Ok(root.to_path_buf())
}

/// Builds a `cargo` command with the toolchain that runs this program, in the project's top folder.
pub fn cargo(root: &Path) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root);
    cargo
}

/// Returns cargo's folder, which has the sources of the dependencies.
pub fn cargo_home() -> Result<PathBuf> {
    match env::var_os("CARGO_HOME") {
        Some(home) => Ok(home.into()),
        None => Ok(env::home_dir()
            .context("neither CARGO_HOME nor HOME is set")?
            .join(".cargo")),
    }
}

/// Runs a command whose output goes to the terminal.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start `{}`", line(command)))?;
    ensure!(status.success(), "`{}` failed: {status}", line(command));
    Ok(())
}

/// Runs a command and returns its output. Its stderr goes to the terminal.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{}`", line(command)))?;
    ensure!(
        output.status.success(),
        "`{}` failed: {}",
        line(command),
        output.status
    );
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` printed no UTF-8", line(command)))
}

/// Returns the command line as a user would type it.
pub fn line(command: &Command) -> String {
    let program = command.get_program();
    let is_cargo = env::var_os("CARGO").is_some_and(|cargo| cargo == program);
    let program = if is_cargo {
        OsStr::new("cargo")
    } else {
        program
    };
    let words = iter::once(program).chain(command.get_args());
    words
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Builds a command that runs `program` as root: directly, or through sudo.
pub fn as_root(program: &Path) -> Result<Command> {
    let mut command = match sudo()? {
        None => return Ok(Command::new(program)),
        Some(sudo) => Command::new(sudo),
    };
    // The program and its arguments follow, no options of sudo.
    command.arg("--").arg(program);
    Ok(command)
}

/// Returns the command that becomes root: `None` for root, else sudo.
pub fn sudo() -> Result<Option<&'static str>> {
    if nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    ensure!(
        is_installed("sudo"),
        "this needs root, and there is no sudo here: run it as root"
    );
    Ok(Some("sudo"))
}

/// Replaces this process by the same command as root, with `--built` and the folder of the built
/// programs. Returns only on failure.
pub fn again_as_root(sudo: &str, built: &Path) -> Result<Error> {
    let mut command = Command::new(sudo);
    command
        .args(["--preserve-env", "--"])
        .arg(env::current_exe()?)
        .args(env::args_os().skip(1))
        .arg("--built")
        .arg(built);
    let error = command.exec();
    Ok(Error::new(error).context(format!("cannot start `{}`", line(&command))))
}

/// Returns true if a program with this name is in PATH.
pub fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
