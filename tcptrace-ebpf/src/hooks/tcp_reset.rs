//! `tcp:tcp_send_reset` and `tcp:tcp_receive_reset`: a RST was sent, a RST ends a socket.
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
//! `sk` and `skb` of a RST that is sent can each be missing: a process that aborts has no segment
//! to answer (`tcp_send_active_reset`), and a segment to a closed port meets no socket (told since
//! Linux 6.10). `sk` may also be a listener or a TIME_WAIT bucket; then the segment says between
//! whom it was. `tcp_receive_reset` is told by `tcp_reset`, which the kernel calls as well when
//! data comes after close(); then it sends a RST itself, a moment later.
//!
//! A server that resets each of its connections runs these as often as the state hook, so they are
//! BTF tracepoints with plain loads where there are such.

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
    // Once more through the helper: verifiers take it that there always is a socket, and drop what is
    // done without one.
    // SAFETY: the context is an array of the arguments.
    let [sk, skb, reason]: [u64; 3] = unsafe { Probed::read_at(ctx.as_ptr().cast()) };
    sent_btf(&ctx, sk, skb, reason as u32);
    0
}

/// Linux 6.9 and before: what lies behind the second argument is not the reason.
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
        answered(sk, skb as *const u8, reason);
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

/// A full TCP socket, or null.
#[inline(always)]
fn tcp(sk: *mut c_void) -> Sock<Direct> {
    if sk.is_null() {
        return Sock::null();
    }
    // SAFETY: the tracepoint's own socket, of any kind.
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
        answered(sk, skb, reason);
    } else if sk.is_tcp() {
        write(sk, sk.tuple(), || sk.netns(), sk.state(), reason, true);
    }
}

/// Whether a `struct sock` in this state is a connection's: no listener, bucket or request, and
/// there at all.
#[inline(always)]
fn is_full(state: u8) -> bool {
    !matches!(state, 0 | TCP_LISTEN | TCP_TIME_WAIT | TCP_NEW_SYN_RECV)
}

/// A RST answers a segment that no connection was there for; `sk` is what it has met, if anything.
#[inline(always)]
fn answered(sk: Sock<Probed>, skb: *const u8, reason: u32) {
    if skb.is_null() {
        return;
    }
    let skb = Skb::<Probed>::new(skb);
    // A segment that has met a listener has lost its device (`tcp_v4_rcv`).
    let netns = || match sk.is_null() {
        // SAFETY: the network namespace of the device that it came in by.
        true => unsafe { Probed::read(netns_of(skb.dev()), &NET_INUM) },
        false => sk.netns(),
    };
    let (nobody, tuple) = (Sock::<Probed>::null(), skb.receivers_tuple());
    write(nobody, tuple, netns, sk.state(), reason, true);
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
