//! Processes: their ends and names, and the descriptors that they have.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Header;

/// A process that has had a socket of the trace has exited, or has a new name.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Process {
    /// The kernel's tgid.
    pub pid: u32,
    /// [`process_step`]
    pub step: u8,
    pub reserved: [u8; 3],
    /// The name of its first thread, NUL padded; the new one at [`process_step::RENAMED`].
    pub comm: [u8; 16],
}

/// What [`Process::step`] can be.
pub mod process_step {
    /// Its last thread exits. Its descriptors are closed after this.
    pub const EXITED: u8 = 1;
    /// Its first thread gets a new name.
    pub const RENAMED: u8 = 2;
}

/// A descriptor of a TCP socket, as a look through those of all processes found it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Holder {
    /// Address of the `struct sock`; of a multipath TCP socket, its first subflow's.
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

/// The whole record of a [`Holder`], one after another in a stream of bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HolderRecord {
    pub header: Header,
    pub holder: Holder,
}

/// A process, as a look through all of them found it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Numbered {
    /// The kernel's tgid, its number in the first PID namespace.
    pub pid: u32,
    /// Its number in the PID namespace of the one who looks.
    pub inner: u32,
}
