//! TIME_WAIT buckets, and sockets as a look through the kernel finds them.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Addrs6, Header};

/// What happens to a TIME_WAIT bucket: [`Timewait::step`].
pub mod timewait_step {
    /// It takes its socket's place.
    pub const BEGUN: u8 = 1;
    /// A segment has started its timer again, and may have turned FIN_WAIT2 into TIME_WAIT.
    pub const RESTARTED: u8 = 2;
    /// Its timer has run out.
    pub const EXPIRED: u8 = 3;
    /// A segment ends it before its time, see [`Timewait::segment`](super::Timewait::segment).
    pub const KILLED: u8 = 4;
    /// It ends before its time without a segment: a connect() takes its port.
    pub const TAKEN: u8 = 5;
    /// Its network namespace ends.
    pub const PURGED: u8 = 6;
}

/// A TIME_WAIT bucket (`struct inet_timewait_sock`) begins, changes or ends.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Timewait {
    /// Address of the bucket, reused as a socket's is.
    pub tw: u64,
    /// The `struct sock` that it replaces, at [`timewait_step::BEGUN`]; else 0.
    pub sk: u64,
    /// `tw_cookie`, copied from the socket; 0 where nobody has asked for one.
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

/// A socket or a TIME_WAIT bucket, as a look through the kernel's found it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Socket {
    /// Address of the `struct sock`, or of the bucket.
    pub sk: u64,
    /// `skc_cookie`: 0 where nobody has asked for one.
    pub cookie: u64,
    /// As [`SetState::cgroup`](super::SetState::cgroup); 0 for a bucket.
    pub cgroup: u64,
    /// Inode of the descriptor's `socket:[…]`; 0 when no process has one, and for a bucket.
    pub inode: u64,
    pub netns: u32,
    /// `sk_uid`; 0 for a bucket, as are the next two.
    pub uid: u32,
    pub backlog_len: u32,
    pub backlog_max: u32,
    pub lport: u16,
    pub rport: u16,
    /// `skc_state`: TCP_TIME_WAIT for a bucket, whatever its substate.
    pub state: u8,
    /// `tw_substate` of a bucket, else 0.
    pub substate: u8,
    /// [`state_flag`] bits but OWNED: whoever looks has locked it.
    pub flags: u8,
    pub reserved: u8,
}

/// The whole record of a [`Socket`]; always so long, with IPv4 addresses IPv4-mapped, because it
/// comes as a stream of bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SocketRecord {
    pub header: Header,
    pub socket: Socket,
    pub addrs: Addrs6,
}
