//! The COMMAND that runs during a trace.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow};

/// How long a command may run after SIGTERM.
const GRACE: Duration = Duration::from_secs(1);

/// A command whose program has been found, but not started.
pub struct Command {
    program: std::path::PathBuf,
    args: Vec<OsString>,
}

impl Command {
    /// Looks up the program, so that a wrong name is reported before anything is attached. Returns
    /// `None` if `words` is empty.
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

    /// Starts the command with its stdout redirected to stderr, because stdout carries the trace.
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
    /// Waits until the command ends. Cancel safe.
    pub async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Ends the command: sends SIGTERM, and SIGKILL if it is still running after [`GRACE`].
    ///
    /// A Ctrl-C at a terminal signals the whole process group. The short wait at the start gives
    /// the command time to end by itself.
    pub async fn end(&mut self) -> std::io::Result<ExitStatus> {
        if let Ok(ended) = tokio::time::timeout(GRACE / 5, self.child.wait()).await {
            return ended;
        }
        if let Some(pid) = self.child.id() {
            // SAFETY: plain system call. The command has not been waited for, so its process id
            // cannot have been reused.
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

/// Returns the exit code for a command's exit status: its own code, or 128 + the signal that ended
/// it.
pub fn exit_code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        (None, Some(signal)) => 128u8.wrapping_add(signal as u8),
        (None, None) => crate::exit::FAILURE,
    }
}
