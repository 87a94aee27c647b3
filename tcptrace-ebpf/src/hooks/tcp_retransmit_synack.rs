//! `tcp:tcp_retransmit_synack`: a SYN-ACK is sent again, because the final ACK has not come.
//!
//! ```text
//! tracepoint tcp_retransmit_synack(const struct sock *sk, const struct request_sock *req)  5.10 to 6.18
//! ```
//! include/trace/events/tcp.h, called by `tcp_rtx_synack`:
//! <https://elixir.bootlin.com/linux/v6.12/source/net/ipv4/tcp_output.c#L4382>
//!
//! The request's `num_retrans` rises only after it. `sk` is the listener, but of a Fast Open
//! connection the child. It works on kernels without probes, and the request has the time of the
//! first SYN-ACK in it.

use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use tcptrace_ebpf::abi::{hook, request_step};

use crate::request::tell;

#[raw_tracepoint(tracepoint = "tcp_retransmit_synack")]
pub fn synack_raw(ctx: RawTracePointContext) -> i32 {
    let step = request_step::SYNACK_RETRANSMITTED;
    tell(hook::RETRANSMIT_SYNACK, ctx.arg(0), ctx.arg(1), step, 0);
    0
}
