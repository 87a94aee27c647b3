//! A socket's life, joined in the kernel: what `--depth connections` sends instead of its events.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Accept, Addrs6, SetState, Stats, Task};

/// Values of the `DEPTH` global: what becomes of a socket's events.
pub mod depth {
    /// Each is a record.
    pub const EVENTS: u32 = 0;
    /// They are kept in `LIVES`, and are one record at the end.
    pub const CONNECTIONS: u32 = 1;
    /// They are counted where they belong, and are no record.
    pub const HISTOGRAM: u32 = 2;
}

/// More changes of state than a life can have before CLOSE: by the diagram of RFC 9293, section
/// 3.3.2, there are five at most (SYN_SENT, SYN_RECV, ESTABLISHED, FIN_WAIT1, CLOSING).
pub const STEPS: usize = 8;

/// What a socket did from its birth on. The value of the `LIVES` map, and the payload of
/// [`kind::LIFE`](super::kind::LIFE).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Life {
    /// When it entered each of its states, as [`Header::mono_ns`](super::Header::mono_ns).
    pub entered_ns: [u64; STEPS],
    /// The states, `TCP_*` of include/net/tcp_states.h.
    pub states: [u8; STEPS],
    /// [`state_flag`](super::state_flag) bits at each.
    pub flags: [u8; STEPS],
    /// How many of these are set; 0 of a life that is over, whose place is kept for the next.
    pub steps: u8,
    /// The state that it was in before the first.
    pub born_from: u8,
    /// 1 once `closed` is set; else it was still open when the trace ended, or it went without
    /// CLOSE.
    pub is_closed: u8,
    /// 1 once it is counted in `TALLIES`, so that nothing more is to be told of it.
    pub is_tallied: u8,
    /// The first CPU that it was seen on.
    pub cpu: u16,
    /// 1 once the accept() that returned it has noted itself, looked for CLOSE, and found none.
    pub is_settled: u8,
    pub reserved: u8,
    /// Added to between a write and a read that must not be swapped.
    pub fence: u64,
    /// When an accept() returned it, 0 when none did.
    pub accepted_ns: u64,
    /// As it was born, from ESTABLISHED on as of then. Followed by `ends`, and by `task` if its
    /// sections say so.
    pub born: SetState,
    pub ends: Addrs6,
    pub task: Task,
    /// Of the accept(), if one returned it.
    pub accept: Accept,
    /// That listener's address, as [`AcceptEnds::listener`](super::AcceptEnds::listener).
    pub listener: [u8; 16],
    pub acceptor: Task,
    /// Its change to CLOSE.
    pub closed: Closed,
}

/// A socket's change to CLOSE.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Closed {
    /// As [`Header::mono_ns`](super::Header::mono_ns).
    pub mono_ns: u64,
    pub change: SetState,
    pub ends: Addrs6,
    /// Zero unless the sections of `change` announce it.
    pub task: Task,
    pub stats: Stats,
}
