//! Standard output and standard error, for everything except the lines of a trace.
//!
//! Clippy denies `println!` and `eprintln!` in this crate (`lib.rs`): they panic if a write fails,
//! for example on a full disk or a closed pipe.

use std::fmt::Display;
use std::io::{self, Write};

use crate::exit;
use crate::printable::printable;

/// Writes a one-line message to standard error in one write, with control characters escaped. Ignores
/// a failed write, because there is nowhere else to report it.
pub fn say(message: impl Display) {
    let line = format!("tcptrace: {}\n", printable(&message.to_string()));
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Writes all of `text` to standard output.
///
/// # Errors
/// The error of the failed write.
pub fn print(text: impl AsRef<[u8]>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_ref())?;
    stdout.flush()
}

/// Returns the exit code for a write to standard output, and reports a failure on stderr. A reader
/// that closes the pipe early is success.
pub fn code_of(written: io::Result<()>) -> u8 {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            say(format_args!(
                "cannot write to standard output: {}",
                plain(&error)
            ));
            exit::FAILURE
        }
        _ => exit::DONE,
    }
}

/// Returns the text of an operating-system error without its number.
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((text, _)) => text.to_owned(),
        None => text,
    }
}

/// Ends the process with a message. Allocates no memory.
#[cold]
pub fn out_of_memory() -> ! {
    let message = b"tcptrace: out of memory; raise the limit (ulimit -v), or free some\n";
    // SAFETY: plain system calls. The pointer and the length belong to one byte string.
    unsafe {
        libc::write(libc::STDERR_FILENO, message.as_ptr().cast(), message.len());
        libc::_exit(exit::FAILURE.into())
    }
}
