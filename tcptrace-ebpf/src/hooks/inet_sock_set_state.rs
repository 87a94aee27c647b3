//! Hook `sock:inet_sock_set_state`: every change of state of a full TCP socket.
//!
//! ```text
//! tracepoint inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)  5.10 to 6.18
//! ```
//! include/trace/events/sock.h:
//! <https://elixir.bootlin.com/linux/v6.12/source/include/trace/events/sock.h#L138>
//!
//! The tracepoint fires before `sk_state` is stored. It shows neither NEW_SYN_RECV nor TIME_WAIT,
//! because other structures have these states. It also fires for MPTCP and SCTP sockets.
//!
//! A softirq can interrupt a program here and change another socket's state. From Linux 6.1 the
//! kernel does not run a BPF program while the same program runs on that CPU (`prog->active`,
//! kernel/trace/bpf_trace.c, `__bpf_trace_run`). It skips the run and counts it in the program's
//! `recursion_misses`. That softirq may process a hundred segments.
//!
//! For this reason each program has a backup, attached behind it, which runs at the same hits of
//! the tracepoint. The first program marks each hit whose record it has written. The backup writes
//! the record of each hit without a mark, because the kernel skipped the first program there.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_skc_to_tcp_sock};
use aya_ebpf::macros::{btf_tracepoint, raw_tracepoint, tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext, TracePointContext};
use tcptrace_ebpf::abi::{Listen, SetState, Stats, hook, kind, section, state_flag, stats_flag};

use crate::acceptors;
use crate::emit::{Pair, Place, none, submit_with_addrs};
use crate::filter;
use crate::globals::{COOKIE_HELPER, NET_FASTOPEN, TP_NEWSTATE, TP_OLDSTATE, TP_SKADDR};
use crate::kernel::memory::{Direct, Memory, Probed};
use crate::kernel::sock::{
    SOCK_DEAD, SOCK_DONE, Sock, TCP_CLOSE, TCP_CLOSE_WAIT, TCP_CLOSING, TCP_FIN_WAIT1, TCP_LISTEN,
    TCP_SYN_RECV, TCP_SYN_SENT,
};
use crate::kernel::task::Task;
use crate::kernel::tuple::Addrs;
use crate::maps::{count, mark_emitted, remember_process, take_emitted};

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn state_btf(ctx: BtfTracePointContext) -> i32 {
    emit_btf(&ctx);
    mark_emitted(ctx.as_ptr().cast(), ctx.arg(0));
    #[cfg(feature = "log")]
    aya_log_ebpf::info!(
        &ctx,
        "inet_sock_set_state {} -> {}",
        ctx.arg::<i32>(1),
        ctx.arg::<i32>(2)
    );
    0
}

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn state_backup_btf(ctx: BtfTracePointContext) -> i32 {
    if !take_emitted(ctx.as_ptr().cast(), ctx.arg(0)) {
        emit_btf(&ctx);
        count(hook::SET_STATE, |counters| counters.recovered += 1);
    }
    0
}

#[inline(always)]
fn emit_btf(ctx: &BtfTracePointContext) {
    let sk: *mut core::ffi::c_void = ctx.arg(0);
    let (oldstate, newstate) = (ctx.arg::<i32>(1) as u8, ctx.arg::<i32>(2) as u8);
    // The verifier allows reads of inet_sock and tcp_sock members only after this cast. The cast
    // also rejects sockets of another protocol.
    let tcp = unsafe { bpf_skc_to_tcp_sock(sk) };
    if tcp.is_null() {
        return;
    }
    let sock = Sock::<Direct>::with_tcp(sk.cast(), tcp.cast());
    let cookie = || {
        if is_birth(oldstate, newstate) {
            return sock.cloned_listener();
        }
        if COOKIE_HELPER.load() == 0 {
            return 0;
        }
        // The helper assigns a cookie if the socket has none.
        match sock.cookie() {
            0 => unsafe { bpf_get_socket_cookie(sk) },
            cookie => cookie,
        }
    };
    set_state(sock, oldstate, newstate, cookie);
}

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn state_raw(ctx: RawTracePointContext) -> i32 {
    emit_raw(&ctx);
    mark_emitted(ctx.as_ptr().cast(), ctx.arg(0));
    0
}

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn state_backup_raw(ctx: RawTracePointContext) -> i32 {
    if !take_emitted(ctx.as_ptr().cast(), ctx.arg(0)) {
        emit_raw(&ctx);
        count(hook::SET_STATE, |counters| counters.recovered += 1);
    }
    0
}

#[inline(always)]
fn emit_raw(ctx: &RawTracePointContext) {
    let (oldstate, newstate) = (ctx.arg::<i32>(1) as u8, ctx.arg::<i32>(2) as u8);
    set_state_probed(ctx.arg(0), oldstate, newstate);
}

#[tracepoint]
pub fn state_tp(ctx: TracePointContext) -> u32 {
    let record = ctx.as_ptr().cast::<u8>().cast_const();
    // SAFETY: the offsets come from the tracepoint's format file; the helper checks addresses.
    unsafe {
        let oldstate: i32 = Probed::read(record, &TP_OLDSTATE);
        let newstate: i32 = Probed::read(record, &TP_NEWSTATE);
        set_state_probed(
            Probed::read(record, &TP_SKADDR),
            oldstate as u8,
            newstate as u8,
        );
    }
    0
}

#[inline(always)]
fn set_state_probed(sk: *const u8, oldstate: u8, newstate: u8) {
    let sk = Sock::<Probed>::new(sk);
    if sk.is_tcp() {
        let cookie = || match is_birth(oldstate, newstate) {
            true => sk.cloned_listener(),
            false => sk.cookie(),
        };
        set_state(sk, oldstate, newstate, cookie);
    }
}

/// Returns whether a listener's child is born. Until Linux 6.14 `inet_csk_clone_lock` sets the
/// child's state before its cookie, so the child still has the listener's cookie. The record has
/// the listener's address instead.
#[inline(always)]
fn is_birth(oldstate: u8, newstate: u8) -> bool {
    oldstate == TCP_LISTEN && newstate == TCP_SYN_RECV
}

/// `TFO_SERVER_ENABLE`, include/net/tcp.h
const TFO_SERVER_ENABLE: u8 = 2;

#[inline(always)]
fn set_state<M: Memory>(sk: Sock<M>, oldstate: u8, newstate: u8, cookie: impl FnOnce() -> u64) {
    let mut tuple = sk.tuple();
    if newstate == TCP_SYN_SENT {
        // A socket that connects again still has the port of its previous connection in
        // `inet_sport`.
        tuple.lport = sk.bound_port();
    }
    if !filter::admit(hook::SET_STATE, &tuple, || sk.netns(), sk) {
        return;
    }
    let owned = sk.owned();
    // A kernel thread may work on a socket for a process (an MPTCP subflow, io_uring), and that
    // process is unknown here. The kernel itself can listen, though.
    let has_task = owned && (newstate == TCP_LISTEN || !Task::current().is_kernel_thread());
    if has_task && matches!(newstate, TCP_LISTEN | TCP_SYN_SENT) {
        remember_process(Task::current().process());
    }
    let sk_flags = sk.flags();
    let flag = |holds: bool, bit: u8| if holds { bit } else { 0 };
    let mut payload = SetState {
        sk: sk.id(),
        cookie: cookie(),
        cgroup: sk.cgroup_id(),
        netns: sk.netns(),
        backlog_len: sk.backlog_len(),
        backlog_max: sk.backlog_max(),
        err: sk.err(),
        srtt_us: sk.srtt_us(),
        uid: sk.uid(),
        lport: tuple.lport,
        rport: tuple.rport,
        oldstate,
        newstate,
        flags: flag(owned, state_flag::OWNED)
            | flag(sk.has_descriptor(), state_flag::HELD)
            | flag(sk_flags & SOCK_DONE != 0, state_flag::FIN_RECEIVED)
            | flag(sk_flags & SOCK_DEAD != 0, state_flag::ORPHANED)
            | flag(sk.is_in_repair_mode(), state_flag::REPAIR),
        sections: flag(has_task, section::TASK),
    };
    if is_birth(oldstate, newstate) && sk.netns_setting(&NET_FASTOPEN) & TFO_SERVER_ENABLE == 0 {
        payload.flags |= state_flag::NO_FAST_OPEN;
    }
    if (oldstate == TCP_SYN_SENT || newstate == TCP_SYN_SENT) && sk.defers_connect() {
        payload.flags |= state_flag::FASTOPEN_CONNECT;
    }
    if newstate == TCP_CLOSE_WAIT && sk.lacks_fin_in_bytes() {
        payload.flags |= state_flag::FIN_UNCOUNTED;
    }
    let addrs = tuple.addrs.with_device(
        #[inline(always)]
        || sk.bound_dev_if(),
    );
    // A closure that is not inlined has a stack frame, and the frames of all callers together have
    // 512 bytes.
    let task = #[inline(always)]
    |place: Place<_>| place.fill(Task::current().as_section());
    let listen = #[inline(always)]
    |place: Place<_>| place.fill(listen(sk));
    if newstate == TCP_LISTEN {
        payload.sections |= section::LISTEN;
        match has_task {
            true => {
                write(&mut payload, addrs, both(task, listen));
                acceptors::listens(sk.id());
            }
            false => write(&mut payload, addrs, listen),
        }
    } else if has_stats(oldstate, newstate) {
        payload.sections |= section::STATS;
        let stats_with_call = #[inline(always)]
        |place: Place<_>| place.fill(with_call(sk.stats(), newstate));
        let stats = #[inline(always)]
        |place: Place<_>| place.fill(sk.stats());
        match has_task {
            true => write(&mut payload, addrs, both(task, stats_with_call)),
            false => write(&mut payload, addrs, stats),
        }
    } else {
        match has_task {
            true => write(&mut payload, addrs, task),
            false => write(&mut payload, addrs, none),
        }
    }
}

/// Combines two closures that fill one section each.
#[inline(always)]
fn both<A, B>(
    first: impl FnOnce(Place<A>),
    second: impl FnOnce(Place<B>),
) -> impl FnOnce(Place<Pair<A, B>>) {
    #[inline(always)]
    move |place: Place<Pair<A, B>>| {
        let (one, other) = place.split();
        first(one);
        second(other);
    }
}

#[inline(always)]
fn write<S: Copy + 'static>(payload: &mut SetState, addrs: Addrs, sections: impl FnOnce(Place<S>)) {
    submit_with_addrs(
        hook::SET_STATE,
        kind::SET_STATE,
        addrs,
        #[inline(always)]
        |form| {
            payload.sections |= form;
            *payload
        },
        sections,
    );
}

/// Adds the current system call to the statistics at a change to CLOSE.
#[inline(always)]
fn with_call(mut stats: Stats, newstate: u8) -> Stats {
    if newstate == TCP_CLOSE {
        stats.flags |= Task::current().call() << stats_flag::CALL_SHIFT;
    }
    stats
}

/// Returns whether the record of a change has statistics.
///
/// It has them at the socket's end, and when a connect() is decided. At close(), later data can be
/// told by the difference to these values, and shows how the connection ended. At a simultaneous
/// close, it matters whether this end's FIN was sent, because that shows who closed first.
#[inline(always)]
fn has_stats(oldstate: u8, newstate: u8) -> bool {
    oldstate == TCP_SYN_SENT || matches!(newstate, TCP_FIN_WAIT1 | TCP_CLOSING | TCP_CLOSE)
}

/// Returns the backlog section. Nearly always the current task is in the listen() call.
#[inline(always)]
fn listen<M: Memory>(sk: Sock<M>) -> Listen {
    let backlog = Task::current().backlog_of_listen();
    Listen {
        backlog: backlog.unwrap_or(0),
        is_known: backlog.is_some().into(),
        somaxconn: sk.somaxconn(),
        reserved: 0,
    }
}
