//! A private network namespace, without other traffic and without remains of earlier runs.

use std::{io, net::UdpSocket, os::fd::AsRawFd as _};

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, unshare};

/// Moves the calling thread and its later children into a new namespace with a loopback interface.
/// The namespace ends with its last process.
pub fn enter() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
    let socket = UdpSocket::bind("0.0.0.0:0").context("cannot make a socket")?;
    // SAFETY: all zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo\0") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq, and this one outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) };
    let error = io::Error::last_os_error();
    ensure!(
        result == 0,
        "cannot switch the loopback interface on: {error}"
    );
    Ok(())
}
