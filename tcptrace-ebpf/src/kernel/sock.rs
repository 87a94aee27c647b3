//! `struct sock` as the hooks need it.

use core::marker::PhantomData;

use aya_ebpf::Global;
use tcptrace_ebpf::abi::{Stats, stats_flag};

use crate::globals::*;
use crate::kernel::cgroup;
use crate::kernel::memory::{Members, Memory, Probed};
use crate::kernel::tuple::{Addrs, Tuple};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;
const IPPROTO_MPTCP: u16 = 262;

/// include/net/tcp_states.h
pub const TCP_ESTABLISHED: u8 = 1;
pub const TCP_SYN_SENT: u8 = 2;
pub const TCP_SYN_RECV: u8 = 3;
pub const TCP_FIN_WAIT1: u8 = 4;
pub const TCP_TIME_WAIT: u8 = 6;
pub const TCP_CLOSE: u8 = 7;
pub const TCP_CLOSE_WAIT: u8 = 8;
pub const TCP_LISTEN: u8 = 10;
pub const TCP_CLOSING: u8 = 11;
pub const TCP_NEW_SYN_RECV: u8 = 12;

/// `enum sock_flags`, include/net/sock.h
pub const SOCK_DEAD: u64 = 1 << 0;
pub const SOCK_DONE: u64 = 1 << 1;

/// Bits of `sk_shutdown`, include/net/sock.h
const RCV_SHUTDOWN: u8 = 1;
const SEND_SHUTDOWN: u8 = 2;

/// A `struct sock`, read by `M`.
pub struct Sock<M> {
    ptr: *const u8,
    /// The same address for members of the structures that begin with it, up to `struct tcp_sock`.
    ///
    /// [`Direct`](crate::kernel::memory::Direct) needs a pointer of that type there. It is not to be used for
    /// all: the kernel trusts the pointer that a tracepoint hands over (Linux 6.2) and loads through
    /// it in one instruction, but checks the address at each load through one that a cast has given
    /// (`convert_ctx_accesses`, kernel/bpf/verifier.c).
    tcp: *const u8,
    memory: PhantomData<M>,
}

impl<M> Clone for Sock<M> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<M> Copy for Sock<M> {}

impl<M: Memory> Sock<M> {
    #[inline(always)]
    pub fn new(ptr: *const u8) -> Self {
        Sock::with_tcp(ptr, ptr)
    }

    /// `tcp` is `ptr` with the type of a `struct tcp_sock`.
    #[inline(always)]
    pub fn with_tcp(ptr: *const u8, tcp: *const u8) -> Self {
        Sock {
            ptr,
            tcp,
            memory: PhantomData,
        }
    }

    /// No socket: every field reads as zero.
    #[inline(always)]
    pub fn null() -> Self {
        Sock::new(core::ptr::null())
    }

    #[inline(always)]
    pub fn is_null(self) -> bool {
        self.ptr.is_null()
    }

    /// The address, which is the socket's identity until it is reused.
    #[inline(always)]
    pub fn id(self) -> u64 {
        self.ptr as u64
    }

    #[inline(always)]
    fn get<T: Copy>(self, offset: &Global<u32>) -> T {
        // SAFETY: `ptr` is a sock, and every caller names an offset into one.
        unsafe { M::read(self.ptr, offset) }
    }

    /// As [`get`](Self::get), of a structure that begins with a sock.
    #[inline(always)]
    fn get_tcp<T: Copy>(self, offset: &Global<u32>) -> T {
        // SAFETY: as above.
        unsafe { M::read(self.tcp, offset) }
    }

    /// A member that is a pointer. Not through a trusted one: to see whether it is to be trusted as
    /// well, the verifier looks through all types of the kernel (`type_is_trusted`,
    /// kernel/bpf/verifier.c), and attaching took twice as long (Linux 6.18).
    #[inline(always)]
    fn pointer(self, offset: &Global<u32>) -> *const u8 {
        self.get_tcp(offset)
    }

    /// An AF_INET or AF_INET6 socket of protocol IPPROTO_TCP.
    #[inline(always)]
    pub fn is_tcp(self) -> bool {
        self.is_inet() && self.get::<u16>(&SK_PROTOCOL) == IPPROTO_TCP
    }

    #[inline(always)]
    fn is_inet(self) -> bool {
        matches!(self.get::<u16>(&SK_FAMILY), AF_INET | AF_INET6)
    }

    /// The TCP socket behind this one: itself, or the first subflow of an MPTCP wrapper
    /// (`mptcp_sock.first`), which is what the TCP code and its tracepoint know; else null.
    #[inline(always)]
    pub fn tcp(self) -> Self {
        if !self.is_inet() {
            return Sock::null();
        }
        match self.get::<u16>(&SK_PROTOCOL) {
            IPPROTO_TCP => self,
            IPPROTO_MPTCP if MPTCP_FIRST.load() != 0 => {
                let first = Sock::<M>::new(self.pointer(&MPTCP_FIRST));
                if first.is_tcp() { first } else { Sock::null() }
            }
            _ => Sock::null(),
        }
    }

    /// `skc_state`; at the tracepoint still the old one.
    #[inline(always)]
    pub fn state(self) -> u8 {
        self.get(&SK_STATE)
    }

    /// `sk_bound_dev_if`: the device that the socket is bound to, as one with a link-local address
    /// is; 0 for none.
    #[inline(always)]
    pub fn bound_dev_if(self) -> u32 {
        self.get(&SK_BOUND_DEV_IF)
    }

    /// `sk_lock.owned`: 1 while a process has the socket by lock_sock().
    ///
    /// A softirq never works on an owned socket (it queues the segment on the backlog), so 1
    /// proves that the current task is the one that holds it.
    #[inline(always)]
    pub fn owned(self) -> bool {
        self.get::<u32>(&SK_LOCK_OWNED) != 0
    }

    /// Whether a process has a descriptor of it: `sk_socket`, which `sock_graft` sets at accept()
    /// and `sock_orphan` clears at close().
    #[inline(always)]
    pub fn held(self) -> bool {
        !self.pointer(&SK_SOCKET).is_null()
    }

    /// `sk_socket`, the `struct socket` of the descriptor; null where there is none.
    #[inline(always)]
    pub fn socket(self) -> *const u8 {
        self.pointer(&SK_SOCKET)
    }

    #[inline(always)]
    pub fn err(self) -> u32 {
        self.get(&SK_ERR)
    }

    /// `sk_flags`, bits by number in `enum sock_flags` (include/net/sock.h).
    #[inline(always)]
    pub fn flags(self) -> u64 {
        self.get(&SK_FLAGS)
    }

    #[inline(always)]
    pub fn uid(self) -> u32 {
        self.get(&SK_UID)
    }

    /// `sk_cgrp_data`: the cgroup (v2) of the process that made it; of a child, its listener's. Null
    /// where the kernel does not tell.
    #[inline(always)]
    pub fn cgroup(self) -> *const u8 {
        if SK_CGROUP.load() != 0 {
            self.pointer(&SK_CGROUP)
        } else if SK_CGROUP_OR_CLASS.load() != 0 {
            // A member of a union, whose type a verifier of that time does not find.
            // SAFETY: `ptr` is a sock.
            cgroup::untagged(unsafe { Probed::read(self.ptr, &SK_CGROUP_OR_CLASS) })
        } else {
            core::ptr::null()
        }
    }

    /// Its id, 0 where the kernel does not tell.
    #[inline(always)]
    pub fn cgroup_id(self) -> u64 {
        // Only a member of its own has a type that the verifier knows.
        if SK_CGROUP.load() != 0 {
            cgroup::id::<M>(self.pointer(&SK_CGROUP))
        } else {
            cgroup::id::<Probed>(self.cgroup())
        }
    }

    /// At LISTEN to SYN_RECV: the address of the listener that this socket is a clone of, or 0.
    ///
    /// `sk_clone_lock` copies the whole listener. A list that is empty points to its own head, so
    /// the copy of the head still points into the listener, until `tcp_create_openreq_child` makes
    /// a new one of it (net/ipv4/tcp_minisocks.c, alike from Linux 5.10 to 6.18). A listener has
    /// sent nothing, so this list of it is empty.
    #[inline(always)]
    pub fn clone_of(self) -> u64 {
        if TCP_TSORTED_SENT_QUEUE.load() == 0 {
            return 0;
        }
        let head = self.pointer(&TCP_TSORTED_SENT_QUEUE) as u64;
        head.wrapping_sub(TCP_TSORTED_SENT_QUEUE.load().into())
    }

    /// In eighths of a microsecond.
    #[inline(always)]
    pub fn srtt_us(self) -> u32 {
        self.get_tcp(&TCP_SRTT_US)
    }

    /// `tcp_sock.total_retrans`
    #[inline(always)]
    pub fn retransmits(self) -> u32 {
        self.get_tcp(&TCP_TOTAL_RETRANS)
    }

    #[inline(always)]
    pub fn stats(self) -> Stats {
        let distance = |from: &Global<u32>, to: &Global<u32>| -> u32 {
            self.get_tcp::<u32>(to)
                .wrapping_sub(self.get_tcp::<u32>(from))
        };
        let flag = |holds: bool, bit: u32| if holds { bit } else { 0 };
        let shutdown = self.get::<u8>(&SK_SHUTDOWN);
        Stats {
            bytes_acked: self.get_tcp(&TCP_BYTES_ACKED),
            bytes_received: self.get_tcp(&TCP_BYTES_RECEIVED),
            segs_in: self.get_tcp(&TCP_SEGS_IN),
            segs_out: self.get_tcp(&TCP_SEGS_OUT),
            data_segs_in: self.get_tcp(&TCP_DATA_SEGS_IN),
            retransmits: self.retransmits(),
            snd_cwnd: self.get_tcp(&TCP_SND_CWND),
            unacked: distance(&TCP_SND_UNA, &TCP_WRITE_SEQ),
            unread: distance(&TCP_COPIED_SEQ, &TCP_RCV_NXT),
            flags: flag(shutdown & RCV_SHUTDOWN != 0, stats_flag::RCV_SHUTDOWN)
                | flag(shutdown & SEND_SHUTDOWN != 0, stats_flag::SEND_SHUTDOWN)
                | flag(
                    self.get_tcp::<i32>(&TCP_LINGER2) < 0,
                    stats_flag::NO_FIN_WAIT2,
                )
                | flag(
                    distance(&TCP_SND_NXT, &TCP_WRITE_SEQ) != 0,
                    stats_flag::UNSENT,
                ),
        }
    }

    /// TCP_REPAIR is on.
    #[inline(always)]
    pub fn is_repaired(self) -> bool {
        // SAFETY: `tcp` is a tcp_sock.
        unsafe { M::bit(self.tcp, &TCP_REPAIR) }
    }

    /// TCP_FASTOPEN_CONNECT is on.
    #[inline(always)]
    pub fn defers_connect(self) -> bool {
        // SAFETY: `tcp` is a tcp_sock.
        unsafe { M::bit(self.tcp, &TCP_FASTOPEN_CONNECT) }
    }

    /// At its change to CLOSE_WAIT: whether `bytes_received` lacks the FIN, as it does when the FIN
    /// came with a SYN (`tcp_fastopen_add_skb`, net/ipv4/tcp_fastopen.c). Nothing is read then.
    #[inline(always)]
    pub fn lacks_fin_in_bytes(self) -> bool {
        let unread = self
            .get_tcp::<u32>(&TCP_RCV_NXT)
            .wrapping_sub(self.get_tcp(&TCP_COPIED_SEQ));
        self.get_tcp::<u64>(&TCP_BYTES_RECEIVED) + 1 == u64::from(unread)
    }

    /// A listener's accept queue: its length and its limit.
    #[inline(always)]
    pub fn backlog(self) -> (u32, u32) {
        // SAFETY: `ptr` is a sock, and longer than that.
        unsafe {
            let piece = M::piece::<2>(self.ptr, &SK_ACK_BACKLOG);
            (piece.get(&SK_ACK_BACKLOG), piece.get(&SK_MAX_ACK_BACKLOG))
        }
    }

    #[inline(always)]
    pub fn backlog_len(self) -> u32 {
        self.get(&SK_ACK_BACKLOG)
    }

    #[inline(always)]
    pub fn backlog_max(self) -> u32 {
        self.get(&SK_MAX_ACK_BACKLOG)
    }

    /// `skc_cookie` as it stands: 0 while nobody has asked for one.
    #[inline(always)]
    pub fn cookie(self) -> u64 {
        self.get(&SK_COOKIE)
    }

    /// The TCP Fast Open request that still waits for the final ACK.
    #[inline(always)]
    pub fn has_fastopen_request(self) -> bool {
        !self.pointer(&TCP_FASTOPEN_RSK).is_null()
    }

    /// Inode of the network namespace.
    #[inline(always)]
    pub fn netns(self) -> u32 {
        inode_of::<M>(self.pointer(&SK_NET))
    }

    /// The own port in host order, see [`tuple`](Self::tuple).
    #[inline(always)]
    pub fn lport(self) -> u16 {
        u16::from_be(self.get_tcp(&INET_SPORT))
    }

    /// The port that the socket is bound to, in host order; 0 when to none.
    #[inline(always)]
    pub fn bound_port(self) -> u16 {
        self.get(&SK_NUM)
    }

    /// The local port is `inet_sport`, not `skc_num`: that is 0 again by the time a socket
    /// enters CLOSE (`tcp_set_state` unhashes it first, net/ipv4/tcp.c).
    #[inline(always)]
    pub fn tuple(self) -> Tuple {
        self.tuple_by(&self.common())
    }

    /// The same, what is in `common` by that.
    #[inline(always)]
    pub fn tuple_by(self, common: &Common<M, impl Members>) -> Tuple {
        Tuple {
            addrs: common.addrs(),
            lport: u16::from_be(self.get_tcp(&INET_SPORT)),
            rport: common.rport(),
        }
    }

    /// The same from `struct sock_common` alone, with which buckets and request sockets begin.
    #[inline(always)]
    pub fn tuple_in_common(self) -> Tuple {
        let common = self.common();
        Tuple {
            addrs: common.addrs(),
            lport: common.get(&SK_NUM),
            rport: common.rport(),
        }
    }

    /// For whoever needs more than one member of `struct sock_common`.
    #[inline(always)]
    pub fn common(self) -> Common<M, impl Members> {
        Common {
            // SAFETY: `ptr` is a sock_common, which is longer than what is read of it.
            members: unsafe { M::piece::<13>(self.ptr, &SK_DADDR) },
            memory: PhantomData,
        }
    }

    /// Its own address alone, IPv4 ones IPv4-mapped. Read for itself: the verifier's stack has no
    /// room for two sockets' [`common`](Self::common).
    #[inline(always)]
    pub fn laddr(self) -> [u8; 16] {
        let addrs = if self.get::<u16>(&SK_FAMILY) == AF_INET6 {
            let laddr = self.get(&SK_V6_RCV_SADDR);
            Addrs::of_v6(laddr, laddr)
        } else {
            let laddr = self.get(&SK_RCV_SADDR);
            Addrs::of_v4(laddr, laddr)
        };
        addrs.as_v6().laddr
    }

    /// Whether it is in a hash table: `!sk_unhashed(sk)`.
    #[inline(always)]
    pub fn is_hashed(self) -> bool {
        !self.pointer(&SK_NODE_PPREV).is_null()
    }

    /// A listener's half-open requests.
    #[inline(always)]
    pub fn syn_queue_len(self) -> u32 {
        self.get_tcp(&ICSK_QLEN)
    }

    /// `sk_acceptq_is_full`: a queue holds one more than its limit.
    #[inline(always)]
    pub fn accept_queue_is_full(self) -> bool {
        let (len, max) = self.backlog();
        len > max
    }

    /// A listener's TCP_DEFER_ACCEPT.
    #[inline(always)]
    pub fn defers_accept(self) -> bool {
        self.get_tcp::<u8>(&ICSK_DEFER_ACCEPT) != 0
    }

    /// A setting of the socket's network namespace, by its offset in `struct net`. One that was
    /// an `int` once (Linux 5.10) is small enough for its first byte to tell it.
    #[inline(always)]
    pub fn netns_setting(self, offset: &Global<u32>) -> u8 {
        self.in_netns(offset)
    }

    /// The same of one that is an `int`.
    #[inline(always)]
    pub fn netns_number(self, offset: &Global<u32>) -> u32 {
        self.in_netns(offset)
    }

    /// `net.core.somaxconn`, the limit on every listener's backlog.
    #[inline(always)]
    pub fn somaxconn(self) -> u32 {
        self.netns_number(&NET_SOMAXCONN)
    }

    #[inline(always)]
    fn in_netns<T: Copy>(self, offset: &Global<u32>) -> T {
        let net = self.pointer(&SK_NET);
        // SAFETY: skc_net points to the socket's `struct net`, which outlives it.
        unsafe { M::read(net, offset) }
    }
}

/// Inode of a `struct net`, 0 of none.
#[inline(always)]
fn inode_of<M: Memory>(net: *const u8) -> u32 {
    if net.is_null() {
        return 0;
    }
    // SAFETY: a socket's `struct net`, which outlives it.
    unsafe { M::read(net, &NET_INUM) }
}

/// A `struct sock_common`: by [`Probed`] its first 104 bytes as they were at one moment.
pub struct Common<M, P> {
    members: P,
    memory: PhantomData<M>,
}

impl<M: Memory, P: Members> Common<M, P> {
    #[inline(always)]
    fn get<T: Copy>(&self, offset: &Global<u32>) -> T {
        // SAFETY: members of a sock_common, and every caller names an offset into one.
        unsafe { self.members.get(offset) }
    }

    /// As [`Sock::state`].
    #[inline(always)]
    pub fn state(&self) -> u8 {
        self.get(&SK_STATE)
    }

    /// As [`Sock::cookie`].
    #[inline(always)]
    pub fn cookie(&self) -> u64 {
        self.get(&SK_COOKIE)
    }

    /// As [`Sock::netns`].
    #[inline(always)]
    pub fn netns(&self) -> u32 {
        inode_of::<M>(self.get(&SK_NET))
    }

    #[inline(always)]
    fn rport(&self) -> u16 {
        u16::from_be(self.get(&SK_DPORT))
    }

    #[inline(always)]
    pub fn addrs(&self) -> Addrs {
        if self.get::<u16>(&SK_FAMILY) == AF_INET6 {
            Addrs::of_v6(self.get(&SK_V6_RCV_SADDR), self.get(&SK_V6_DADDR))
        } else {
            Addrs::of_v4(self.get(&SK_RCV_SADDR), self.get(&SK_DADDR))
        }
    }
}
