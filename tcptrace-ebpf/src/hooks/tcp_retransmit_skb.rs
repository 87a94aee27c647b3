//! Hook `tcp:tcp_retransmit_skb`: a full socket has retransmitted a segment with data, a FIN or a
//! client's SYN.
//!
//! ```text
//! tracepoint tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb)             5.10 to 6.16
//! tracepoint tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb, int err)    6.17 to 6.18
//! ```
//! include/trace/events/tcp.h:
//! <https://elixir.bootlin.com/linux/v6.12/source/include/trace/events/tcp.h#L170>
//!
//! The kernel retransmits a SYN-ACK for a request socket, and this tracepoint does not fire. With
//! `err`, the tracepoint also fires for segments that could not be sent; those are left out.
//!
//! The event is rare, so the attach method that all kernels have suffices: a raw tracepoint with
//! probed reads.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use tcptrace_ebpf::abi::{Retransmit, hook, kind};

use crate::emit::{none, submit_with_addrs};
use crate::filter;
use crate::globals::{SKB_CB, SKB_CB_TCP_FLAGS};
use crate::kernel::memory::{Memory, Probed};
use crate::kernel::sock::Sock;

#[raw_tracepoint(tracepoint = "tcp_retransmit_skb")]
pub fn retransmit_skb(ctx: RawTracePointContext) -> i32 {
    retransmitted(ctx.arg(0), ctx.arg(1));
    0
}

#[raw_tracepoint(tracepoint = "tcp_retransmit_skb")]
pub fn retransmit_skb_err(ctx: RawTracePointContext) -> i32 {
    if ctx.arg::<i32>(2) == 0 {
        retransmitted(ctx.arg(0), ctx.arg(1));
    }
    0
}

#[inline(always)]
fn retransmitted(sk: *const u8, skb: *const u8) {
    let sk = Sock::<Probed>::new(sk);
    if !sk.is_tcp() {
        return;
    }
    let tuple = sk.tuple();
    if !filter::admit(hook::TCP_RETRANSMIT_SKB, &tuple, || sk.netns(), sk) {
        return;
    }
    let control = skb.wrapping_add(SKB_CB.load() as usize);
    let payload = |sections| Retransmit {
        sk: sk.id(),
        cookie: sk.cookie(),
        netns: sk.netns(),
        retransmits: sk.retransmits(),
        lport: tuple.lport,
        rport: tuple.rport,
        state: sk.state(),
        // SAFETY: `skb->cb` of a TCP segment is a struct tcp_skb_cb. Since Linux 6.18 the member
        // has 16 bits; the lower eight come first and are the header's flag byte.
        tcp_flags: unsafe { Probed::read(control, &SKB_CB_TCP_FLAGS) },
        sections,
        reserved: 0,
    };
    submit_with_addrs(
        hook::TCP_RETRANSMIT_SKB,
        kind::RETRANSMIT,
        tuple.addrs,
        payload,
        none,
    );
}
