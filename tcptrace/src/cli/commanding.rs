//! The options of a command that runs during a trace.

use std::ffi::OsString;

use clap::Args;
use nix::unistd::User;

#[derive(Debug, Args)]
pub struct Commanding {
    /// Run COMMAND as this user, with a clean environment [default: under sudo, the user who called
    /// sudo]
    #[arg(long, value_name = "NAME", requires = "command", value_parser = user, hide_short_help = true)]
    pub user: Option<User>,

    /// Let COMMAND go on when the trace ends, or when tcptrace is killed
    #[arg(long, requires = "command", hide_short_help = true)]
    pub detach_command: bool,

    /// Trace while this command runs, and end with its exit code; its output goes to stderr
    #[arg(last = true, value_name = "COMMAND", hide_short_help = true)]
    pub command: Vec<OsString>,
}

/// Parses the name of a user.
fn user(name: &str) -> Result<User, String> {
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user),
        _ => Err("there is no such user here".into()),
    }
}
