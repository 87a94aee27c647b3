//! Hook for the scheduling of acceptors: when such a thread leaves its CPU and why, when it is
//! woken and by whom, and when it gets a CPU.
//!
//! ```text
//! tracepoint sched_switch(bool preempt, struct task_struct *prev, struct task_struct *next)    5.10 to 5.17
//! tracepoint sched_switch(bool preempt, struct task_struct *prev, struct task_struct *next, unsigned int prev_state)    5.18 to 6.18
//! tracepoint sched_waking(struct task_struct *p)    5.10 to 6.18
//! ```
//! include/trace/events/sched.h:
//! <https://elixir.bootlin.com/linux/v6.12/source/include/trace/events/sched.h#L222>
//! `__schedule` and `try_to_wake_up`, kernel/sched/core.c, call them.
//!
//! `sched_switch` fires at every context switch of the machine, with interrupts disabled. `prev` is
//! the current task there. For two other threads the program looks at two
//! numbers and ends.
//!
//! `sched_waking` fires in the context of the waker. `sched_wakeup` may fire on the woken thread's
//! CPU, where the waker is unknown (`ttwu_queue_wakelist`).

use core::ffi::c_void;

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::{btf_tracepoint, raw_tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext};
use tcptrace_ebpf::abi::{Sched, hook, kind, sched_flag, sched_section, sched_step};

use crate::acceptors;
use crate::emit::{Place, none, submit};
use crate::globals::{SWITCH_STATE, TASK_PID, TASK_TGID};
use crate::kernel::memory::{Direct, Memory, Probed};
use crate::kernel::task::{Task, waits_for_work};
use crate::maps::count;

/// `TASK_DEAD`, include/linux/sched.h: the last switch of a thread that exits.
const TASK_DEAD: u32 = 0x0080;

#[btf_tracepoint(function = "sched_switch")]
pub fn switch_btf(ctx: BtfTracePointContext) -> i32 {
    let state = || match SWITCH_STATE.load() {
        0 => Task::current().state(),
        _ => ctx.arg(3),
    };
    let is_preempted = || ctx.arg::<u64>(0) as u8 != 0;
    switched::<Direct>(ctx.as_ptr(), ctx.arg(1), ctx.arg(2), is_preempted, state);
    0
}

#[raw_tracepoint(tracepoint = "sched_switch")]
pub fn switch_raw(ctx: RawTracePointContext) -> i32 {
    let state = || match SWITCH_STATE.load() {
        0 => Task::current().state(),
        _ => ctx.arg(3),
    };
    let is_preempted = || ctx.arg::<u64>(0) as u8 != 0;
    switched::<Probed>(ctx.as_ptr(), ctx.arg(1), ctx.arg(2), is_preempted, state);
    0
}

#[btf_tracepoint(function = "sched_waking")]
pub fn waking_btf(ctx: BtfTracePointContext) -> i32 {
    waking::<Direct>(ctx.arg(0));
    0
}

#[raw_tracepoint(tracepoint = "sched_waking")]
pub fn waking_raw(ctx: RawTracePointContext) -> i32 {
    waking::<Probed>(ctx.arg(0));
    0
}

#[inline(always)]
fn switched<M: Memory>(
    ctx: *mut c_void,
    prev: *const u8,
    next: *const u8,
    is_preempted: impl FnOnce() -> bool,
    state: impl FnOnce() -> u32,
) {
    // SAFETY: both are the tracepoint's struct task_struct.
    let (out, into): (u32, u32) = unsafe { (M::read(prev, &TASK_PID), M::read(next, &TASK_PID)) };
    if acceptors::has(out) {
        // A preempted thread can have another state already. It stays on the run queue.
        let state = if is_preempted() { 0 } else { state() };
        left_cpu(ctx, state);
    }
    if acceptors::has(into) {
        // SAFETY: as above.
        got_cpu(into, unsafe { M::read(next, &TASK_TGID) });
    }
}

/// Writes the record of the current thread, which leaves its CPU with this state.
#[inline(never)]
fn left_cpu(ctx: *mut c_void, state: u32) {
    count(hook::SCHED_SWITCH, |counters| counters.admitted += 1);
    let task = Task::current();
    let tid = task.thread();
    // A thread that was about to block when a signal arrived stays runnable. The scheduler has
    // reset its state, but passes the old one (`__schedule`, Linux 5.18 to 6.13).
    let state = if task.state() == 0 { 0 } else { state };
    let syscall = task.call_number();
    if state & TASK_DEAD != 0 {
        acceptors::forget(tid);
    }
    let flag = |holds: bool, bit: u8| if holds { bit } else { 0 };
    let is_blocked = state != 0 && state & TASK_DEAD == 0;
    let has_stack = is_blocked && !waits_for_work(syscall);
    let payload = || Sched {
        state,
        syscall,
        step: sched_step::OUT,
        sections: flag(has_stack, sched_section::STACK),
        flags: flag(state == 0 && task.is_throttled(), sched_flag::THROTTLED)
            | flag(is_blocked && task.is_freezing(), sched_flag::FROZEN),
        ..Sched::of(tid, task.process())
    };
    if has_stack {
        let stack = #[inline(always)]
        |place: Place<_>| place.fill_stack(ctx);
        submit(hook::SCHED_SWITCH, kind::SCHED, payload, stack);
    } else {
        submit(hook::SCHED_SWITCH, kind::SCHED, payload, none);
    }
}

#[inline(never)]
fn got_cpu(tid: u32, pid: u32) {
    count(hook::SCHED_SWITCH, |counters| counters.admitted += 1);
    let payload = || Sched {
        step: sched_step::IN,
        ..Sched::of(tid, pid)
    };
    submit(hook::SCHED_SWITCH, kind::SCHED, payload, none);
}

#[inline(always)]
fn waking<M: Memory>(woken: *const u8) {
    // SAFETY: the tracepoint's struct task_struct.
    let (tid, pid): (u32, u32) = unsafe { (M::read(woken, &TASK_PID), M::read(woken, &TASK_TGID)) };
    if !acceptors::has(tid) {
        return;
    }
    count(hook::SCHED_SWITCH, |counters| counters.admitted += 1);
    let current = Task::current();
    let payload = || Sched {
        step: sched_step::WAKING,
        sections: sched_section::TASK,
        syscall: current.call_number(),
        ..Sched::of(tid, pid)
    };
    let task = #[inline(always)]
    |place: Place<_>| place.fill(current.as_section());
    submit(hook::SCHED_SWITCH, kind::SCHED, payload, task);
}
