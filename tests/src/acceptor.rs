//! A separate process that shares a listener with the scenario.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};

use crate::{eventually, run};

/// A `tests-helper` process that calls accept() once each time the scenario asks for it.
pub struct Acceptor {
    child: Child,
}

impl Acceptor {
    /// Starts `tests-helper`, which inherits a listener of this process.
    pub fn start(listener: &TcpListener) -> Acceptor {
        let fd = listener.as_raw_fd();
        let mut command = run::helper(&["accept-in-turn", &fd.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // Rust opens descriptors close-on-exec. The listener's descriptor must stay open in
        // `tests-helper` only.
        // SAFETY: fcntl is async-signal-safe.
        unsafe {
            command.pre_exec(move || match libc::fcntl(fd, libc::F_SETFD, 0) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        Acceptor {
            child: command.spawn().expect("start the helper"),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Accepts one connection. Returns the port of its client.
    pub fn accept_one(&mut self) -> u16 {
        let stdin = self.child.stdin.as_mut().expect("a pipe");
        writeln!(stdin, "accept").unwrap();
        let mut line = String::new();
        let stdout = self.child.stdout.as_mut().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).unwrap();
        line.trim().parse().expect("a port")
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        eventually("an acceptor to end", || self.child.try_wait().unwrap());
    }
}
