//! A network namespace with a loopback interface.

use std::os::unix::fs::MetadataExt;

use nix::sched::{CloneFlags, unshare};
use socket2::{Domain, Socket, Type};

/// The namespace that the calling thread has entered; it ends with its last thread and socket.
#[derive(Clone, Copy, Debug)]
pub struct Netns {
    /// Its inode, as in the lines' `netns`.
    pub inode: u32,
}

impl Netns {
    pub fn enter() -> Netns {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace wants root");
        set_loopback(true);
        let inode = std::fs::metadata("/proc/thread-self/ns/net")
            .expect("/proc is mounted")
            .ino();
        Netns {
            inode: inode as u32,
        }
    }
}

/// Switches the namespace's loopback interface on or off. While it is off every segment is lost.
pub fn set_loopback(on: bool) {
    // SAFETY: all zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo\0") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = if on { libc::IFF_UP as libc::c_short } else { 0 };
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
    // SAFETY: SIOCSIFFLAGS reads an ifreq, and this one outlives the call.
    let result = unsafe {
        use std::os::fd::AsRawFd;
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request)
    };
    let error = std::io::Error::last_os_error();
    assert_eq!(result, 0, "switch lo: {error}");
}
