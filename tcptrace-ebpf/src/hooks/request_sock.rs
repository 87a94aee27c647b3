//! Request sockets: the half-open connections between the SYN and the final ACK, which no
//! tracepoint shows.
//!
//! ```text
//! void inet_csk_reqsk_queue_hash_add(struct sock *sk, struct request_sock *req, long unsigned int timeout)  5.10 to 5.10
//! bool inet_csk_reqsk_queue_hash_add(struct sock *sk, struct request_sock *req, long unsigned int timeout)  5.15 to 6.18
//! bool inet_csk_reqsk_queue_drop(struct sock *sk, struct request_sock *req)  5.10 to 6.18
//! bool __inet_csk_reqsk_queue_drop(struct sock *sk, struct request_sock *req, bool from_timer)  6.1 to 6.18
//! struct sock *tcp_v4_syn_recv_sock(const struct sock *sk, struct sk_buff *skb, struct request_sock *req, struct dst_entry *dst, struct request_sock *req_unhash, bool *own_req)  5.10 to 6.17
//! struct sock *tcp_v6_syn_recv_sock(const struct sock *sk, struct sk_buff *skb, struct request_sock *req, struct dst_entry *dst, struct request_sock *req_unhash, bool *own_req)  5.10 to 6.17
//! ```
//! <https://elixir.bootlin.com/linux/v6.12/source/net/ipv4/inet_connection_sock.c#L1152>
//! <https://elixir.bootlin.com/linux/v6.12/source/net/ipv4/tcp_ipv4.c#L1727>
//!
//! A request begins in `inet_csk_reqsk_queue_hash_add`. `tcp_v4_syn_recv_sock` makes the child,
//! whose first change of state is the next one on this CPU; that joins the two. Each child comes
//! from there, and the arguments tell how, see [`cloning`]. (6.18 has grown a last argument,
//! which nothing here reads.)

use aya_ebpf::macros::{fentry, kprobe};
use aya_ebpf::programs::{FEntryContext, ProbeContext};
use tcptrace_ebpf::abi::{hook, request_flag, request_step};

use crate::memory::Probed;
use crate::request::tell;
use crate::sock::Sock;

#[fentry(function = "inet_csk_reqsk_queue_hash_add")]
pub fn req_begin_fentry(ctx: FEntryContext) -> i32 {
    begun(ctx.arg(0), ctx.arg(1));
    0
}

#[fentry(function = "tcp_v4_syn_recv_sock")]
pub fn req_clone4_fentry(ctx: FEntryContext) -> i32 {
    cloning(true, ctx.arg(0), ctx.arg(2), ctx.arg(3), ctx.arg(4));
    0
}

#[fentry(function = "tcp_v6_syn_recv_sock")]
pub fn req_clone6_fentry(ctx: FEntryContext) -> i32 {
    cloning(false, ctx.arg(0), ctx.arg(2), ctx.arg(3), ctx.arg(4));
    0
}

#[fentry(function = "__inet_csk_reqsk_queue_drop")]
pub fn req_end_fentry(ctx: FEntryContext) -> i32 {
    dropped(ctx.arg(0), ctx.arg(1), ctx.arg::<u8>(2) != 0);
    0
}

/// For kernels that have not got the one with underscores.
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
pub fn req_clone4_kprobe(ctx: ProbeContext) -> u32 {
    let (dst, unhash) = (pointer(&ctx, 3), pointer(&ctx, 4));
    cloning(true, pointer(&ctx, 0), pointer(&ctx, 2), dst, unhash);
    0
}

#[kprobe]
pub fn req_clone6_kprobe(ctx: ProbeContext) -> u32 {
    let (dst, unhash) = (pointer(&ctx, 3), pointer(&ctx, 4));
    cloning(false, pointer(&ctx, 0), pointer(&ctx, 2), dst, unhash);
    0
}

#[kprobe]
pub fn req_end_kprobe(ctx: ProbeContext) -> u32 {
    let by_timer = ctx.arg::<u8>(2).unwrap_or(0) != 0;
    dropped(pointer(&ctx, 0), pointer(&ctx, 1), by_timer);
    0
}

#[kprobe]
pub fn req_drop_kprobe(ctx: ProbeContext) -> u32 {
    dropped(pointer(&ctx, 0), pointer(&ctx, 1), false);
    0
}

#[inline(always)]
fn pointer(ctx: &ProbeContext, index: usize) -> *const u8 {
    ctx.arg(index).unwrap_or(core::ptr::null())
}

#[inline(always)]
fn begun(sk: *const u8, req: *const u8) {
    if Sock::<Probed>::new(sk).is_tcp() {
        tell(hook::REQUEST_SOCK, sk, req, request_step::BEGUN, 0);
    }
}

/// Who calls tells what for: `tcp_check_req` (the final ACK) has a request to unhash,
/// `tcp_get_cookie_sock` (the ACK of a SYN cookie) has a route, `tcp_fastopen_create_child`
/// (a SYN with data) has neither.
///
/// `tcp_v6_syn_recv_sock` hands IPv4-mapped requests on to `tcp_v4_syn_recv_sock`.
#[inline(always)]
fn cloning(is_v4: bool, sk: *const u8, req: *const u8, dst: *const u8, unhash: *const u8) {
    let is_handed_on = Sock::<Probed>::new(req).is_v4_request() != is_v4;
    if is_handed_on || Sock::<Probed>::new(sk).accept_queue_is_full() {
        return;
    }
    let step = if !unhash.is_null() {
        request_step::CLONING
    } else if !dst.is_null() {
        request_step::CLONING_COOKIE
    } else {
        request_step::CLONING_FAST_OPEN
    };
    tell(hook::REQUEST_SOCK, sk, req, step, 0);
}

/// A request that is not hashed any more has ended before: its child has taken its place.
#[inline(always)]
fn dropped(sk: *const u8, req: *const u8, by_timer: bool) {
    if Sock::<Probed>::new(sk).is_tcp() && Sock::<Probed>::new(req).is_hashed() {
        let flags = if by_timer { request_flag::BY_TIMER } else { 0 };
        tell(hook::REQUEST_SOCK, sk, req, request_step::DROPPED, flags);
    }
}
