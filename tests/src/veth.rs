//! A veth pair between two network namespaces. One end is in a bridge.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use socket2::{Domain, Socket, Type};

/// The bridge with one end of the pair.
pub const BRIDGE: &CStr = c"test-br";
const NEAR: &CStr = c"test-near";
/// The end in the other namespace.
pub const FAR: &CStr = c"test-far";

/// include/uapi/linux/sockios.h
const SIOCBRADDBR: libc::c_ulong = 0x89a0;
const SIOCBRADDIF: libc::c_ulong = 0x89a2;

/// include/uapi/linux/veth.h
const VETH_INFO_PEER: u16 = 1;

/// Connects a bridge of the calling thread's namespace with [`FAR`] in `other`. Returns false on a
/// kernel without veth or bridges.
pub fn connect(other: &File) -> bool {
    if unless_unsupported(add_pair(other)).is_none() {
        return false;
    }
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
    // SAFETY: SIOCBRADDBR reads a name, and this one is static.
    let made = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCBRADDBR as _, BRIDGE.as_ptr()) };
    let made = if made == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    };
    if unless_unsupported(made).is_none() {
        return false;
    }
    let mut request = request(BRIDGE);
    // SAFETY: takes a static name.
    request.ifr_ifru.ifru_ifindex = unsafe { libc::if_nametoindex(NEAR.as_ptr()) } as libc::c_int;
    control(&socket, SIOCBRADDIF, &request);
    up(NEAR);
    true
}

/// Gives a device an address in 10.77.0.0/24 and switches it on.
pub fn configure(device: &CStr, address: Ipv4Addr) {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
    for (what, address) in [
        (libc::SIOCSIFADDR, address),
        (libc::SIOCSIFNETMASK, Ipv4Addr::new(255, 255, 255, 0)),
    ] {
        // SAFETY: all zero is a valid sockaddr_in, which fits into the union and is as long as a
        // sockaddr.
        unsafe {
            let mut name: libc::sockaddr_in = std::mem::zeroed();
            name.sin_family = libc::AF_INET as libc::sa_family_t;
            name.sin_addr.s_addr = u32::from_ne_bytes(address.octets());
            let mut request = request(device);
            request.ifr_ifru.ifru_addr =
                std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(name);
            control(&socket, what, &request);
        }
    }
    up(device);
}

fn up(device: &CStr) {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket");
    let mut request = request(device);
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    control(&socket, libc::SIOCSIFFLAGS, &request);
}

fn request(device: &CStr) -> libc::ifreq {
    // SAFETY: all zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(device.to_bytes()) {
        *to = *from as libc::c_char;
    }
    request
}

fn control(socket: &Socket, what: libc::c_ulong, request: &libc::ifreq) {
    // SAFETY: these requests read an ifreq, and this one outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), what as _, request) };
    let error = io::Error::last_os_error();
    assert_eq!(result, 0, "set up a device: {error}");
}

/// Returns `None` if the kernel does not support the operation.
#[track_caller]
fn unless_unsupported(result: io::Result<()>) -> Option<()> {
    match result {
        Ok(()) => Some(()),
        Err(error) => match error.raw_os_error() {
            Some(libc::EOPNOTSUPP | libc::ENOPKG | libc::ENOTTY) => None,
            _ => panic!("a veth pair and a bridge: {error}"),
        },
    }
}

/// Does `ip link add NEAR type veth peer name FAR netns OTHER` (man 7 rtnetlink).
fn add_pair(other: &File) -> io::Result<()> {
    let peer = [
        vec![0; 16], // struct ifinfomsg
        attribute(libc::IFLA_IFNAME, FAR.to_bytes_with_nul()),
        attribute(libc::IFLA_NET_NS_FD, &other.as_raw_fd().to_ne_bytes()),
    ];
    let link = [
        attribute(libc::IFLA_INFO_KIND, b"veth\0"),
        attribute(
            libc::IFLA_INFO_DATA,
            &attribute(VETH_INFO_PEER, &peer.concat()),
        ),
    ];
    let body = [
        vec![0; 16], // struct ifinfomsg
        attribute(libc::IFLA_IFNAME, NEAR.to_bytes_with_nul()),
        attribute(libc::IFLA_LINKINFO, &link.concat()),
    ]
    .concat();
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let mut message = Vec::new();
    message.extend((16 + body.len() as u32).to_ne_bytes());
    message.extend(libc::RTM_NEWLINK.to_ne_bytes());
    message.extend((flags as u16).to_ne_bytes());
    message.extend([0; 8]); // sequence number and port
    message.extend(body);

    // SAFETY: plain system calls on buffers that outlive them; the descriptor is ours.
    let answer = unsafe {
        let socket = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE);
        assert!(socket >= 0, "a netlink socket");
        let socket = OwnedFd::from_raw_fd(socket);
        let mut answer = [0u8; 1024];
        let sent = libc::send(
            socket.as_raw_fd(),
            message.as_ptr().cast(),
            message.len(),
            0,
        );
        assert_eq!(sent, message.len() as isize, "ask for a veth pair");
        let size = libc::recv(
            socket.as_raw_fd(),
            answer.as_mut_ptr().cast(),
            answer.len(),
            0,
        );
        assert!(size >= 20, "an answer");
        answer
    };
    // A struct nlmsgerr follows the header: a negated errno, 0 for success.
    match i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]) {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(-errno)),
    }
}

/// Builds a struct rtattr with its data, padded to four bytes.
fn attribute(kind: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend((4 + data.len() as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}
