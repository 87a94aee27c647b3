//! Exit codes, and which error ends in which.

use std::io;
use std::process::ExitCode;
use std::sync::OnceLock;

use crate::capture::{CaptureError, os_error};

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

/// The exit code that an error ends in.
pub fn code_of(error: &anyhow::Error) -> ExitCode {
    if error.is::<Usage>() {
        return ExitCode::from(USAGE);
    }
    let code = match error.downcast_ref::<CaptureError>() {
        Some(CaptureError::NotPermitted(_)) => NOT_PERMITTED,
        Some(CaptureError::Unsupported(_)) => UNSUPPORTED,
        Some(CaptureError::Failed(_)) | None => FAILURE,
    };
    ExitCode::from(code)
}

/// What is said of an error, in one line.
pub fn message(error: &anyhow::Error) -> String {
    match os_error(error) {
        Some(libc::EMFILE) => format!(
            "out of file descriptors: tcptrace may have {} open (ulimit -n), and needs up to {DESCRIPTORS}",
            descriptor_limit()
        ),
        // The kernel's other EAGAINs come with what was asked for.
        Some(libc::EAGAIN) if error.is::<io::Error>() => {
            "cannot start a thread: there is no memory for it (ulimit -v), or there are too many \
             (ulimit -u)"
                .to_owned()
        }
        Some(libc::ENFILE) => {
            "the whole machine is out of file descriptors (fs.file-max)".to_owned()
        }
        _ => format!("{error:#}"),
    }
}

/// File descriptors that a trace needs at most: maps, programs, their links, and what a look
/// through the machine's namespaces has open.
const DESCRIPTORS: u64 = 128;

fn descriptor_limit() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: a valid place for the answer; the call cannot fail.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    limit.rlim_cur
}

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
