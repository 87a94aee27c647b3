//! Hook `tcp:tcp_send_reset` and `tcp:tcp_receive_reset`: a RST was sent, or a received RST ends a
//! socket.
//!
//! ```text
//! tracepoint tcp_send_reset(const struct sock *sk, const struct sk_buff *skb)                                               5.10 to 6.9
//! tracepoint tcp_send_reset(const struct sock *sk, const struct sk_buff *skb, const enum sk_rst_reason reason)              6.10 to 6.11
//! tracepoint tcp_send_reset(const struct sock *sk, const struct sk_buff *skb__nullable, const enum sk_rst_reason reason)    6.12 to 6.18
//! tracepoint tcp_receive_reset(struct sock *sk)                                                                             5.10 to 6.18
//! ```
//! include/trace/events/tcp.h:
//! <https://elixir.bootlin.com/linux/v6.12/source/include/trace/events/tcp.h#L99>
//!
//! Either of `sk` and `skb` of a sent RST can be null. If a process aborts, there is no segment to
//! answer (`tcp_send_active_reset`). A segment to a closed port has no socket (the tracepoint fires
//! since Linux 6.10). `sk` can also be a listener or a TIME_WAIT bucket; then the tuple is taken
//! from the segment.
//!
//! `tcp_receive_reset` fires in `tcp_reset`. The kernel also calls `tcp_reset` when data arrives
//! after close(), and sends a RST itself immediately after.
//!
//! A server that resets each of its connections runs these programs as often as the state hook. So
//! they are BTF tracepoints with plain loads where the kernel supports these.

use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::bpf_skc_to_tcp_sock;
use aya_ebpf::macros::{btf_tracepoint, raw_tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext};
use tcptrace_ebpf::abi::{NO_REASON, Reset, hook, kind};

use crate::emit::{none, submit_with_addrs};
use crate::filter;
use crate::globals::NET_INUM;
use crate::kernel::memory::{Direct, Memory, Probed};
use crate::kernel::skb::{Skb, netns_of};
use crate::kernel::sock::{Sock, TCP_LISTEN, TCP_NEW_SYN_RECV, TCP_TIME_WAIT};
use crate::kernel::tuple::Tuple;

/// Linux 6.10 and later.
#[btf_tracepoint(function = "tcp_send_reset")]
pub fn send_reset_btf(ctx: BtfTracePointContext) -> i32 {
    // Reads the arguments again through the helper. Verifiers assume that the socket is never null,
    // and would drop the branch without one.
    // SAFETY: the context is an array of the arguments.
    let [sk, skb, reason]: [u64; 3] = unsafe { Probed::read_at(ctx.as_ptr().cast()) };
    sent_btf(&ctx, sk, skb, reason as u32);
    0
}

/// Linux 6.9 and before, which have no reason argument.
#[btf_tracepoint(function = "tcp_send_reset")]
pub fn send_reset_btf_6_9(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: as above.
    let [sk, skb]: [u64; 2] = unsafe { Probed::read_at(ctx.as_ptr().cast()) };
    sent_btf(&ctx, sk, skb, NO_REASON);
    0
}

#[inline(always)]
fn sent_btf(ctx: &BtfTracePointContext, sk: u64, skb: u64, reason: u32) {
    if sk != 0 {
        let sk = tcp(ctx.arg(0));
        if !sk.is_null() && sk.state() != TCP_LISTEN {
            write(sk, sk.tuple(), || sk.netns(), sk.state(), reason, true);
            return;
        }
    }
    let sk = Sock::<Probed>::new(sk as *const u8);
    if !is_full(sk.state()) {
        reset_without_socket(sk, skb as *const u8, reason);
    }
}

#[btf_tracepoint(function = "tcp_receive_reset")]
pub fn receive_reset_btf(ctx: BtfTracePointContext) -> i32 {
    let sk = tcp(ctx.arg(0));
    if !sk.is_null() {
        write(sk, sk.tuple(), || sk.netns(), sk.state(), NO_REASON, false);
    }
    0
}

/// Returns the full TCP socket, or null.
#[inline(always)]
fn tcp(sk: *mut c_void) -> Sock<Direct> {
    if sk.is_null() {
        return Sock::null();
    }
    // SAFETY: `sk` is the tracepoint's socket, of any kind.
    let tcp = unsafe { bpf_skc_to_tcp_sock(sk) };
    if tcp.is_null() {
        return Sock::null();
    }
    Sock::with_tcp(sk.cast(), tcp.cast())
}

#[raw_tracepoint(tracepoint = "tcp_send_reset")]
pub fn send_reset(ctx: RawTracePointContext) -> i32 {
    sent(ctx.arg(0), ctx.arg(1), NO_REASON);
    0
}

#[raw_tracepoint(tracepoint = "tcp_send_reset")]
pub fn send_reset_reason(ctx: RawTracePointContext) -> i32 {
    sent(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

#[raw_tracepoint(tracepoint = "tcp_receive_reset")]
pub fn receive_reset(ctx: RawTracePointContext) -> i32 {
    let sk = Sock::<Probed>::new(ctx.arg(0));
    if sk.is_tcp() {
        write(sk, sk.tuple(), || sk.netns(), sk.state(), NO_REASON, false);
    }
    0
}

#[inline(always)]
fn sent(sk: *const u8, skb: *const u8, reason: u32) {
    let sk = Sock::<Probed>::new(sk);
    if !is_full(sk.state()) {
        reset_without_socket(sk, skb, reason);
    } else if sk.is_tcp() {
        write(sk, sk.tuple(), || sk.netns(), sk.state(), reason, true);
    }
}

/// Returns whether a `struct sock` in this state is a full socket of a connection: no listener,
/// bucket or request socket. State 0 means null.
#[inline(always)]
fn is_full(state: u8) -> bool {
    !matches!(state, 0 | TCP_LISTEN | TCP_TIME_WAIT | TCP_NEW_SYN_RECV)
}

/// Writes the record of a RST that answers a segment without a full socket. `sk` is the socket that
/// the segment matched, or null.
#[inline(always)]
fn reset_without_socket(sk: Sock<Probed>, skb: *const u8, reason: u32) {
    if skb.is_null() {
        return;
    }
    let skb = Skb::<Probed>::new(skb);
    // The kernel has cleared the device of a segment that matched a listener (`tcp_v4_rcv`).
    let netns = || match sk.is_null() {
        // SAFETY: this is the network namespace of the device that the segment arrived at.
        true => unsafe { Probed::read(netns_of(skb.dev()), &NET_INUM) },
        false => sk.netns(),
    };
    let (no_socket, tuple) = (Sock::<Probed>::null(), skb.receivers_tuple());
    write(no_socket, tuple, netns, sk.state(), reason, true);
}

#[inline(always)]
fn write<M: Memory>(
    sk: Sock<M>,
    tuple: Tuple,
    netns: impl Fn() -> u32,
    state: u8,
    reason: u32,
    sent: bool,
) {
    if !filter::admit(hook::TCP_RESET, &tuple, &netns, sk) {
        return;
    }
    let payload = |sections| Reset {
        sk: sk.id(),
        cookie: sk.cookie(),
        netns: netns(),
        reason,
        lport: tuple.lport,
        rport: tuple.rport,
        state,
        sent: sent.into(),
        sections,
        reserved: 0,
    };
    submit_with_addrs(hook::TCP_RESET, kind::RESET, tuple.addrs, payload, none);
}
