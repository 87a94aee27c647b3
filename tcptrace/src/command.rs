//! The COMMAND that is traced while it runs.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow};

/// How long a command may take to end after it was told to.
const GRACE: Duration = Duration::from_secs(1);

/// A command that exists, not running yet.
pub struct Command {
    program: std::path::PathBuf,
    args: Vec<OsString>,
}

impl Command {
    /// Looks the program up, so that a wrong name is found before anything is attached. `None`
    /// when `words` is empty.
    pub fn find(words: &[OsString]) -> anyhow::Result<Option<Command>> {
        let Some((name, args)) = words.split_first() else {
            return Ok(None);
        };
        let program = which::which(name).map_err(|_| {
            anyhow!(
                "command not found: {}; give the path of a program, or a name that is in PATH",
                name.display()
            )
        })?;
        Ok(Some(Command {
            program,
            args: args.to_vec(),
        }))
    }

    /// Starts it. What it prints goes to stderr: stdout carries the trace alone.
    pub fn start(self) -> anyhow::Result<Running> {
        let stderr = std::io::stderr().as_fd().try_clone_to_owned()?;
        let child = tokio::process::Command::new(&self.program)
            .args(&self.args)
            .stdout(Stdio::from(stderr))
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        Ok(Running { child })
    }
}

pub struct Running {
    child: tokio::process::Child,
}

impl Running {
    /// Waits for its end. Cancel safe.
    pub async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Makes it end: SIGTERM, and SIGKILL if that does not help. A Ctrl-C at a terminal has
    /// already reached it, and then this only collects it.
    pub async fn end(&mut self) -> std::io::Result<ExitStatus> {
        if let Ok(ended) = tokio::time::timeout(GRACE / 5, self.child.wait()).await {
            return ended;
        }
        if let Some(pid) = self.child.id() {
            // SAFETY: plain system call; the child has not been waited for, so the id is its own.
            unsafe { libc::kill(pid as libc::pid_t, libc::SIGTERM) };
        }
        match tokio::time::timeout(GRACE, self.child.wait()).await {
            Ok(ended) => ended,
            Err(_) => {
                self.child.start_kill()?;
                self.child.wait().await
            }
        }
    }
}

/// The exit code that stands for a command's end: its own, or 128 + the signal that ended it.
pub fn exit_code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        (None, Some(signal)) => 128u8.wrapping_add(signal as u8),
        (None, None) => crate::exit::FAILURE,
    }
}
