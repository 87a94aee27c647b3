//! The binary interface between the eBPF programs and the loader: records, counters and settings.
//!
//! A record in the ring buffer consists of a [`Header`], the payload of its [`kind`], and sections.
//! The payload's `sections` byte lists the sections, which follow in the order of the [`section`]
//! bits. Integers are in host byte order, addresses are bytes in network order. The length of every
//! part is a multiple of eight bytes, so a record has no padding.

mod bucket;
mod half_open;
pub mod machine;
mod offsets;
mod process;
mod retransmit_reset;
mod sched;
mod segment;

pub use bucket::*;
pub use half_open::*;
pub use machine::{aarch64, x86_64};
pub use offsets::*;
pub use process::*;
pub use retransmit_reset::*;
pub use sched::*;
pub use segment::*;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Version of the ABI, incremented with every change of a record's meaning or layout.
pub const VERSION: u8 = 7;

/// Values of [`Header::kind`].
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
    pub const SCHED: u8 = 12;
}

/// Bits of a payload's `sections`: the sections behind the payload, in this order.
pub mod section {
    /// [`Addrs4`](super::Addrs4) instead of [`Addrs6`](super::Addrs6). Set for an AF_INET socket,
    /// and for an AF_INET6 socket with IPv4-mapped addresses.
    pub const V4: u8 = 1 << 0;
    /// [`Task`](super::Task): the current task is the socket's user.
    pub const TASK: u8 = 1 << 1;
    /// [`Stats`](super::Stats): present at some changes of state, see `has_stats` in
    /// `hooks/inet_sock_set_state.rs`.
    pub const STATS: u8 = 1 << 2;
    /// [`Listen`](super::Listen): present at CLOSE to LISTEN.
    pub const LISTEN: u8 = 1 << 3;
}

/// The beginning of every record.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Header {
    /// `bpf_ktime_get_ns()`: CLOCK_MONOTONIC in nanoseconds, read in the hook.
    pub mono_ns: u64,
    /// Records lost by all hooks so far, modulo 2^32. When it rises, every open connection may have
    /// missed an event.
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
    /// Address of the `struct sock`. The kernel can reuse the address immediately
    /// (SLAB_TYPESAFE_BY_RCU).
    pub sk: u64,
    /// `bpf_get_socket_cookie()`, or 0 where the kernel does not provide the right cookie.
    ///
    /// At LISTEN to SYN_RECV the kernel never does. There the field holds the address of the
    /// listener that the socket is a clone of, or 0 if the listener is unknown.
    pub cookie: u64,
    /// `sk_cgrp_data`: id of the cgroup (v2) of the process that made the socket. A child has its
    /// listener's cgroup. 0 when unknown.
    pub cgroup: u64,
    /// Inode of the network namespace.
    pub netns: u32,
    /// `sk_ack_backlog`. The clone of a listener keeps the listener's value at the time of the
    /// clone: the number of sockets queued ahead of it.
    pub backlog_len: u32,
    /// `sk_max_ack_backlog`, copied from the listener likewise.
    pub backlog_max: u32,
    /// `sk_err`, an errno or 0.
    pub err: u32,
    /// `tcp_sock.srtt_us`: the smoothed round-trip time in eighths of a microsecond; 0 before the
    /// first measurement.
    pub srtt_us: u32,
    /// `sk_uid`: the owner of the socket's inode. A child in the accept queue has its listener's.
    pub uid: u32,
    /// Host order; 0 until the kernel has chosen a port.
    pub lport: u16,
    /// Host order; 0 when unknown (at LISTEN to SYN_RECV until Linux 6.14).
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
    /// `sk_lock.owned`: a process has locked the socket, so the hook runs in process context.
    pub const OWNED: u8 = 1 << 0;
    /// `sk_socket` is not null: a process has a descriptor of the socket. A socket in the accept
    /// queue has no `struct socket` yet. A closed socket has none any more.
    pub const HELD: u8 = 1 << 1;
    /// SOCK_DONE of `sk_flags`: the peer's FIN was received.
    pub const FIN_RECEIVED: u8 = 1 << 2;
    /// SOCK_DEAD of `sk_flags`: no process has the socket any more (`sock_orphan`).
    pub const ORPHANED: u8 = 1 << 3;
    /// At LISTEN to SYN_RECV: `net.ipv4.tcp_fastopen` forbids TCP Fast Open to servers. Then no SYN
    /// can have made the child.
    pub const NO_FAST_OPEN: u8 = 1 << 4;
    /// `tcp_sock.repair`: TCP_REPAIR is on, and the kernel sends no segment.
    pub const REPAIR: u8 = 1 << 5;
    /// `tcp_sock.fastopen_connect`: TCP_FASTOPEN_CONNECT is on. connect() may then delay the SYN
    /// until the first data.
    pub const FASTOPEN_CONNECT: u8 = 1 << 6;
    /// At the change to CLOSE_WAIT: `bytes_received` does not include the FIN.
    pub const FIN_UNCOUNTED: u8 = 1 << 7;
}

/// Values of [`Accept::witness`]: the hook that saw accept() return.
pub mod witness {
    /// Raw `sys_exit`, with a lookup of the returned descriptor's socket.
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
    /// `tcp_sock.fastopen_rsk` was set: accepted before the final ACK, as TCP Fast Open allows.
    pub const FASTOPEN: u8 = 1 << 0;
    /// `called_ns` is 0 because the call began before the hooks were attached. No later call was
    /// missed, see [`total::MISSED_CALLS`](super::total::MISSED_CALLS).
    pub const BLOCKED_AT_ATTACH: u8 = 1 << 1;
    /// The descriptor belongs to a socket that wraps the TCP socket (MPTCP). accept() has locked
    /// the wrapper, not the TCP socket.
    pub const WRAPPED: u8 = 1 << 2;
}

/// A return of `inet_csk_accept`, or of the system call that calls it.
///
/// Three sections always follow. They are the addresses (the child's, or the listener's if the call
/// failed), [`ListenerAddr`] and [`Task`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Accept {
    /// The accepted `struct sock`; 0 if the call failed.
    pub sk: u64,
    /// The listening `struct sock`, 0 when unknown.
    pub listener: u64,
    /// The child's `bpf_get_socket_cookie()`, or 0.
    pub cookie: u64,
    /// Time of the call's entry, on the clock of [`Header::mono_ns`]; 0 if the entry was not seen.
    pub called_ns: u64,
    pub netns: u32,
    /// The listener's `sk_ack_backlog` at the return: the number of sockets still queued.
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
    /// The listener's local port, host order; 0 if the listener is unknown. It differs from `lport`
    /// at a transparent proxy.
    pub listener_port: u16,
    pub padding: [u8; 6],
}

/// Section: the listener's local address in an [`Accept`].
///
/// IPv4 addresses are IPv4-mapped, because a dual-stack listener and its child have different
/// families. Unspecified if the listener is unknown.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ListenerAddr(pub [u8; 16]);

/// Section: the current task. Present only if that task is the socket's user.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Task {
    /// The process: the kernel's tgid.
    pub pid: u32,
    /// The thread: the kernel's pid.
    pub tid: u32,
    /// The thread's name, NUL padded. The process chooses it, so it can hold any bytes.
    pub comm: [u8; 16],
    /// The name of the process's first thread, in the same form.
    pub process: [u8; 16],
}

/// Section: the addresses of an IPv4 connection, network order.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Addrs4 {
    pub laddr: [u8; 4],
    pub raddr: [u8; 4],
}

/// The encoding of a device index inside of a link-local address.
///
/// The index is in the 54 bits behind fe80::/10 that are zero on the wire (RFC 4291 section 2.5.6).
/// The constants are the upper half of an address, as a number. A section for the index would not
/// fit on the verifier's stack.
pub mod link_local {
    /// An address without a device.
    pub const NONE: u64 = 0xfe80 << 48;
    /// An address with the device's index in the lower 32 bits.
    pub const MARKED: u64 = NONE | 0xffff << 32;
}

/// Section: the addresses of an IPv6 connection, network order.
///
/// In [`SetState`] and [`Socket`], a [`link_local`] address contains its device if the socket is
/// bound to one.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Addrs6 {
    pub laddr: [u8; 16],
    pub raddr: [u8; 16],
}

/// Section: counters of a `tcp_sock`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Stats {
    /// `bytes_acked`: bytes sent and acknowledged. The kernel counts the SYN and FIN that this end
    /// sent as one byte each.
    pub bytes_acked: u64,
    /// `bytes_received`, the peer's FIN counted as one byte.
    pub bytes_received: u64,
    /// `segs_in`
    pub segs_in: u32,
    /// `segs_out`
    pub segs_out: u32,
    /// `data_segs_in`: segments with payload, including dropped ones.
    pub data_segs_in: u32,
    /// `total_retrans`: retransmitted segments, including the SYN.
    pub retransmits: u32,
    /// `snd_cwnd`, segments.
    pub snd_cwnd: u32,
    /// `write_seq` - `snd_una`: sequence numbers that the peer has not acknowledged, including the
    /// FIN's.
    pub unacked: u32,
    /// `rcv_nxt` - `copied_seq`: sequence numbers received and not read, including the peer's FIN.
    pub unread: u32,
    /// [`stats_flag`] bits.
    pub flags: u32,
}

/// Section: the backlog that a process asked for, and the limit of the network namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Listen {
    /// The `backlog` that listen() was called with.
    pub backlog: i32,
    /// 1 if `backlog` is known, else 0.
    pub is_known: u32,
    /// `net.core.somaxconn` of the network namespace.
    pub somaxconn: u32,
    pub reserved: u32,
}

/// Bits of [`Stats::flags`].
pub mod stats_flag {
    /// RCV_SHUTDOWN of `sk_shutdown`: the process will not read data that arrives from now on.
    pub const RCV_SHUTDOWN: u32 = 1 << 0;
    /// `linger2` is below 0: the socket sends a RST instead of waiting for the peer's FIN.
    pub const NO_FIN_WAIT2: u32 = 1 << 1;
    /// SEND_SHUTDOWN of `sk_shutdown`: the process will send no more data.
    pub const SEND_SHUTDOWN: u32 = 1 << 2;
    /// `snd_nxt` is before `write_seq`: data or a FIN is queued and not sent.
    pub const UNSENT: u32 = 1 << 3;
    /// Position of the number of a [`call`](super::call).
    pub const CALL_SHIFT: u32 = 8;
}

/// The system call that caused a change to CLOSE, in [`Stats::flags`].
pub mod call {
    /// Another call, or unknown.
    pub const UNKNOWN: u32 = 0;
    /// close() and other calls that close descriptors, or the exit of the process.
    pub const CLOSE: u32 = 1;
    pub const CONNECT: u32 = 2;
    pub const SHUTDOWN: u32 = 3;
    /// sendmsg() and similar calls. Netlink requests arrive through them.
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
    pub const SCHED_SWITCH: u32 = 12;
    pub const CPU_SAMPLE: u32 = 13;
    pub const COUNT: u32 = 14;
}

/// Counters of one hook on one CPU. `admitted` is the number of emitted records plus `lost`.
///
/// Each event is counted once, after the filter has decided. A second count before the filter would
/// cost a tenth of the state program, because an atomic addition is that expensive.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Counters {
    /// TCP events that reached the hook and passed the filter.
    pub admitted: u64,
    /// TCP events that reached the hook and that the filter left out.
    pub filtered: u64,
    /// Admitted events without a record: the ring buffer was full, or `lost_calls`.
    pub lost: u64,
    /// Those of `lost` that are accept() calls for which `CALLS` had no room.
    pub lost_calls: u64,
    /// Events that a backup program emitted because the kernel skipped the first one, see
    /// `hooks/inet_sock_set_state.rs`.
    pub recovered: u64,
}

/// Default size of the `CALLS` map, in entries.
pub const CALLS: u32 = 16384;

/// Rows of the `TOTALS` map.
pub mod total {
    /// Records lost by all hooks, the source of [`Header::lost`](super::Header::lost).
    pub const LOST: u32 = 0;
    /// A lower bound of the accept() calls that began with the hooks attached and are not in
    /// `CALLS`. While it is 0, a call that is missing from the map began before the hooks were
    /// attached.
    pub const MISSED_CALLS: u32 = 1;
    /// Processes for which `PROCESSES` had no room. While it is 0, processes outside of the map
    /// have no socket of the trace.
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
    /// IPv6, IPv4-mapped addresses excluded.
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
    /// The id of the cgroup, or of one of its ancestors, is in the map `CGROUPS`.
    pub const CGROUP: u32 = 1 << 10;
}

/// The `ADDRESSES` map, a trie of prefixes: the key is a set and a network in it. The value is the
/// family of the network, 4 or 6.
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
pub struct AddressKey {
    /// [`addresses`]
    pub set: u32,
    /// Network order; IPv4 addresses are IPv4-mapped.
    pub addr: [u8; 16],
}

/// The `PORTS` map. Bit n of word `SET + (port >> 6)` is set if `port` is in the set, where n is
/// `port & 63`.
pub mod ports {
    pub const WORDS_PER_SET: u32 = 65536 / 64;
    pub const EITHER: u32 = 0;
    pub const LOCAL: u32 = WORDS_PER_SET;
    pub const REMOTE: u32 = 2 * WORDS_PER_SET;
    pub const WORDS: u32 = 3 * WORDS_PER_SET;
}
