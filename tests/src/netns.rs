//! A network namespace with a loopback interface.

use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::os::unix::fs::MetadataExt;

use nix::sched::{CloneFlags, unshare};
use socket2::{Domain, Socket, Type};

/// The namespace that the calling thread has entered. It ends with its last thread and socket.
#[derive(Clone, Copy, Debug)]
pub struct Netns {
    /// Inode number, as in `netns` of the lines.
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

/// Switches the namespace's loopback interface on or off. While it is off, every segment is lost.
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

/// Gives the namespace's loopback interface an IPv6 address. Returns the interface's index.
pub fn add_loopback_address(address: Ipv6Addr) -> u32 {
    /// `struct in6_ifreq`, include/uapi/linux/ipv6.h
    #[repr(C)]
    struct Request {
        address: [u8; 16],
        prefix_len: u32,
        ifindex: libc::c_int,
    }
    // SAFETY: a static name.
    let ifindex = unsafe { libc::if_nametoindex(c"lo".as_ptr()) };
    let request = Request {
        address: address.octets(),
        prefix_len: 64,
        ifindex: ifindex as libc::c_int,
    };
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, None).expect("a socket");
    // SAFETY: SIOCSIFADDR of an IPv6 socket reads a struct in6_ifreq, and this one outlives the call.
    let result = unsafe {
        use std::os::fd::AsRawFd;
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFADDR as _, &request)
    };
    let error = std::io::Error::last_os_error();
    assert_eq!(result, 0, "give lo {address}: {error}");
    // Duplicate address detection has no peers on lo, but a kernel worker has to run before the
    // address stops being tentative. Until then no socket can be bound to it.
    let end = SocketAddrV6::new(address, 0, 0, ifindex);
    crate::eventually("the address to be usable", || UdpSocket::bind(end).ok());
    ifindex
}
