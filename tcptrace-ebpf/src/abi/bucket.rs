//! Records of TIME_WAIT buckets, and of the sockets in a snapshot.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Addrs6, Header};

/// Values of [`Timewait::step`].
pub mod timewait_step {
    /// The bucket replaces its socket.
    pub const BEGUN: u8 = 1;
    /// A segment has restarted the bucket's timer, and may have changed FIN_WAIT2 to TIME_WAIT.
    pub const RESTARTED: u8 = 2;
    /// The bucket's timer has expired.
    pub const EXPIRED: u8 = 3;
    /// A segment ends the bucket early, see [`Timewait::segment`](super::Timewait::segment).
    pub const KILLED: u8 = 4;
    /// The bucket ends early without a segment: a connect() takes its port.
    pub const TAKEN: u8 = 5;
    /// The bucket's network namespace ends.
    pub const PURGED: u8 = 6;
}

/// A TIME_WAIT bucket (`struct inet_timewait_sock`) begins, changes or ends.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Timewait {
    /// Address of the bucket. The kernel reuses it like a socket's.
    pub tw: u64,
    /// The replaced `struct sock` at [`timewait_step::BEGUN`]; else 0.
    pub sk: u64,
    /// `tw_cookie`, copied from the socket; 0 if no cookie was ever requested.
    pub cookie: u64,
    pub netns: u32,
    pub lport: u16,
    pub rport: u16,
    /// [`timewait_step`]
    pub step: u8,
    /// `tw_substate`: TCP_FIN_WAIT2 or TCP_TIME_WAIT.
    pub substate: u8,
    /// At [`timewait_step::KILLED`], the flags of the segment's TCP header (RFC 9293 section 3.1).
    pub segment: u8,
    pub sections: u8,
    pub reserved: u32,
}

/// A socket or a TIME_WAIT bucket in a snapshot of the kernel's sockets.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Socket {
    /// Address of the `struct sock` or of the bucket.
    pub sk: u64,
    /// `skc_cookie`; 0 if no cookie was ever requested.
    pub cookie: u64,
    /// As [`SetState::cgroup`](super::SetState::cgroup); 0 for a bucket.
    pub cgroup: u64,
    /// Inode of the descriptor's `socket:[…]`; 0 if no process has a descriptor, and for a bucket.
    pub inode: u64,
    pub netns: u32,
    /// `sk_uid`; 0 for a bucket. The next two fields are 0 for a bucket as well.
    pub uid: u32,
    pub backlog_len: u32,
    pub backlog_max: u32,
    pub lport: u16,
    pub rport: u16,
    /// `skc_state`. It is TCP_TIME_WAIT for every bucket.
    pub state: u8,
    /// `tw_substate` of a bucket, else 0.
    pub substate: u8,
    /// [`state_flag`](super::state_flag) bits except OWNED, which the iterator's own lock would
    /// set.
    pub flags: u8,
    pub reserved: u8,
}

/// The record of a [`Socket`]. All records have the same length, with IPv4 addresses IPv4-mapped,
/// because the reader gets a stream of bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SocketRecord {
    pub header: Header,
    pub socket: Socket,
    pub addrs: Addrs6,
}
