//! Exit code and one-line message of an error that ends the program.

use std::io;
use std::process::ExitCode;

use crate::capture::{CaptureError, os_error};
use crate::exit::{FAILURE, NOT_PERMITTED, UNSUPPORTED, USAGE, Usage};

/// Returns the exit code for an error.
pub fn code_of(error: &anyhow::Error) -> ExitCode {
    if error.is::<Usage>() {
        return ExitCode::from(USAGE);
    }
    let code = match error.downcast_ref::<CaptureError>() {
        Some(CaptureError::NotPermitted(_)) => NOT_PERMITTED,
        Some(CaptureError::Unsupported(_)) => UNSUPPORTED,
        Some(CaptureError::Failed(failed)) if failed.is::<Usage>() => USAGE,
        Some(CaptureError::Failed(_)) | None => FAILURE,
    };
    ExitCode::from(code)
}

/// Returns the one-line message for an error.
pub fn message(error: &anyhow::Error) -> String {
    match os_error(error) {
        Some(libc::EMFILE) => format!(
            "out of file descriptors: tcptrace may have {} open (ulimit -n), and needs up to {DESCRIPTORS}",
            descriptor_limit()
        ),
        // An EAGAIN from the kernel during capture is a `CaptureError`, which has its own message.
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

/// Upper bound on the file descriptors of a trace: maps, programs, links, and the files of a socket
/// snapshot in all namespaces.
const DESCRIPTORS: u64 = 128;

fn descriptor_limit() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is valid for writing. The call cannot fail with these arguments.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    limit.rlim_cur
}
