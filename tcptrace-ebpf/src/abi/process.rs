//! Records of processes: exits, new names, and descriptors of TCP sockets.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Header;

/// An exit or a new name of a process that has had a socket of the trace.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Process {
    /// The kernel's tgid.
    pub pid: u32,
    /// [`process_step`]
    pub step: u8,
    pub reserved: [u8; 3],
    /// The name of its first thread, NUL padded. At [`process_step::RENAMED`], the new name.
    pub comm: [u8; 16],
}

/// Values of [`Process::step`].
pub mod process_step {
    /// The last thread exits. The kernel closes the descriptors after this.
    pub const EXITED: u8 = 1;
    /// The first thread gets a new name.
    pub const RENAMED: u8 = 2;
}

/// A descriptor of a TCP socket, found by the iterator over all descriptors.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Holder {
    /// Address of the `struct sock`. For an MPTCP socket, its first subflow's.
    pub sk: u64,
    /// As [`Socket::inode`](super::Socket::inode).
    pub inode: u64,
    /// The process: the kernel's tgid.
    pub pid: u32,
    /// `skc_state`
    pub state: u8,
    pub reserved: [u8; 3],
    /// The name of its first thread, NUL padded.
    pub comm: [u8; 16],
}

/// The record of a [`Holder`]. The reader gets a stream of them.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HolderRecord {
    pub header: Header,
    pub holder: Holder,
}

/// A process's numbers in two PID namespaces.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct NamespacedPid {
    /// The kernel's tgid: the number in the initial PID namespace.
    pub pid: u32,
    /// The number in the PID namespace of the iterator's reader.
    pub pid_in_reader: u32,
}
