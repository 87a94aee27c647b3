//! Exit codes, and a way to end the process immediately.

use std::sync::OnceLock;

/// Success. A reader that closes the pipe early is also success.
pub const DONE: u8 = 0;
/// A failure at run time, or a damaged recording.
pub const FAILURE: u8 = 1;
/// The command line is wrong.
pub const USAGE: u8 = 2;
/// The process lacks the privileges to trace.
pub const NOT_PERMITTED: u8 = 3;
/// The kernel lacks a required feature.
pub const UNSUPPORTED: u8 = 4;
/// An `--expect` condition did not hold, or could not be decided.
pub const NOT_MET: u8 = 5;
/// A second Ctrl-C ended the process immediately: 128 + SIGINT, as in shells.
pub const INTERRUPTED: u8 = 130;

/// The command line is wrong. The text is the message to the user.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

static BEFORE: OnceLock<fn()> = OnceLock::new();

/// Registers a function that [`at_once`] calls before it ends the process. Only the first
/// registration counts.
pub fn before(act: fn()) {
    let _ = BEFORE.set(act);
}

/// Ends the process immediately. Does not wait for other threads or outputs.
pub fn at_once(code: u8) -> ! {
    if let Some(act) = BEFORE.get() {
        act();
    }
    std::process::exit(code.into())
}
