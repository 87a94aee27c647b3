//! What crosses from the kernel side to the loader: records, counters, settings.
//!
//! A record in the ring buffer is a [`Header`], the payload of its [`kind`], and the sections that
//! the payload's `sections` byte announces, in the order of the [`section`] bits. Everything is an
//! integer in host byte order (addresses are bytes in network order); every part is a multiple of
//! eight bytes long, so a record has its natural size and no padding.

mod bucket;
mod half_open;
mod notices;
mod offsets;
mod process;
mod segment;

pub use bucket::*;
pub use half_open::*;
pub use notices::*;
pub use offsets::*;
pub use process::*;
pub use segment::*;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bumped whenever the meaning or the layout of a record changes.
pub const VERSION: u8 = 7;

/// What [`Header::kind`] can be.
pub mod kind {
    pub const SET_STATE: u8 = 1;
    pub const ACCEPT: u8 = 2;
    pub const RETRANSMIT: u8 = 8;
    pub const RESET: u8 = 9;
    pub const REQUEST: u8 = 3;
    pub const OVERFLOW: u8 = 4;
    pub const PROCESS: u8 = 5;
    pub const TIMEWAIT: u8 = 6;
    pub const SOCKET: u8 = 7;
    pub const HOLDER: u8 = 10;
    pub const SEGMENT: u8 = 11;
}

/// Bits of a payload's `sections`: what follows the payload, in this order.
pub mod section {
    /// [`Addrs4`](super::Addrs4) instead of [`Addrs6`](super::Addrs6): an AF_INET socket, or an
    /// AF_INET6 one with IPv4-mapped addresses.
    pub const V4: u8 = 1 << 0;
    /// [`Task`](super::Task): the record was written in that task's own context.
    pub const TASK: u8 = 1 << 1;
    /// [`Stats`](super::Stats): at the changes of state where its figures tell something.
    pub const STATS: u8 = 1 << 2;
    /// [`Listen`](super::Listen): at CLOSE to LISTEN.
    pub const LISTEN: u8 = 1 << 3;
}

/// Starts every record.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Header {
    /// `bpf_ktime_get_ns()`, CLOCK_MONOTONIC in nanoseconds, taken in the hook.
    pub mono_ns: u64,
    /// Records lost by all hooks together up to this one, modulo 2^32. When it rises, everything
    /// that was open may have missed an event.
    pub lost: u32,
    /// The CPU that the hook ran on.
    pub cpu: u16,
    pub kind: u8,
    pub version: u8,
}

/// `sock:inet_sock_set_state`: a full socket is about to enter `newstate`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SetState {
    /// Address of the `struct sock`. The kernel reuses it at once (SLAB_TYPESAFE_BY_RCU).
    pub sk: u64,
    /// `bpf_get_socket_cookie()`, or 0 where the kernel does not give it truthfully. At LISTEN to
    /// SYN_RECV, where it never does, the address of the listener that the socket is a clone of
    /// instead, or 0 where that cannot be told.
    pub cookie: u64,
    /// `sk_cgrp_data`: id of the cgroup (v2) of the process that made the socket, of a child the
    /// listener's; 0 where the kernel does not tell.
    pub cgroup: u64,
    /// Inode of the network namespace.
    pub netns: u32,
    /// `sk_ack_backlog`. The clone of a listener keeps the listener's value of the moment at which
    /// it was made, which is the number of sockets queued ahead of it.
    pub backlog_len: u32,
    /// `sk_max_ack_backlog`, inherited in the same way.
    pub backlog_max: u32,
    /// `sk_err`, an errno or 0.
    pub err: u32,
    /// `tcp_sock.srtt_us`: the smoothed round-trip time in eighths of a microsecond, 0 before the
    /// first measurement.
    pub srtt_us: u32,
    /// `sk_uid`: who owns the socket's inode; a child in the accept queue has its listener's.
    pub uid: u32,
    /// Host order; 0 when the kernel has not chosen it yet.
    pub lport: u16,
    /// Host order; 0 when not known yet (on Linux 6.14 and before, LISTEN to SYN_RECV).
    pub rport: u16,
    /// `TCP_*` of include/net/tcp_states.h.
    pub oldstate: u8,
    pub newstate: u8,
    /// [`state_flag`] bits.
    pub flags: u8,
    pub sections: u8,
}

/// Bits of [`SetState::flags`].
pub mod state_flag {
    /// `sk_lock.owned`: a process holds the socket, which proves process context.
    pub const OWNED: u8 = 1 << 0;
    /// `sk_socket` was set: a process has a descriptor of the socket. One in the accept queue has
    /// no `struct socket` yet, and one that is closed has none any more.
    pub const HELD: u8 = 1 << 1;
    /// SOCK_DONE of `sk_flags`: the peer's FIN has come.
    pub const FIN_RECEIVED: u8 = 1 << 2;
    /// SOCK_DEAD of `sk_flags`: no process has it any more (`sock_orphan`).
    pub const ORPHANED: u8 = 1 << 3;
    /// At LISTEN to SYN_RECV: `net.ipv4.tcp_fastopen` lets no server use TCP Fast Open, so no SYN
    /// can have made the child.
    pub const NO_FAST_OPEN: u8 = 1 << 4;
    /// `tcp_sock.repair`: TCP_REPAIR, in which no segment is sent.
    pub const REPAIR: u8 = 1 << 5;
    /// `tcp_sock.fastopen_connect`: TCP_FASTOPEN_CONNECT, with which connect() may leave the SYN to
    /// the first data.
    pub const FASTOPEN_CONNECT: u8 = 1 << 6;
    /// As it enters CLOSE_WAIT: the FIN is not in `bytes_received`.
    pub const FIN_UNCOUNTED: u8 = 1 << 7;
}

/// How an accept was seen: [`Accept::witness`].
pub mod witness {
    /// Raw `sys_exit`, with the walk from the returned descriptor to its socket.
    pub const SYS_EXIT: u8 = 1;
    /// fexit of `inet_csk_accept`.
    pub const FEXIT: u8 = 2;
    /// kretprobe of `inet_csk_accept`.
    pub const KRETPROBE: u8 = 3;
    /// Entry of `security_sock_graft`.
    pub const SECURITY_SOCK_GRAFT: u8 = 4;
}

/// Bits of [`Accept::flags`].
pub mod accept_flag {
    /// `tcp_sock.fastopen_rsk` was set: taken before the final ACK, as TCP Fast Open allows.
    pub const FASTOPEN: u8 = 1 << 0;
    /// `called_ns` is 0 because the call began before the hooks were attached: no later one was
    /// missed, see [`tally::MISSED_CALLS`](super::tally::MISSED_CALLS).
    pub const BLOCKED_AT_ATTACH: u8 = 1 << 1;
    /// The descriptor is that of a socket around the TCP one (MPTCP): accept() has locked that
    /// socket, and not the TCP one.
    pub const WRAPPED: u8 = 1 << 2;
}

/// `inet_csk_accept`, or the system call around it, returned. Always followed by addresses, the
/// child's or, when the call failed, the listener's; by [`ListenerAddr`], and by [`Task`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Accept {
    /// The accepted `struct sock`, 0 when the call failed.
    pub sk: u64,
    /// The listening `struct sock`, 0 when unknown.
    pub listener: u64,
    /// The child's `bpf_get_socket_cookie()`, or 0.
    pub cookie: u64,
    /// When the call was entered, as [`Header::mono_ns`]; 0 when that was not seen.
    pub called_ns: u64,
    pub netns: u32,
    /// The listener's `sk_ack_backlog` at the return: sockets still queued.
    pub backlog_len: u32,
    /// The listener's `sk_max_ack_backlog`.
    pub backlog_max: u32,
    /// The system call's result: a descriptor, or a negated errno.
    pub result: i32,
    pub lport: u16,
    pub rport: u16,
    /// The child's `skc_state` at the return, 0 when the call failed.
    pub state: u8,
    pub witness: u8,
    pub flags: u8,
    pub sections: u8,
    /// The listener's own port, host order; 0 when the listener is unknown. A transparent proxy's
    /// connections have another one.
    pub listener_port: u16,
    pub padding: [u8; 6],
}

/// The listener's own address in an [`Accept`]. An IPv4 one is IPv4-mapped, because a dual-stack
/// listener has an address of the other family than its child. Unspecified when the listener is
/// unknown.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ListenerAddr(pub [u8; 16]);

/// Section: who was running. Present only where that is the socket's own user.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Task {
    /// The process: the kernel's tgid.
    pub pid: u32,
    /// The thread: the kernel's pid.
    pub tid: u32,
    /// The thread's name, NUL padded, in its owner's hands: any bytes.
    pub comm: [u8; 16],
    /// The name of the process's first thread, likewise.
    pub process: [u8; 16],
}

/// Section: the addresses of an IPv4 connection, network order.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Addrs4 {
    pub laddr: [u8; 4],
    pub raddr: [u8; 4],
}

/// How the device of a link-local address stands inside of that address: in the 54 bits behind
/// fe80::/10 that are zero on the wire (RFC 4291 section 2.5.6). The upper half of an address, as a
/// number.
///
/// A section of its own would have no room on the verifier's stack.
pub mod link_local {
    /// An address without a device.
    pub const NONE: u64 = 0xfe80 << 48;
    /// With the device's index in the lower 32 bits.
    pub const MARKED: u64 = NONE | 0xffff << 32;
}

/// Section: the addresses of an IPv6 connection, network order. In [`SetState`] and [`Socket`] those
/// that are [`link_local`] have their device in them, if the socket is bound to one.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Addrs6 {
    pub laddr: [u8; 16],
    pub raddr: [u8; 16],
}

/// Section: a `tcp_sock`'s own figures.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Stats {
    /// `bytes_acked`: sent and acknowledged; the kernel counts the own SYN and FIN as a byte each.
    pub bytes_acked: u64,
    /// `bytes_received`, of which the peer's FIN is one.
    pub bytes_received: u64,
    /// `segs_in`
    pub segs_in: u32,
    /// `segs_out`
    pub segs_out: u32,
    /// `data_segs_in`: segments with payload, those dropped as well.
    pub data_segs_in: u32,
    /// `total_retrans`: segments sent again, SYN included.
    pub retransmits: u32,
    /// `snd_cwnd`, segments.
    pub snd_cwnd: u32,
    /// `write_seq` - `snd_una`: sequence numbers that the peer has not acknowledged, the FIN's
    /// among them.
    pub unacked: u32,
    /// `rcv_nxt` - `copied_seq`: received and not read, the peer's FIN included.
    pub unread: u32,
    /// [`stats_flag`] bits.
    pub flags: u32,
}

/// Section: the limit that a listener was asked to have, and the one on all.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Listen {
    /// The `backlog` that listen() was called with.
    pub backlog: i32,
    /// 1 when `backlog` could be told, else 0.
    pub is_known: u32,
    /// `net.core.somaxconn` of the network namespace.
    pub somaxconn: u32,
    pub reserved: u32,
}

/// Bits of [`Stats::flags`].
pub mod stats_flag {
    /// RCV_SHUTDOWN of `sk_shutdown`: nobody will read what comes now.
    pub const RCV_SHUTDOWN: u32 = 1 << 0;
    /// `linger2` is below 0: the socket does not wait for the peer's FIN, it sends a RST.
    pub const NO_FIN_WAIT2: u32 = 1 << 1;
    /// SEND_SHUTDOWN of `sk_shutdown`: the process will send nothing more.
    pub const SEND_SHUTDOWN: u32 = 1 << 2;
    /// `snd_nxt` is before `write_seq`: something has not been sent yet, at least the FIN.
    pub const UNSENT: u32 = 1 << 3;
    /// Where the number of a [`call`](super::call) is.
    pub const CALL_SHIFT: u32 = 8;
}

/// What the process that changed the state was doing, in [`Stats::flags`] at the change to CLOSE.
pub mod call {
    /// Something else, or not known.
    pub const UNKNOWN: u32 = 0;
    /// close() and what closes descriptors besides; the end of the process.
    pub const CLOSE: u32 = 1;
    pub const CONNECT: u32 = 2;
    pub const SHUTDOWN: u32 = 3;
    /// sendmsg() and the like, by which netlink is spoken to.
    pub const SEND: u32 = 4;
}

/// Index of a hook's row in the `COUNTERS` map.
pub mod hook {
    pub const SET_STATE: u32 = 0;
    pub const ACCEPT: u32 = 1;
    pub const TCP_RETRANSMIT_SKB: u32 = 8;
    pub const TCP_RESET: u32 = 9;
    pub const REQUEST_SOCK: u32 = 2;
    pub const LISTEN_OVERFLOW: u32 = 3;
    pub const RETRANSMIT_SYNACK: u32 = 4;
    pub const SCHED_PROCESS_EXIT: u32 = 5;
    pub const TIMEWAIT_SOCK: u32 = 6;
    pub const SOCKET_ITERATOR: u32 = 7;
    pub const TASK_FILE_ITERATOR: u32 = 10;
    pub const SEGMENT: u32 = 11;
    pub const COUNT: u32 = 12;
}

/// One hook's counters on one CPU: `admitted` = told in records + `lost`.
///
/// Each event is counted once, when the filter has decided: an atomic addition takes a tenth of the
/// state program, where that leaves an event out.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Counters {
    /// TCP events that reached the hook and are to be told.
    pub admitted: u64,
    /// TCP events that reached the hook, dropped because the filter says so.
    pub filtered: u64,
    /// Dropped because the ring buffer was full, and `lost_calls`.
    pub lost: u64,
    /// Of `lost`: calls of accept() that could not be remembered because `CALLS` was full.
    pub lost_calls: u64,
    /// Events that a backup program made up for, see `hooks/inet_sock_set_state.rs`.
    pub made_up: u64,
}

/// Entries of the `CALLS` map, unless the loader sets another number.
pub const CALLS: u32 = 16384;

/// Row of the `TALLY` map.
pub mod tally {
    /// Records lost by all hooks, the source of [`Header::lost`](super::Header::lost).
    pub const LOST: u32 = 0;
    /// accept() calls that began with the hooks attached and are not in `CALLS`, at least: while it
    /// is 0, a call that is not there began earlier.
    pub const MISSED_CALLS: u32 = 1;
    /// Processes that found no room in `PROCESSES`: while it is 0, only those in there are told of.
    pub const MISSED_PROCESSES: u32 = 2;
    pub const COUNT: u32 = 3;
}

/// Bits of the `FILTER` global. A socket passes when every set condition holds.
pub mod filter {
    /// The local or the remote port is in the set [`ports::EITHER`](super::ports::EITHER).
    pub const PORT: u32 = 1 << 0;
    /// The local port is in the set [`ports::LOCAL`](super::ports::LOCAL).
    pub const LOCAL_PORT: u32 = 1 << 1;
    /// The remote port is in the set [`ports::REMOTE`](super::ports::REMOTE).
    pub const REMOTE_PORT: u32 = 1 << 2;
    /// IPv4, IPv4-mapped addresses included.
    pub const V4: u32 = 1 << 3;
    /// IPv6 proper.
    pub const V6: u32 = 1 << 4;
    /// The local or the remote address is in the set [`addresses::EITHER`](super::addresses::EITHER).
    pub const ADDRESS: u32 = 1 << 5;
    /// The local address is in the set [`addresses::LOCAL`](super::addresses::LOCAL).
    pub const LOCAL_ADDRESS: u32 = 1 << 6;
    /// The remote address is in the set [`addresses::REMOTE`](super::addresses::REMOTE).
    pub const REMOTE_ADDRESS: u32 = 1 << 7;
    /// The inode of the network namespace is in the map `NETNS`.
    pub const NETNS: u32 = 1 << 8;
    /// `sk_uid` is in the map `UIDS`.
    pub const UID: u32 = 1 << 9;
    /// The id of the cgroup, or of one that it is inside of, is in the map `CGROUPS`.
    pub const CGROUP: u32 = 1 << 10;
}

/// The `ADDRESSES` map, a trie of prefixes: a set, and a network of addresses in it. Its value says
/// of which family the network is, 4 or 6.
pub mod addresses {
    pub const EITHER: u32 = 0;
    pub const LOCAL: u32 = 1;
    pub const REMOTE: u32 = 2;
    /// Bits of the key before the address: the set, in host order.
    pub const SET_BITS: u32 = 32;
}

/// Key of the `ADDRESSES` map without the length of its prefix.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct InSet {
    /// [`addresses`]
    pub set: u32,
    /// Network order, IPv4 IPv4-mapped.
    pub addr: [u8; 16],
}

/// The `PORTS` map: bit n of word `SET + (port >> 6)` says that `port` is in the set.
pub mod ports {
    pub const WORDS_PER_SET: u32 = 65536 / 64;
    pub const EITHER: u32 = 0;
    pub const LOCAL: u32 = WORDS_PER_SET;
    pub const REMOTE: u32 = 2 * WORDS_PER_SET;
    pub const WORDS: u32 = 3 * WORDS_PER_SET;
}
