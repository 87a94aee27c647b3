//! Standard output and standard error, for whatever is not a line of a trace.
//!
//! `println!` and `eprintln!` panic when they cannot write, as on a full disk or a closed pipe, so
//! Clippy denies them in this crate (`lib.rs`).

use std::fmt::Display;
use std::io::{self, Write};

use crate::exit;
use crate::printable::printable;

/// Writes a message to standard error: one line, in one write, with nothing in it that a terminal
/// would obey. Where that cannot be written there is nobody left to tell.
pub fn say(message: impl Display) {
    let line = format!("tcptrace: {}\n", printable(&message.to_string()));
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Writes to standard output, to the last byte.
///
/// # Errors
/// Standard output's own.
pub fn print(text: impl AsRef<[u8]>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_ref())?;
    stdout.flush()
}

/// The exit code after writing to standard output; what went wrong is said. A reader that closed
/// the pipe has seen enough, which is no failure.
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

/// An error of the operating system without its number.
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((text, _)) => text.to_owned(),
        None => text,
    }
}

/// Ends the process: there is no memory. Takes none to say so.
#[cold]
pub fn out_of_memory() -> ! {
    let message = b"tcptrace: out of memory; raise the limit (ulimit -v), or free some\n";
    // SAFETY: plain system calls, with a message that is as long as it says.
    unsafe {
        libc::write(libc::STDERR_FILENO, message.as_ptr().cast(), message.len());
        libc::_exit(exit::FAILURE.into())
    }
}
