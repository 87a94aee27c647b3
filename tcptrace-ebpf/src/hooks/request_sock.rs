//! Hook for request sockets: half-open connections between the SYN and the final ACK, which no
//! tracepoint shows.
//!
//! ```text
//! void inet_csk_reqsk_queue_hash_add(struct sock *sk, struct request_sock *req, long unsigned int timeout)  5.10 to 5.10
//! bool inet_csk_reqsk_queue_hash_add(struct sock *sk, struct request_sock *req, long unsigned int timeout)  5.15 to 6.18
//! bool inet_csk_reqsk_queue_drop(struct sock *sk, struct request_sock *req)  5.10 to 6.18
//! bool __inet_csk_reqsk_queue_drop(struct sock *sk, struct request_sock *req, bool from_timer)  6.1 to 6.18
//! struct sock *tcp_create_openreq_child(const struct sock *sk, struct request_sock *req, struct sk_buff *skb)  5.10 to 6.18
//! tracepoint tcp_retransmit_synack(const struct sock *sk, const struct request_sock *req)  5.10 to 6.18
//! ```
//! <https://elixir.bootlin.com/linux/v6.12/source/net/ipv4/inet_connection_sock.c#L1152>
//! <https://elixir.bootlin.com/linux/v6.12/source/net/ipv4/tcp_minisocks.c#L518>
//!
//! A request begins in `inet_csk_reqsk_queue_hash_add`. `tcp_create_openreq_child` makes the child,
//! whose birth is the next one on this CPU. The loader joins the two.
//!
//! `tcp:tcp_retransmit_synack` is a separate hook, the only one that works on kernels without
//! probes. It fires when a SYN-ACK is retransmitted because the final ACK has not arrived.
//! `tcp_rtx_synack` calls it (net/ipv4/tcp_output.c). The request's `num_retrans` rises only after
//! it. `sk` is the listener, or the child of a Fast Open connection.

use aya_ebpf::macros::{fentry, kprobe, raw_tracepoint};
use aya_ebpf::programs::{FEntryContext, ProbeContext, RawTracePointContext};
use tcptrace_ebpf::abi::{Request, hook, kind, request_flag, request_step};

use crate::emit::{none, submit_with_addrs};
use crate::filter;
use crate::kernel::memory::Probed;
use crate::kernel::registers::{argument, pointer};
use crate::kernel::request::RequestSock;
use crate::kernel::skb::{self, Skb};
use crate::kernel::sock::{Sock, TCP_LISTEN};

#[fentry(function = "inet_csk_reqsk_queue_hash_add")]
pub fn req_begin_fentry(ctx: FEntryContext) -> i32 {
    begun(ctx.arg(0), ctx.arg(1));
    0
}

#[fentry(function = "tcp_create_openreq_child")]
pub fn req_clone_fentry(ctx: FEntryContext) -> i32 {
    cloning(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

#[fentry(function = "__inet_csk_reqsk_queue_drop")]
pub fn req_end_fentry(ctx: FEntryContext) -> i32 {
    dropped(ctx.arg(0), ctx.arg(1), ctx.arg::<u8>(2) != 0);
    0
}

/// For kernels that lack `__inet_csk_reqsk_queue_drop`.
#[fentry(function = "inet_csk_reqsk_queue_drop")]
pub fn req_drop_fentry(ctx: FEntryContext) -> i32 {
    dropped(ctx.arg(0), ctx.arg(1), false);
    0
}

#[kprobe]
pub fn req_begin_kprobe(ctx: ProbeContext) -> u32 {
    begun(pointer(&ctx, 0), pointer(&ctx, 1));
    0
}

#[kprobe]
pub fn req_clone_kprobe(ctx: ProbeContext) -> u32 {
    cloning(pointer(&ctx, 0), pointer(&ctx, 1), pointer(&ctx, 2));
    0
}

#[kprobe]
pub fn req_end_kprobe(ctx: ProbeContext) -> u32 {
    let by_timer = argument(&ctx, 2) as u8 != 0;
    dropped(pointer(&ctx, 0), pointer(&ctx, 1), by_timer);
    0
}

#[kprobe]
pub fn req_drop_kprobe(ctx: ProbeContext) -> u32 {
    dropped(pointer(&ctx, 0), pointer(&ctx, 1), false);
    0
}

#[raw_tracepoint(tracepoint = "tcp_retransmit_synack")]
pub fn synack_raw(ctx: RawTracePointContext) -> i32 {
    let step = request_step::SYNACK_RETRANSMITTED;
    write(hook::RETRANSMIT_SYNACK, ctx.arg(0), ctx.arg(1), step, 0);
    0
}

#[inline(always)]
fn begun(sk: *const u8, req: *const u8) {
    if Sock::<Probed>::new(sk).is_tcp() {
        write(hook::REQUEST_SOCK, sk, req, request_step::BEGUN, 0);
    }
}

/// A SYN makes the child only with Fast Open; otherwise an ACK does. A request that waits for the
/// ACK has sent a SYN-ACK, and is hashed unless another CPU processed the same ACK first. A request
/// restored from a SYN cookie is not hashed and has no SYN-ACK time (`cookie_v4_check`,
/// net/ipv4/syncookies.c).
#[inline(always)]
fn cloning(sk: *const u8, req: *const u8, segment: *const u8) {
    let segment = Skb::<Probed>::new(segment).tcp_header();
    let request = RequestSock::new(req);
    let step = if segment.flags & skb::SYN != 0 {
        request_step::CLONING_FAST_OPEN
    } else if request.synack_us() != 0 || request.common().is_hashed() {
        request_step::CLONING
    } else {
        request_step::CLONING_COOKIE
    };
    write(hook::REQUEST_SOCK, sk, req, step, 0);
}

/// A request that is not hashed has ended before, because its child has replaced it.
#[inline(always)]
fn dropped(sk: *const u8, req: *const u8, by_timer: bool) {
    if Sock::<Probed>::new(sk).is_tcp() && RequestSock::new(req).common().is_hashed() {
        let flags = if by_timer { request_flag::BY_TIMER } else { 0 };
        write(hook::REQUEST_SOCK, sk, req, request_step::DROPPED, flags);
    }
}

/// Writes the record of a `step` (`abi::request_step`) of the request socket at `req`. `sk` is its
/// listener, or its Fast Open child.
///
/// A separate subprogram, because inlining it in every program would fill most of the object.
#[inline(never)]
fn write(hook: u32, sk: *const u8, req: *const u8, step: u8, mut flags: u8) {
    let (sk, request) = (Sock::<Probed>::new(sk), RequestSock::new(req));
    let common = request.common();
    let tuple = common.tuple_in_common();
    if !filter::admit(hook, &tuple, || common.netns(), sk) {
        return;
    }
    if sk.state() == TCP_LISTEN {
        flags |= request_flag::LISTENING;
    }
    if sk.defers_accept() {
        flags |= request_flag::DEFER_ACCEPT;
    }
    let payload = |sections| Request {
        req: common.id(),
        sk: sk.id(),
        synack_us: request.synack_us(),
        netns: common.netns(),
        syn_queue_len: sk.syn_queue_len(),
        isn: request.isn(),
        reserved: 0,
        lport: tuple.lport,
        rport: tuple.rport,
        step,
        retransmits: request.retransmits(),
        flags,
        sections,
    };
    submit_with_addrs(hook, kind::REQUEST, tuple.addrs, payload, none);
}
