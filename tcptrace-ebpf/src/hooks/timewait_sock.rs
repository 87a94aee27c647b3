//! Hook for TIME_WAIT buckets. The kernel replaces a socket in substate FIN_WAIT2 or TIME_WAIT by a
//! `struct inet_timewait_sock`.
//!
//! ```text
//! void inet_twsk_hashdance(struct inet_timewait_sock *tw, struct sock *sk, struct inet_hashinfo *hashinfo)                        5.10 to 6.10
//! void inet_twsk_hashdance_schedule(struct inet_timewait_sock *tw, struct sock *sk, struct inet_hashinfo *hashinfo, int timeo)    6.11 to 6.18
//! void __inet_twsk_schedule(struct inet_timewait_sock *tw, int timeo, bool rearm)                                                 5.10 to 6.18
//! void tw_timer_handler(struct timer_list *t)                                                                                     5.10 to 6.18
//! void inet_twsk_deschedule_put(struct inet_timewait_sock *tw)                                                                    5.10 to 6.18
//! void inet_twsk_kill(struct inet_timewait_sock *tw)                                                                              5.10 to 6.18
//! enum tcp_tw_status tcp_timewait_state_process(struct inet_timewait_sock *tw, struct sk_buff *skb, const struct tcphdr *th)      5.10 to 6.9
//! enum tcp_tw_status tcp_timewait_state_process(struct inet_timewait_sock *tw, struct sk_buff *skb, const struct tcphdr *th, u32 *tw_isn)    6.10 to 6.13
//! enum tcp_tw_status tcp_timewait_state_process(struct inet_timewait_sock *tw, struct sk_buff *skb, const struct tcphdr *th, u32 *tw_isn, enum skb_drop_reason *drop_reason)    6.14 to 6.18
//! ```
//! <https://elixir.bootlin.com/linux/v6.12/source/net/ipv4/inet_timewait_sock.c>,
//! <https://elixir.bootlin.com/linux/v6.12/source/net/ipv4/tcp_minisocks.c#L98>
//!
//! - `inet_twsk_hashdance`: the bucket replaces the socket in the hash table. The socket changes to
//!   CLOSE right after (`tcp_time_wait`, then `tcp_done`); the state tracepoint shows only that.
//! - `__inet_twsk_schedule` with `rearm`: a segment has restarted the timer.
//!   `tcp_timewait_state_process` has set `tw_substate` before. So the FIN that turns FIN_WAIT2
//!   into TIME_WAIT is seen here, after the kernel has accepted it.
//! - `tw_timer_handler`: the timer has expired.
//! - `inet_twsk_deschedule_put`: the bucket ends early. The function does not know the reason: a
//!   segment, a connect() that takes the port (`__inet_check_established`), or the end of the
//!   network namespace (`inet_twsk_purge`).
//! - `inet_twsk_kill`: every end of a bucket reaches it. Some kernels (6.1) have
//!   `inet_twsk_deschedule_put` inlined in `inet_twsk_purge`, so the end of a namespace is reported
//!   from here as well.
//! - `tcp_timewait_state_process`, entry: the segment, stored per CPU to find that reason. A
//!   softirq handles one segment after the other, and a segment's effect on its bucket is complete
//!   before the next one.
//!
//! The programs do not check that a bucket is TCP's. Only DCCP has such buckets as well, and the
//! loader knows no DCCP connections.

use aya_ebpf::macros::{fentry, kprobe, map};
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::{FEntryContext, ProbeContext};
use tcptrace_ebpf::abi::{Timewait, hook, kind, timewait_step};

use crate::emit::{none, submit_with_addrs};
use crate::filter;
use crate::globals::{NET_COUNT, NET_NS_COUNT, NET_NS_REF, SK_NET, TW_SUBSTATE, TW_TIMER};
use crate::kernel::memory::{Memory, Probed};
use crate::kernel::registers::{argument, pointer};
use crate::kernel::sock::Sock;

/// Offset of the flags in the TCP header, in bytes, RFC 9293 section 3.1.
const TCP_FLAGS_AT: usize = 13;

/// The last segment on this CPU that matched a bucket.
#[repr(C)]
#[derive(Clone, Copy)]
struct Segment {
    tw: u64,
    /// The TCP header's flags.
    flags: u64,
}

#[map]
static TW_SEGMENT: PerCpuArray<Segment> = PerCpuArray::with_max_entries(1, 0);

#[fentry(function = "inet_twsk_hashdance")]
pub fn tw_begun_fentry(ctx: FEntryContext) -> i32 {
    begun(ctx.arg(0), ctx.arg(1));
    0
}

#[fentry(function = "__inet_twsk_schedule")]
pub fn tw_schedule_fentry(ctx: FEntryContext) -> i32 {
    scheduled(ctx.arg(0), ctx.arg::<u64>(2));
    0
}

#[fentry(function = "tw_timer_handler")]
pub fn tw_timer_fentry(ctx: FEntryContext) -> i32 {
    expired(ctx.arg(0));
    0
}

#[fentry(function = "inet_twsk_deschedule_put")]
pub fn tw_released_fentry(ctx: FEntryContext) -> i32 {
    released(ctx.arg(0));
    0
}

#[fentry(function = "inet_twsk_kill")]
pub fn tw_killed_fentry(ctx: FEntryContext) -> i32 {
    killed(ctx.arg(0));
    0
}

#[fentry(function = "tcp_timewait_state_process")]
pub fn tw_segment_fentry(ctx: FEntryContext) -> i32 {
    segment(ctx.arg(0), ctx.arg(2));
    0
}

#[kprobe]
pub fn tw_begun_kprobe(ctx: ProbeContext) -> u32 {
    begun(pointer(&ctx, 0), pointer(&ctx, 1));
    0
}

#[kprobe]
pub fn tw_schedule_kprobe(ctx: ProbeContext) -> u32 {
    scheduled(pointer(&ctx, 0), argument(&ctx, 2));
    0
}

#[kprobe]
pub fn tw_timer_kprobe(ctx: ProbeContext) -> u32 {
    expired(pointer(&ctx, 0));
    0
}

#[kprobe]
pub fn tw_released_kprobe(ctx: ProbeContext) -> u32 {
    released(pointer(&ctx, 0));
    0
}

#[kprobe]
pub fn tw_killed_kprobe(ctx: ProbeContext) -> u32 {
    killed(pointer(&ctx, 0));
    0
}

#[kprobe]
pub fn tw_segment_kprobe(ctx: ProbeContext) -> u32 {
    segment(pointer(&ctx, 0), pointer(&ctx, 2));
    0
}

#[inline(always)]
fn begun(tw: *const u8, sk: *const u8) {
    write(tw, sk as u64, timewait_step::BEGUN, 0);
}

/// `rearm` is a C `bool`, so only its lowest byte counts.
#[inline(always)]
fn scheduled(tw: *const u8, rearm: u64) {
    if rearm & 0xff != 0 {
        take_segment(tw);
        write(tw, 0, timewait_step::RESTARTED, 0);
    }
}

#[inline(always)]
fn expired(timer: *const u8) {
    let tw = timer.wrapping_sub(TW_TIMER.load() as usize);
    write(tw, 0, timewait_step::EXPIRED, 0);
}

#[inline(always)]
fn released(tw: *const u8) {
    let segment = take_segment(tw);
    let step = if netns_is_gone(tw) {
        timewait_step::PURGED
    } else if segment == 0 {
        timewait_step::TAKEN
    } else {
        timewait_step::KILLED
    };
    write(tw, 0, step, segment);
}

/// The loader ignores a second end of the same bucket.
#[inline(always)]
fn killed(tw: *const u8) {
    if netns_is_gone(tw) {
        write(tw, 0, timewait_step::PURGED, 0);
    }
}

#[inline(always)]
fn segment(tw: *const u8, header: *const u8) {
    if let Some(slot) = TW_SEGMENT.get_ptr_mut(0) {
        // SAFETY: `header` is the segment's TCP header, and the slot belongs to this CPU.
        unsafe {
            let flags: u8 = Probed::read_at(header.wrapping_add(TCP_FLAGS_AT));
            *slot = Segment {
                tw: tw as u64,
                flags: flags.into(),
            };
        }
    }
}

/// Returns the flags of the segment that this CPU is about to apply to the bucket, or 0.
#[inline(always)]
fn take_segment(tw: *const u8) -> u8 {
    let Some(slot) = TW_SEGMENT.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: this CPU's own slot.
    let segment = unsafe { &mut *slot };
    if segment.tw != tw as u64 {
        return 0;
    }
    segment.tw = 0;
    segment.flags as u8
}

/// Returns whether the bucket's network namespace has no reference any more, which is the condition
/// of `inet_twsk_purge`. The count has moved twice, so two of the three offsets are 0.
#[inline(always)]
fn netns_is_gone(tw: *const u8) -> bool {
    let at = NET_COUNT.load() + NET_NS_COUNT.load() + NET_NS_REF.load();
    // SAFETY: `skc_net` has the same offset in every `sock_common`, and points to a `struct net`.
    let count: u32 = unsafe {
        let net: *const u8 = Probed::read(tw, &SK_NET);
        Probed::read_at(net.wrapping_add(at as usize))
    };
    at != 0 && count == 0
}

#[inline(always)]
fn write(tw: *const u8, sk: u64, step: u8, segment: u8) {
    // A bucket begins with a `sock_common`; no later member of a sock is read.
    let common = Sock::<Probed>::new(tw);
    let tuple = common.tuple_in_common();
    let socket = Sock::<Probed>::new(sk as *const u8);
    if !filter::admit(hook::TIMEWAIT_SOCK, &tuple, || common.netns(), socket) {
        return;
    }
    let payload = |sections| Timewait {
        tw: tw as u64,
        sk,
        cookie: common.cookie(),
        netns: common.netns(),
        lport: tuple.lport,
        rport: tuple.rport,
        step,
        // SAFETY: `tw` is a struct inet_timewait_sock.
        substate: unsafe { Probed::read(tw, &TW_SUBSTATE) },
        segment,
        sections,
        reserved: 0,
    };
    submit_with_addrs(
        hook::TIMEWAIT_SOCK,
        kind::TIMEWAIT,
        tuple.addrs,
        payload,
        none,
    );
}
