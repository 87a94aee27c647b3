//! Hook for overflows of a listener's queues: a SYN or a final ACK meets a full queue.
//!
//! ```text
//! int tcp_conn_request(struct request_sock_ops *rsk_ops, const struct tcp_request_sock_ops *af_ops, struct sock *sk, struct sk_buff *skb)  5.10 to 6.18
//! struct sock *tcp_v4_syn_recv_sock(const struct sock *sk, struct sk_buff *skb, struct request_sock *req, struct dst_entry *dst, struct request_sock *req_unhash, bool *own_req)  5.10 to 6.18
//! struct sock *tcp_v4_syn_recv_sock(const struct sock *sk, struct sk_buff *skb, struct request_sock *req, struct dst_entry *dst, struct request_sock *req_unhash, bool *own_req, (function) *opt_child_init)  6.1 to 6.18
//! struct sock *tcp_v6_syn_recv_sock(const struct sock *sk, struct sk_buff *skb, struct request_sock *req, struct dst_entry *dst, struct request_sock *req_unhash, bool *own_req)  5.10 to 6.18
//! struct sock *tcp_v6_syn_recv_sock(const struct sock *sk, struct sk_buff *skb, struct request_sock *req, struct dst_entry *dst, struct request_sock *req_unhash, bool *own_req, (function) *opt_child_init)  6.1 to 6.18
//! bool tcp_peer_is_proven(struct request_sock *req, struct dst_entry *dst)  5.10 to 6.18
//! ```
//! <https://elixir.bootlin.com/linux/v6.12/source/net/ipv4/tcp_input.c#L7175>
//! <https://elixir.bootlin.com/linux/v6.12/source/net/ipv4/tcp_ipv4.c#L1727>
//!
//! Stable updates of 6.1 and later added the last argument, a pointer to a function; the programs
//! do not read it. With it the functions have more arguments than a BTF trampoline of Linux 6.1
//! supports, so only kprobes attach there.
//!
//! The programs check at the entry the conditions that the functions check first. No tracepoint
//! shows a dropped SYN (the kernel calls `consume_skb`), and only Linux 6.15 and later show a
//! dropped ACK.

use aya_ebpf::macros::{fentry, fexit, kprobe, kretprobe, map};
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext};
use tcptrace_ebpf::abi::{Overflow, hook, kind, overflow_flag};

use crate::emit::{none, submit_with_addrs};
use crate::filter;
use crate::globals::{NET_ABORT_ON_OVERFLOW, NET_MAX_SYN_BACKLOG, NET_SYNCOOKIES};
use crate::kernel::memory::Probed;
use crate::kernel::registers::{pointer, returned};
use crate::kernel::request::RequestSock;
use crate::kernel::skb::Skb;
use crate::kernel::sock::Sock;
use crate::kernel::tuple::Tuple;

#[fentry(function = "tcp_conn_request")]
pub fn overflow_syn_fentry(ctx: FEntryContext) -> i32 {
    syn(ctx.arg(2), ctx.arg(3));
    0
}

#[fentry(function = "tcp_v4_syn_recv_sock")]
pub fn overflow_ack4_fentry(ctx: FEntryContext) -> i32 {
    ack(true, ctx.arg(0), ctx.arg(2), ctx.arg(4));
    0
}

#[fentry(function = "tcp_v6_syn_recv_sock")]
pub fn overflow_ack6_fentry(ctx: FEntryContext) -> i32 {
    ack(false, ctx.arg(0), ctx.arg(2), ctx.arg(4));
    0
}

#[kprobe]
pub fn overflow_syn_kprobe(ctx: ProbeContext) -> u32 {
    syn(pointer(&ctx, 2), pointer(&ctx, 3));
    0
}

#[kprobe]
pub fn overflow_ack4_kprobe(ctx: ProbeContext) -> u32 {
    ack(true, pointer(&ctx, 0), pointer(&ctx, 2), pointer(&ctx, 4));
    0
}

#[kprobe]
pub fn overflow_ack6_kprobe(ctx: ProbeContext) -> u32 {
    ack(false, pointer(&ctx, 0), pointer(&ctx, 2), pointer(&ctx, 4));
    0
}

/// The argument of the current `tcp_peer_is_proven` call on this CPU, a request; 0 for none.
#[map]
static PROVEN_REQUEST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

#[fexit(function = "tcp_peer_is_proven")]
pub fn overflow_proven_fexit(ctx: FExitContext) -> i32 {
    if ctx.arg::<u64>(2) & 0xff == 0 {
        unproven(ctx.arg(0));
    }
    0
}

#[kprobe]
pub fn overflow_proven_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(slot) = PROVEN_REQUEST.get_ptr_mut(0) {
        // SAFETY: this CPU's own value.
        unsafe { *slot = pointer(&ctx, 0) as u64 };
    }
    0
}

#[kretprobe]
pub fn overflow_proven_kretprobe(ctx: RetProbeContext) -> u32 {
    if let Some(slot) = PROVEN_REQUEST.get_ptr_mut(0) {
        // SAFETY: this CPU's own value.
        let req = unsafe { core::mem::replace(&mut *slot, 0) };
        if req != 0 && returned(&ctx) & 0xff == 0 {
            unproven(req as *const u8);
        }
    }
    0
}

/// `tcp_conn_request` drops the SYN if the accept queue is full. If the SYN queue is full, it
/// answers with a SYN cookie, or drops the SYN if cookies are disabled.
/// `inet_csk_reqsk_queue_is_full` decides that; in Linux 5.10 the limit is one entry less.
#[inline(never)]
fn syn(sk: *const u8, skb: *const u8) {
    let sk = Sock::<Probed>::new(sk);
    let (len, flags) = if sk.accept_queue_is_full() {
        (sk.backlog_len(), overflow_flag::SYN)
    } else if sk.syn_queue_len() > sk.backlog_max() && sk.netns_setting(&NET_SYNCOOKIES) == 0 {
        let flags = overflow_flag::SYN | overflow_flag::SYN_QUEUE;
        (sk.syn_queue_len(), flags)
    } else {
        return;
    };
    let skb = Skb::<Probed>::new(skb);
    let isn = u32::from_be(skb.tcp_header().seq);
    emit(
        sk,
        core::ptr::null(),
        &skb.receivers_tuple(),
        len,
        sk.backlog_max(),
        isn,
        flags,
    );
}

/// Without SYN cookies the last quarter of `tcp_max_syn_backlog` is reserved for proven peers.
/// `tcp_conn_request` calls `tcp_peer_is_proven` only in that case, with a new request. It drops
/// the SYN of an unproven peer.
#[inline(never)]
fn unproven(req: *const u8) {
    let request = RequestSock::new(req);
    let listener = request.listener();
    let max = listener.netns_number(&NET_MAX_SYN_BACKLOG);
    emit(
        listener,
        core::ptr::null(),
        &request.common().tuple_in_common(),
        listener.syn_queue_len(),
        max - (max >> 2),
        request.isn(),
        overflow_flag::SYN | overflow_flag::SYN_QUEUE | overflow_flag::RESERVE,
    );
}

/// The request of the ACK stays. It ends only if `tcp_abort_on_overflow` is set and the caller is
/// `tcp_check_req`, the one caller with a request to unhash.
#[inline(never)]
fn ack(is_v4: bool, sk: *const u8, req: *const u8, unhash: *const u8) {
    let sk = Sock::<Probed>::new(sk);
    let tuple = RequestSock::new(req).common().tuple_in_common();
    // tcp_v6_syn_recv_sock hands IPv4-mapped requests on to tcp_v4_syn_recv_sock.
    if tuple.addrs.is_v4 != is_v4 || !sk.accept_queue_is_full() {
        return;
    }
    let aborts = !unhash.is_null() && sk.netns_setting(&NET_ABORT_ON_OVERFLOW) != 0;
    let flags = if aborts { overflow_flag::ABORTED } else { 0 };
    emit(
        sk,
        req,
        &tuple,
        sk.backlog_len(),
        sk.backlog_max(),
        0,
        flags,
    );
}

#[inline(always)]
fn emit(
    listener: Sock<Probed>,
    req: *const u8,
    tuple: &Tuple,
    backlog_len: u32,
    backlog_max: u32,
    isn: u32,
    flags: u8,
) {
    const HOOK: u32 = hook::LISTEN_OVERFLOW;
    if !filter::admit(HOOK, tuple, || listener.netns(), listener) {
        return;
    }
    let payload = |sections| Overflow {
        listener: listener.id(),
        req: req as u64,
        netns: listener.netns(),
        backlog_len,
        backlog_max,
        lport: tuple.lport,
        rport: tuple.rport,
        isn,
        flags,
        sections,
        reserved: 0,
    };
    submit_with_addrs(HOOK, kind::OVERFLOW, tuple.addrs, payload, none);
}
