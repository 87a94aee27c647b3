//! Snapshot of the kernel's TCP sockets, by the kernel's TCP iterator.
//!
//! ```text
//! int bpf_iter_tcp(struct bpf_iter_meta *meta, struct sock_common *sk_common, uid_t uid)    5.10 to 6.18
//! ```
//! <https://elixir.bootlin.com/linux/v6.12/source/net/ipv4/tcp_ipv4.c#L3383>
//!
//! The program runs in the process that reads the iterator, once for each socket of the network
//! namespace that the iterator was made in. The socket is locked. It can be a listener, a
//! connection, a request socket or a TIME_WAIT bucket. The output goes to that reader and not into
//! the ring buffer, so no record is lost. If the reader's buffer is full, the kernel runs the
//! program again for the same socket.

use aya_ebpf::bindings::seq_file;
use aya_ebpf::helpers::generated::bpf_seq_write;
use tcptrace_ebpf::abi::{Socket, SocketRecord, hook, kind, state_flag};

use crate::emit::{header, now_ns};
use crate::filter;
use crate::globals::{SOCKET_INO, TW_SUBSTATE};
use crate::kernel::memory::{Memory, Probed};
use crate::kernel::sock::{SOCK_DEAD, SOCK_DONE, Sock, TCP_NEW_SYN_RECV, TCP_TIME_WAIT};
use crate::maps::count;

/// `struct bpf_iter__tcp`, whose members the kernel pads to eight bytes each.
#[repr(C)]
pub struct IterTcp {
    meta: *const IterMeta,
    /// Null after the last socket.
    sk: *const u8,
}

/// The beginning of `struct bpf_iter_meta`.
#[repr(C)]
struct IterMeta {
    seq: *mut seq_file,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
pub fn socket_iterator(ctx: *const IterTcp) -> i32 {
    // SAFETY: `ctx` is a struct bpf_iter__tcp, and the verifier checks each load.
    let (seq, sk) = unsafe { ((*(*ctx).meta).seq, (*ctx).sk) };
    if !sk.is_null() {
        write_socket(seq, sk);
    }
    0
}

#[inline(always)]
fn write_socket(seq: *mut seq_file, ptr: *const u8) {
    let sock = Sock::<Probed>::new(ptr);
    let state = sock.state();
    if state == TCP_NEW_SYN_RECV {
        return;
    }
    let is_bucket = state == TCP_TIME_WAIT;
    let tuple = sock.tuple_in_common();
    // A bucket has neither user nor cgroup.
    let owner = if is_bucket { Sock::null() } else { sock };
    if !filter::passes(&tuple, || sock.netns(), owner) {
        count(hook::SOCKET_ITERATOR, |counters| counters.filtered += 1);
        return;
    }
    let mut socket = Socket {
        sk: sock.id(),
        cookie: sock.cookie(),
        cgroup: 0,
        inode: 0,
        netns: sock.netns(),
        uid: 0,
        backlog_len: 0,
        backlog_max: 0,
        lport: tuple.lport,
        rport: tuple.rport,
        state,
        substate: 0,
        flags: 0,
        reserved: 0,
    };
    // A bucket is smaller than a socket and lacks these members.
    if is_bucket {
        // SAFETY: a struct inet_timewait_sock.
        socket.substate = unsafe { Probed::read(ptr, &TW_SUBSTATE) };
    } else {
        let sk_flags = sock.flags();
        let flag = |holds: bool, bit: u8| if holds { bit } else { 0 };
        socket.cgroup = sock.cgroup_id();
        socket.uid = sock.uid();
        socket.backlog_len = sock.backlog_len();
        socket.backlog_max = sock.backlog_max();
        socket.flags = flag(sock.has_descriptor(), state_flag::HELD)
            | flag(sk_flags & SOCK_DONE != 0, state_flag::FIN_RECEIVED)
            | flag(sk_flags & SOCK_DEAD != 0, state_flag::ORPHANED);
        if sock.has_descriptor() {
            // SAFETY: a struct socket is the first half of a struct socket_alloc.
            socket.inode = unsafe { Probed::read(sock.socket(), &SOCKET_INO) };
        }
    }
    let record = SocketRecord {
        // The time is read after the socket, so the socket's state includes all older events.
        header: header(kind::SOCKET, now_ns()),
        socket,
        addrs: tuple.addrs.with_device(|| sock.bound_dev_if()).as_v6(),
    };
    // SAFETY: the given size is the record's.
    let written = unsafe {
        bpf_seq_write(
            seq,
            (&raw const record).cast(),
            size_of::<SocketRecord>() as u32,
        )
    };
    if written == 0 {
        count(hook::SOCKET_ITERATOR, |counters| counters.admitted += 1);
    }
}
