//! The exit codes, and ending the process at once.

use std::sync::OnceLock;

/// Done; a reader that closed the pipe is no failure.
pub const DONE: u8 = 0;
/// Something failed at run time.
pub const FAILURE: u8 = 1;
/// The command line is wrong.
pub const USAGE: u8 = 2;
/// The privileges for tracing are missing.
pub const NOT_PERMITTED: u8 = 3;
/// The kernel lacks what is required.
pub const UNSUPPORTED: u8 = 4;
/// What was asked for with --expect did not hold, or could not be known.
pub const NOT_MET: u8 = 5;
/// Ended at once by a second Ctrl-C: 128 + SIGINT, as shells have it.
pub const INTERRUPTED: u8 = 130;

/// The command line cannot be obeyed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

static BEFORE: OnceLock<fn()> = OnceLock::new();

/// Has something done before [`at_once`] ends the process. The first one asked for counts.
pub fn before(act: fn()) {
    let _ = BEFORE.set(act);
}

/// Ends the process without waiting for anybody.
pub fn at_once(code: u8) -> ! {
    if let Some(act) = BEFORE.get() {
        act();
    }
    std::process::exit(code.into())
}
