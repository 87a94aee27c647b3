//! Reader of `struct sock` and of the structures that begin with it, up to `struct tcp_sock`.

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
    /// The same address, for members of the structures that begin with a sock, up to `struct
    /// tcp_sock`.
    ///
    /// [`Direct`](crate::kernel::memory::Direct) needs a pointer of type `struct tcp_sock` for
    /// them. Other members are read through `ptr`, because that is cheaper. The kernel trusts the
    /// pointer of a tracepoint (Linux 6.2), and loads through it in one instruction. It checks the
    /// address at each load through a pointer from a cast (`convert_ctx_accesses`,
    /// kernel/bpf/verifier.c).
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

    /// Returns a null socket, whose fields all read as zero.
    #[inline(always)]
    pub fn null() -> Self {
        Sock::new(core::ptr::null())
    }

    #[inline(always)]
    pub fn is_null(self) -> bool {
        self.ptr.is_null()
    }

    /// Returns the address, which identifies the socket until the kernel reuses it.
    #[inline(always)]
    pub fn id(self) -> u64 {
        self.ptr as u64
    }

    #[inline(always)]
    fn get<T: Copy>(self, offset: &Global<u32>) -> T {
        // SAFETY: `ptr` is a sock, and every caller names an offset into one.
        unsafe { M::read(self.ptr, offset) }
    }

    /// Like [`get`](Self::get), for a member of a structure that begins with a sock.
    #[inline(always)]
    fn get_tcp<T: Copy>(self, offset: &Global<u32>) -> T {
        // SAFETY: as above.
        unsafe { M::read(self.tcp, offset) }
    }

    /// Reads a pointer member. It does not go through a trusted pointer, because the verifier then
    /// searches all types of the kernel for a trusted member (`type_is_trusted`,
    /// kernel/bpf/verifier.c). Attaching took twice as long with it (Linux 6.18).
    #[inline(always)]
    fn pointer(self, offset: &Global<u32>) -> *const u8 {
        self.get_tcp(offset)
    }

    /// Returns whether it is an AF_INET or AF_INET6 socket of protocol IPPROTO_TCP.
    #[inline(always)]
    pub fn is_tcp(self) -> bool {
        self.is_inet() && self.get::<u16>(&SK_PROTOCOL) == IPPROTO_TCP
    }

    #[inline(always)]
    fn is_inet(self) -> bool {
        matches!(self.get::<u16>(&SK_FAMILY), AF_INET | AF_INET6)
    }

    /// Returns the TCP socket behind this one, or null. For an MPTCP socket this is the first
    /// subflow (`mptcp_sock.first`), which TCP's functions and tracepoints handle.
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

    /// `skc_state`. At the state tracepoint it is still the old state.
    #[inline(always)]
    pub fn state(self) -> u8 {
        self.get(&SK_STATE)
    }

    /// `sk_bound_dev_if`: the index of the device that the socket is bound to, 0 for none.
    /// Link-local addresses need one.
    #[inline(always)]
    pub fn bound_dev_if(self) -> u32 {
        self.get(&SK_BOUND_DEV_IF)
    }

    /// `sk_lock.owned`: whether a process has locked the socket with lock_sock().
    ///
    /// A softirq queues segments for an owned socket on its backlog and does not process them. So
    /// if the socket is owned, the current task has locked it.
    #[inline(always)]
    pub fn owned(self) -> bool {
        self.get::<u32>(&SK_LOCK_OWNED) != 0
    }

    /// Returns whether a process has a descriptor of the socket. `sock_graft` sets `sk_socket` at
    /// accept(), and `sock_orphan` clears it at close().
    #[inline(always)]
    pub fn has_descriptor(self) -> bool {
        !self.pointer(&SK_SOCKET).is_null()
    }

    /// `sk_socket`, the `struct socket` of the descriptor; null if there is none.
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

    /// `sk_cgrp_data`: the cgroup (v2) of the process that made the socket, or a child's
    /// listener's. Null if unknown.
    #[inline(always)]
    pub fn cgroup(self) -> *const u8 {
        if SK_CGROUP.load() != 0 {
            self.pointer(&SK_CGROUP)
        } else if SK_CGROUP_OR_CLASS.load() != 0 {
            // The member is in a union, and verifiers before Linux 5.15 do not find its type.
            // SAFETY: `ptr` is a sock.
            cgroup::untagged(unsafe { Probed::read(self.ptr, &SK_CGROUP_OR_CLASS) })
        } else {
            core::ptr::null()
        }
    }

    /// Returns the cgroup's id, 0 if unknown.
    #[inline(always)]
    pub fn cgroup_id(self) -> u64 {
        // The verifier knows the type of this member only if it is not in a union.
        if SK_CGROUP.load() != 0 {
            cgroup::id::<M>(self.pointer(&SK_CGROUP))
        } else {
            cgroup::id::<Probed>(self.cgroup())
        }
    }

    /// At LISTEN to SYN_RECV: returns the address of the listener that this socket is a clone of,
    /// or 0.
    ///
    /// `sk_clone_lock` copies the whole listener. The head of an empty list points to itself, so
    /// the copied head points into the listener. `tcp_create_openreq_child` initialises it later
    /// (net/ipv4/tcp_minisocks.c, unchanged from Linux 5.10 to 6.18). This list is empty in a
    /// listener, because a listener has sent nothing.
    #[inline(always)]
    pub fn cloned_listener(self) -> u64 {
        if TCP_TSORTED_SENT_QUEUE.load() == 0 {
            return 0;
        }
        let head = self.pointer(&TCP_TSORTED_SENT_QUEUE) as u64;
        head.wrapping_sub(TCP_TSORTED_SENT_QUEUE.load().into())
    }

    /// `tcp_sock.srtt_us`, in eighths of a microsecond.
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

    /// Returns whether TCP_REPAIR is on.
    #[inline(always)]
    pub fn is_in_repair_mode(self) -> bool {
        // SAFETY: `tcp` is a tcp_sock.
        unsafe { M::bit(self.tcp, &TCP_REPAIR) }
    }

    /// Returns whether TCP_FASTOPEN_CONNECT is on.
    #[inline(always)]
    pub fn defers_connect(self) -> bool {
        // SAFETY: `tcp` is a tcp_sock.
        unsafe { M::bit(self.tcp, &TCP_FASTOPEN_CONNECT) }
    }

    /// At the change to CLOSE_WAIT: returns whether `bytes_received` lacks the FIN.
    ///
    /// This is so if the FIN came with a SYN (`tcp_fastopen_add_skb`, net/ipv4/tcp_fastopen.c). No
    /// byte has been read then.
    #[inline(always)]
    pub fn lacks_fin_in_bytes(self) -> bool {
        let unread = self
            .get_tcp::<u32>(&TCP_RCV_NXT)
            .wrapping_sub(self.get_tcp(&TCP_COPIED_SEQ));
        self.get_tcp::<u64>(&TCP_BYTES_RECEIVED) + 1 == u64::from(unread)
    }

    /// Returns length and limit of a listener's accept queue.
    #[inline(always)]
    pub fn backlog(self) -> (u32, u32) {
        // SAFETY: `ptr` is a sock, which contains these bytes.
        unsafe {
            let block = M::block::<2>(self.ptr, &SK_ACK_BACKLOG);
            (block.get(&SK_ACK_BACKLOG), block.get(&SK_MAX_ACK_BACKLOG))
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

    /// `skc_cookie`; 0 if no cookie was ever requested.
    #[inline(always)]
    pub fn cookie(self) -> u64 {
        self.get(&SK_COOKIE)
    }

    /// Returns whether a TCP Fast Open request still waits for the final ACK.
    #[inline(always)]
    pub fn has_fastopen_request(self) -> bool {
        !self.pointer(&TCP_FASTOPEN_RSK).is_null()
    }

    /// Inode of the network namespace.
    #[inline(always)]
    pub fn netns(self) -> u32 {
        inode_of::<M>(self.pointer(&SK_NET))
    }

    /// Returns the local port in host order, see [`tuple`](Self::tuple).
    #[inline(always)]
    pub fn lport(self) -> u16 {
        u16::from_be(self.get_tcp(&INET_SPORT))
    }

    /// Returns the port that the socket is bound to, in host order; 0 for none.
    #[inline(always)]
    pub fn bound_port(self) -> u16 {
        self.get(&SK_NUM)
    }

    /// Returns the socket's tuple. The local port is `inet_sport`, because `skc_num` is already 0
    /// when a socket enters CLOSE (`tcp_set_state` unhashes it first, net/ipv4/tcp.c).
    #[inline(always)]
    pub fn tuple(self) -> Tuple {
        self.tuple_with(&self.common())
    }

    /// Like [`tuple`](Self::tuple), but reuses a `sock_common` that was already read.
    #[inline(always)]
    pub fn tuple_with(self, common: &Common<M, impl Members>) -> Tuple {
        Tuple {
            addrs: common.addrs(),
            lport: u16::from_be(self.get_tcp(&INET_SPORT)),
            rport: common.rport(),
        }
    }

    /// Like [`tuple`](Self::tuple), from `struct sock_common` alone. TIME_WAIT buckets and request
    /// sockets begin with it.
    #[inline(always)]
    pub fn tuple_in_common(self) -> Tuple {
        let common = self.common();
        Tuple {
            addrs: common.addrs(),
            lport: common.get(&SK_NUM),
            rport: common.rport(),
        }
    }

    /// Reads `struct sock_common`, for callers that need several of its members.
    #[inline(always)]
    pub fn common(self) -> Common<M, impl Members> {
        Common {
            // SAFETY: `ptr` is a sock_common, which contains these bytes.
            members: unsafe { M::block::<13>(self.ptr, &SK_DADDR) },
            memory: PhantomData,
        }
    }

    /// Returns the local address alone; IPv4 addresses are IPv4-mapped. It does not use
    /// [`common`](Self::common), because the verifier's stack has no room for that of two sockets.
    #[inline(always)]
    pub fn laddr(self) -> [u8; 16] {
        let addrs = if self.get::<u16>(&SK_FAMILY) == AF_INET6 {
            let laddr = self.get(&SK_V6_RCV_SADDR);
            Addrs::from_v6(laddr, laddr)
        } else {
            let laddr = self.get(&SK_RCV_SADDR);
            Addrs::from_v4(laddr, laddr)
        };
        addrs.as_v6().laddr
    }

    /// Returns whether the socket is in a hash table: `!sk_unhashed(sk)`.
    #[inline(always)]
    pub fn is_hashed(self) -> bool {
        !self.pointer(&SK_NODE_PPREV).is_null()
    }

    /// Returns the number of a listener's half-open requests.
    #[inline(always)]
    pub fn syn_queue_len(self) -> u32 {
        self.get_tcp(&ICSK_QLEN)
    }

    /// `sk_acceptq_is_full`. A queue can hold one more than its limit.
    #[inline(always)]
    pub fn accept_queue_is_full(self) -> bool {
        let (len, max) = self.backlog();
        len > max
    }

    /// Returns whether a listener has TCP_DEFER_ACCEPT.
    #[inline(always)]
    pub fn defers_accept(self) -> bool {
        self.get_tcp::<u8>(&ICSK_DEFER_ACCEPT) != 0
    }

    /// Reads a setting of the socket's network namespace, by its offset in `struct net`. A setting
    /// that was an `int` (Linux 5.10) is small enough that its first byte suffices.
    #[inline(always)]
    pub fn netns_setting(self, offset: &Global<u32>) -> u8 {
        self.in_netns(offset)
    }

    /// Like [`netns_setting`](Self::netns_setting), for an `int`.
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

/// Returns the inode of a `struct net`, 0 for null.
#[inline(always)]
fn inode_of<M: Memory>(net: *const u8) -> u32 {
    if net.is_null() {
        return 0;
    }
    // SAFETY: a socket's `struct net`, which outlives it.
    unsafe { M::read(net, &NET_INUM) }
}

/// A `struct sock_common`. With [`Probed`], its first 104 bytes are read at once.
pub struct Common<M, P> {
    members: P,
    memory: PhantomData<M>,
}

impl<M: Memory, P: Members> Common<M, P> {
    #[inline(always)]
    fn get<T: Copy>(&self, offset: &Global<u32>) -> T {
        // SAFETY: these are members of a sock_common, and every caller names an offset into one.
        unsafe { self.members.get(offset) }
    }

    /// Like [`Sock::state`].
    #[inline(always)]
    pub fn state(&self) -> u8 {
        self.get(&SK_STATE)
    }

    /// Like [`Sock::cookie`].
    #[inline(always)]
    pub fn cookie(&self) -> u64 {
        self.get(&SK_COOKIE)
    }

    /// Like [`Sock::netns`].
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
            Addrs::from_v6(self.get(&SK_V6_RCV_SADDR), self.get(&SK_V6_DADDR))
        } else {
            Addrs::from_v4(self.get(&SK_RCV_SADDR), self.get(&SK_DADDR))
        }
    }
}
