//! The COMMAND that runs during a trace.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, getpid, getppid, getrlimit, set_parent_process_death_signal,
    setrlimit, setsid,
};
use rustix::thread::CapabilitySet;

use crate::cli::Commanding;
use crate::command_user::Identity;

/// How long a command may run after SIGTERM.
const GRACE: Duration = Duration::from_secs(1);

/// A command whose program has been found, but not started.
pub struct Command {
    program: std::path::PathBuf,
    args: Vec<OsString>,
    /// `None`: the user that this process runs as.
    user: Option<Identity>,
    is_detached: bool,
    limits: [(Resource, Rlimit); 2],
}

impl Command {
    /// Looks up the program, so that a wrong name is reported before anything is attached. Returns
    /// `None` if `words` is empty.
    pub fn find(options: &Commanding) -> anyhow::Result<Option<Command>> {
        let Some((name, args)) = options.command.split_first() else {
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
            user: Identity::of_command(options.user.as_ref())?,
            is_detached: options.detach_command,
            // Attaching raises them.
            limits: [Resource::Memlock, Resource::Nice].map(|it| (it, getrlimit(it))),
        }))
    }

    /// Starts the command with its stdout redirected to stderr, because stdout carries the trace.
    ///
    /// It has a session of its own, so that it cannot write to the terminal's input, which root's shell
    /// reads. It has no other descriptors than the standard ones.
    pub fn start(self) -> anyhow::Result<Running> {
        let stderr = std::io::stderr().as_fd().try_clone_to_owned()?;
        let mut command = tokio::process::Command::new(&self.program);
        command.args(&self.args).stdout(Stdio::from(stderr));
        if let Some(user) = &self.user {
            command.env_clear();
            command.envs(user.environment(std::env::vars_os()));
        }
        let is_of_other = self.user.is_some();
        let Command {
            program,
            user,
            is_detached,
            limits,
            ..
        } = self;
        let parent = getpid();
        let prepare = move || {
            for (resource, limit) in &limits {
                setrlimit(*resource, *limit)?;
            }
            setsid()?;
            close_on_exec();
            if let Some(user) = &user {
                user.assume()?;
            }
            if !is_detached {
                // Changing the user clears the signal, so it is set last.
                set_parent_process_death_signal(Some(Signal::KILL))?;
                if getppid() != Some(parent) {
                    return Err(io::Error::from_raw_os_error(libc::ESRCH));
                }
            }
            Ok(())
        };
        // SAFETY: the closure makes only system calls, and allocates nothing.
        let started = unsafe { command.pre_exec(prepare) }.spawn();
        let child = started.with_context(|| format!("cannot run {}", program.display()))?;
        Ok(Running {
            child,
            is_of_other,
            is_detached,
        })
    }
}

/// Closes all descriptors but the standard ones when a program is executed.
fn close_on_exec() {
    const FIRST: libc::c_uint = 3;
    // SAFETY: plain system calls. CLOSE_RANGE_CLOEXEC came with Linux 5.11; before, each descriptor is
    // marked. An error means that a descriptor is not open.
    unsafe {
        let flags = libc::CLOSE_RANGE_CLOEXEC;
        if libc::syscall(libc::SYS_close_range, FIRST, libc::c_uint::MAX, flags) != 0 {
            let most = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
            for fd in FIRST..most.min(1 << 20) as libc::c_uint {
                libc::fcntl(fd as libc::c_int, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
    }
}

pub struct Running {
    child: tokio::process::Child,
    is_of_other: bool,
    is_detached: bool,
}

impl Running {
    /// Returns the capabilities that ending the command needs.
    pub fn needs(&self) -> CapabilitySet {
        match self.is_of_other && !self.is_detached {
            true => CapabilitySet::KILL,
            false => CapabilitySet::empty(),
        }
    }

    /// Waits until the command ends. Cancel safe.
    pub async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Ends the command and its process group: sends SIGTERM, and SIGKILL if the command is still
    /// running after [`GRACE`]. Returns `None` for a command that goes on.
    pub async fn end(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.is_detached {
            return Ok(None);
        }
        // The short wait gives the command time to end by itself.
        if let Ok(ended) = tokio::time::timeout(GRACE / 5, self.child.wait()).await {
            return ended.map(Some);
        }
        self.signal(Signal::TERM);
        match tokio::time::timeout(GRACE, self.child.wait()).await {
            Ok(ended) => ended.map(Some),
            Err(_) => {
                self.signal(Signal::KILL);
                self.child.wait().await.map(Some)
            }
        }
    }

    /// Signals the process group, which the command leads. The command has not been waited for, so its
    /// process id cannot have been reused.
    fn signal(&self, signal: Signal) {
        let group = self.child.id().and_then(|id| Pid::from_raw(id as i32));
        if let Some(group) = group {
            let _ = rustix::process::kill_process_group(group, signal);
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
