//! What crosses from the kernel side to the loader: records, counters, settings.
//!
//! A record in the ring buffer is a [`Header`], the payload of its [`kind`], and the sections that
//! the payload's `sections` byte announces, in the order of the [`section`] bits. Everything is an
//! integer in host byte order (addresses are bytes in network order); every part is a multiple of
//! eight bytes long, so a record has its natural size and no padding.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bumped whenever the meaning or the layout of anything in this file changes.
pub const VERSION: u8 = 1;

/// What [`Header::kind`] can be.
pub mod kind {
    pub const SET_STATE: u8 = 1;
    pub const ACCEPT: u8 = 2;
    pub const RETRANSMIT: u8 = 8;
    pub const RESET: u8 = 9;
    pub const REQUEST: u8 = 3;
    pub const OVERFLOW: u8 = 4;
    pub const TIMEWAIT: u8 = 6;
    pub const SOCKET: u8 = 7;
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
    /// `bpf_get_socket_cookie()`, or 0 where the kernel does not give it truthfully.
    pub cookie: u64,
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
}

/// `inet_csk_accept`, or the system call around it, returned. Always followed by [`AcceptEnds`]
/// and [`Task`].
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
    pub reserved: u8,
}

/// The addresses that go with [`Accept`]; IPv4 ones are IPv4-mapped, because a dual-stack listener
/// has an address of the other family than its child.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct AcceptEnds {
    /// The child's; the listener's when the call failed.
    pub child: Addrs6,
    /// Unspecified when the listener is unknown.
    pub listener: [u8; 16],
}

/// A request socket: a half-open connection, from the SYN to the final ACK (NEW_SYN_RECV).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Request {
    /// Address of the `struct request_sock`.
    pub req: u64,
    /// The listening `struct sock`; at [`request_step::SYNACK_RETRANSMITTED`] of a Fast Open
    /// connection the child.
    pub sk: u64,
    /// `tcp_request_sock.snt_synack`: when the first SYN-ACK was built, CLOCK_MONOTONIC in
    /// microseconds; 0 when it was not, or when the SYN-ACK was a cookie.
    pub synack_us: u64,
    pub netns: u32,
    /// `icsk_accept_queue.qlen`: half-open requests of the listener.
    pub syn_queue_len: u32,
    /// Host order.
    pub lport: u16,
    /// Host order.
    pub rport: u16,
    /// [`request_step`]
    pub step: u8,
    /// `request_sock.num_retrans`: SYN-ACKs that were sent again before this.
    pub retransmits: u8,
    /// [`request_flag`] bits.
    pub flags: u8,
    pub sections: u8,
}

/// What happens to a request socket: [`Request::step`].
pub mod request_step {
    /// The SYN made it.
    pub const BEGUN: u8 = 1;
    /// The final ACK came; the kernel is about to make the child socket, on this CPU.
    pub const CLONING: u8 = 2;
    /// The ACK of a SYN cookie came; as above, of a request that did not exist before.
    pub const CLONING_COOKIE: u8 = 3;
    /// A SYN with data came; as above, of a request that waits beside its child.
    pub const CLONING_FAST_OPEN: u8 = 4;
    /// Its SYN-ACK is sent again.
    pub const SYNACK_RETRANSMITTED: u8 = 5;
    /// It ends without a child.
    pub const DROPPED: u8 = 6;
}

/// Bits of [`Request::flags`].
pub mod request_flag {
    /// DROPPED by its own timer: the SYN-ACKs went unanswered, or the listener is gone.
    pub const BY_TIMER: u8 = 1 << 0;
    /// The listener is in LISTEN.
    pub const LISTENING: u8 = 1 << 1;
    /// `rskq_defer_accept` is set: the listener has TCP_DEFER_ACCEPT.
    pub const DEFER_ACCEPT: u8 = 1 << 2;
}

/// A segment met a full queue of its listener.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Overflow {
    /// The listening `struct sock`.
    pub listener: u64,
    /// The `struct request_sock` that the ACK was to complete; 0 for a SYN.
    pub req: u64,
    pub netns: u32,
    /// How many the queue holds.
    pub backlog_len: u32,
    /// `sk_max_ack_backlog`, the limit of both queues.
    pub backlog_max: u32,
    /// Host order.
    pub lport: u16,
    /// Host order.
    pub rport: u16,
    /// [`overflow_flag`] bits.
    pub flags: u8,
    pub sections: u8,
    pub reserved: [u8; 6],
}

/// Bits of [`Overflow::flags`].
pub mod overflow_flag {
    /// The segment is the SYN; else it is the final ACK.
    pub const SYN: u8 = 1 << 0;
    /// The SYN queue is full; else it is the accept queue.
    pub const SYN_QUEUE: u8 = 1 << 1;
    /// `tcp_abort_on_overflow`: the peer gets a RST.
    pub const ABORTED: u8 = 1 << 2;
}

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

/// What [`Segment::direction`] can be.
pub mod direction {
    /// On its way to a device: the own end sent it.
    pub const OUT: u8 = 1;
    /// From a device: the own end is to receive it.
    pub const IN: u8 = 2;
}

/// A TCP segment passed a network device. Always followed by addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Segment {
    /// `sk_buff.sk`: who sent it, a `struct sock` or what begins like one. 0 for a received one.
    pub sk: u64,
    /// Inode of the device's network namespace.
    pub netns: u32,
    /// `net_device.ifindex`
    pub ifindex: u32,
    pub seq: u32,
    /// The header's field, whether the flag says that it means something or not.
    pub ack: u32,
    /// Bytes of payload.
    pub len: u32,
    /// Ports in host order.
    pub lport: u16,
    pub rport: u16,
    /// As in the header: not scaled.
    pub window: u16,
    /// The control bits as in the header (RFC 9293 section 3.1).
    pub flags: u8,
    /// [`direction`]
    pub direction: u8,
    /// `skc_state` of `sk`, 0 without one.
    pub sk_state: u8,
    pub sections: u8,
    pub reserved: u16,
}

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
}

/// Section: the addresses of an IPv4 connection, network order.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Addrs4 {
    pub laddr: [u8; 4],
    pub raddr: [u8; 4],
}

/// Section: the addresses of an IPv6 connection, network order.
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

/// Bits of [`Stats::flags`].
pub mod stats_flag {
    /// RCV_SHUTDOWN of `sk_shutdown`: nobody will read what comes now.
    pub const RCV_SHUTDOWN: u32 = 1 << 0;
    /// `linger2` is below 0: the socket does not wait for the peer's FIN, it sends a RST.
    pub const NO_FIN_WAIT2: u32 = 1 << 1;
}

/// `tcp:tcp_retransmit_skb`: a full socket has sent a segment again. Always followed by
/// [`Addrs6`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Retransmit {
    pub sk: u64,
    pub cookie: u64,
    pub netns: u32,
    /// `total_retrans`, this one included.
    pub retransmits: u32,
    pub lport: u16,
    pub rport: u16,
    /// `TCP_*` of include/net/tcp_states.h.
    pub state: u8,
    /// `tcp_skb_cb.tcp_flags`, as in byte 13 of the TCP header (RFC 9293, section 3.1).
    pub tcp_flags: u8,
    pub reserved: u16,
}

/// `tcp:tcp_send_reset` or `tcp:tcp_receive_reset`. Always followed by [`Addrs6`]; the own end is
/// the local one, whoever sent the RST.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Reset {
    /// A full socket, or 0: the RST answers a segment that no such socket was there for.
    pub sk: u64,
    /// Its cookie, or 0.
    pub cookie: u64,
    /// 0 when it cannot be told.
    pub netns: u32,
    /// `enum sk_rst_reason`, or [`NO_REASON`].
    pub reason: u32,
    pub lport: u16,
    pub rport: u16,
    /// `TCP_*` of include/net/tcp_states.h, 0 without a socket.
    pub state: u8,
    /// 1 for a RST that was sent, 0 for one that was received.
    pub sent: u8,
    pub reserved: u16,
}

/// [`Reset::reason`] where the kernel gives none.
pub const NO_REASON: u32 = u32::MAX;

/// Index of a hook's row in the `COUNTERS` map.
pub mod hook {
    pub const SET_STATE: u32 = 0;
    pub const ACCEPT: u32 = 1;
    pub const TCP_RETRANSMIT_SKB: u32 = 8;
    pub const TCP_RESET: u32 = 9;
    pub const REQUEST_SOCK: u32 = 2;
    pub const LISTEN_OVERFLOW: u32 = 3;
    pub const RETRANSMIT_SYNACK: u32 = 4;
    pub const TIMEWAIT_SOCK: u32 = 6;
    pub const SOCKET_ITERATOR: u32 = 7;
    pub const SEGMENT: u32 = 11;
    pub const COUNT: u32 = 12;
}

/// One hook's counters on one CPU: `seen` = records submitted + `filtered` + `lost`.
#[repr(C)]
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Counters {
    /// TCP events that reached the hook.
    pub seen: u64,
    /// Dropped because the filter says so.
    pub filtered: u64,
    /// Dropped because the ring buffer was full, and calls of accept() that could not be remembered
    /// because `CALLS` was full.
    pub lost: u64,
    /// Of `seen`: runs that a backup program made up for, see `hooks/inet_sock_set_state.rs`.
    pub made_up: u64,
}

/// Row of the `TALLY` map.
pub mod tally {
    /// Records lost by all hooks, the source of [`Header::lost`](super::Header::lost).
    pub const LOST: u32 = 0;
    /// accept() calls that began with the hooks attached and are not in `CALLS`, at least: while it
    /// is 0, a call that is not there began earlier.
    pub const MISSED_CALLS: u32 = 1;
    pub const COUNT: u32 = 2;
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
}

/// The `PORTS` map: bit n of word `SET + (port >> 6)` says that `port` is in the set.
pub mod ports {
    pub const WORDS_PER_SET: u32 = 65536 / 64;
    pub const EITHER: u32 = 0;
    pub const LOCAL: u32 = WORDS_PER_SET;
    pub const REMOTE: u32 = 2 * WORDS_PER_SET;
    pub const WORDS: u32 = 3 * WORDS_PER_SET;
}

/// Calls `$then!` with every structure offset that the programs read: the name of the frozen
/// global that holds it, and the member's path in kernel BTF. The loader resolves each one on the
/// running kernel; none is taken from a header.
#[macro_export]
macro_rules! for_each_offset {
    ($then:ident) => {
        $then! {
            SK_FAMILY = "sock.__sk_common.skc_family";
            SK_STATE = "sock.__sk_common.skc_state";
            SK_DADDR = "sock.__sk_common.skc_daddr";
            SK_RCV_SADDR = "sock.__sk_common.skc_rcv_saddr";
            SK_V6_DADDR = "sock.__sk_common.skc_v6_daddr";
            SK_V6_RCV_SADDR = "sock.__sk_common.skc_v6_rcv_saddr";
            SK_DPORT = "sock.__sk_common.skc_dport";
            SK_NUM = "sock.__sk_common.skc_num";
            SK_NET = "sock.__sk_common.skc_net.net";
            SK_COOKIE = "sock.__sk_common.skc_cookie";
            SK_LOCK_OWNED = "sock.sk_lock.owned";
            SK_PROTOCOL = "sock.sk_protocol";
            SK_SOCKET = "sock.sk_socket";
            SK_ERR = "sock.sk_err";
            SK_FLAGS = "sock.__sk_common.skc_flags";
            SK_UID = "sock.sk_uid.val";
            SK_ACK_BACKLOG = "sock.sk_ack_backlog";
            SK_MAX_ACK_BACKLOG = "sock.sk_max_ack_backlog";
            INET_SPORT = "inet_sock.inet_sport";
            TCP_SRTT_US = "tcp_sock.srtt_us";
            SK_NODE_PPREV = "sock.__sk_common.skc_node.pprev";
            ICSK_QLEN = "inet_connection_sock.icsk_accept_queue.qlen";
            ICSK_DEFER_ACCEPT = "inet_connection_sock.icsk_accept_queue.rskq_defer_accept";
            REQ_NUM_RETRANS = "request_sock.num_retrans";
            REQ_SNT_SYNACK = "tcp_request_sock.snt_synack";
            NET_ABORT_ON_OVERFLOW = "net.ipv4.sysctl_tcp_abort_on_overflow";
            NET_SYNCOOKIES = "net.ipv4.sysctl_tcp_syncookies";
            TCP_FASTOPEN_RSK = "tcp_sock.fastopen_rsk";
            TCP_BYTES_ACKED = "tcp_sock.bytes_acked";
            TCP_BYTES_RECEIVED = "tcp_sock.bytes_received";
            TCP_SEGS_IN = "tcp_sock.segs_in";
            TCP_SEGS_OUT = "tcp_sock.segs_out";
            TCP_DATA_SEGS_IN = "tcp_sock.data_segs_in";
            TCP_TOTAL_RETRANS = "tcp_sock.total_retrans";
            TCP_SND_CWND = "tcp_sock.snd_cwnd";
            TCP_SND_UNA = "tcp_sock.snd_una";
            TCP_WRITE_SEQ = "tcp_sock.write_seq";
            TCP_RCV_NXT = "tcp_sock.rcv_nxt";
            TCP_COPIED_SEQ = "tcp_sock.copied_seq";
            TCP_LINGER2 = "tcp_sock.linger2";
            SK_SHUTDOWN = "sock.sk_shutdown";
            SKB_CB = "sk_buff.cb";
            SKB_CB_TCP_FLAGS = "tcp_skb_cb.tcp_flags";
            SKB_HEAD = "sk_buff.head";
            SKB_NETWORK_HEADER = "sk_buff.network_header";
            SKB_TRANSPORT_HEADER = "sk_buff.transport_header";
            SKB_DEV = "sk_buff.dev";
            NET_DEVICE_NET = "net_device.nd_net.net";
            MPTCP_FIRST = "mptcp_sock.first";
            NET_INUM = "net.ns.inum";
            NET_COUNT = "net.count";
            NET_NS_COUNT = "net.ns.count";
            NET_NS_REF = "net.ns.__ns_ref";
            TW_SUBSTATE = "inet_timewait_sock.tw_substate";
            TW_TIMER = "inet_timewait_sock.tw_timer";
            TASK_FILES = "task_struct.files";
            TASK_STATUS = "task_struct.thread_info.status";
            FILES_FDT = "files_struct.fdt";
            FDT_FD = "fdtable.fd";
            FDT_MAX_FDS = "fdtable.max_fds";
            FILE_PRIVATE_DATA = "file.private_data";
            SOCKET_FILE = "socket.file";
            SOCKET_SK = "socket.sk";
            SOCKET_INO = "socket_alloc.vfs_inode.i_ino";
            PROTO_ACCEPT_ARG_ERR = "proto_accept_arg.err";
            REGS_ORIG_AX = "pt_regs.orig_ax";
            REGS_DI = "pt_regs.di";
            SKB_DATA = "sk_buff.data";
            SKB_LEN = "sk_buff.len";
            SKB_PROTOCOL = "sk_buff.protocol";
            SKB_SK = "sk_buff.sk";
            DEV_IFINDEX = "net_device.ifindex";
            DEV_NET = "net_device.nd_net.net";
        }
    };
}

macro_rules! offset_table {
    ($($global:ident = $path:literal;)*) => {
        /// Name of the global and path in kernel BTF of every structure offset.
        pub const OFFSETS: &[(&str, &str)] = &[$((stringify!($global), $path)),*];
    };
}
for_each_offset!(offset_table);

/// Offsets that a kernel may lack, because it was built without the feature or is older than the
/// structure; they are 0 then.
pub const OPTIONAL_OFFSETS: &[&str] = &[
    "MPTCP_FIRST",
    "PROTO_ACCEPT_ARG_ERR",
    // Until 5.10; from 5.11; from 6.18.
    "NET_COUNT",
    "NET_NS_COUNT",
    "NET_NS_REF",
];

/// Names of the frozen globals that are settings, not offsets; all are `u32`.
pub mod setting {
    /// [`filter`](super::filter) bits.
    pub const FILTER: &str = "FILTER";
    /// 1 when `bpf_get_socket_cookie` may be called from BTF tracepoints (Linux 5.12).
    pub const COOKIE_HELPER: &str = "COOKIE_HELPER";
    /// Number of parameters of `inet_csk_accept`: 4 until Linux 6.9, 2 from 6.10.
    pub const ACCEPT_ARGS: &str = "ACCEPT_ARGS";
    /// 1 when `bpf_task_pt_regs` may be called (Linux 5.15).
    pub const REGS_HELPER: &str = "REGS_HELPER";
    /// Bytes waiting in the ring buffer at which the reader is woken before its timer.
    pub const WAKE_AT: &str = "WAKE_AT";
    /// Offsets of the classic tracepoint's fields, from its `format` file.
    pub const TP_SKADDR: &str = "TP_SKADDR";
    pub const TP_OLDSTATE: &str = "TP_OLDSTATE";
    pub const TP_NEWSTATE: &str = "TP_NEWSTATE";
}
