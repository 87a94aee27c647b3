//! Hook of a timer on each CPU that finds out what a running acceptor does: the software perf event
//! cpu-clock (`perf_swevent_hrtimer`, kernel/events/core.c).
//!
//! The timer runs 199 times a second on each CPU. It interrupts the current thread.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::perf_event;
use aya_ebpf::programs::PerfEventContext;
use tcptrace_ebpf::abi::{Sched, hook, kind, sched_flag, sched_section, sched_step};

use crate::acceptors;
use crate::emit::{Place, submit};
use crate::kernel::registers;
use crate::kernel::task::Task;
use crate::maps::count;

#[perf_event]
pub fn cpu_sample(ctx: PerfEventContext) -> u32 {
    let id = bpf_get_current_pid_tgid();
    let tid = id as u32;
    if !acceptors::has(tid) {
        return 0;
    }
    count(hook::CPU_SAMPLE, |counters| counters.admitted += 1);
    let is_user = registers::is_user(&ctx);
    let payload = || Sched {
        syscall: Task::current().call_number(),
        step: sched_step::SAMPLE,
        sections: sched_section::STACK,
        flags: if is_user { sched_flag::USER } else { 0 },
        ..Sched::of(tid, (id >> 32) as u32)
    };
    let stack = #[inline(always)]
    |place: Place<_>| place.fill_stack(ctx.as_ptr());
    submit(hook::CPU_SAMPLE, kind::SCHED, payload, stack);
    0
}
