//! Hook `sched:sched_process_exit` and `task:task_rename`: exits and new names of the processes
//! that have sockets.
//!
//! ```text
//! tracepoint sched_process_exit(struct task_struct *p)                      5.10 to 6.15
//! tracepoint sched_process_exit(struct task_struct *p, bool group_dead)     6.16 to 6.18
//! tracepoint task_rename(struct task_struct *task, const char *comm)        5.10 to 6.18
//! ```
//! include/trace/events/sched.h and include/trace/events/task.h:
//! <https://elixir.bootlin.com/linux/v6.12/source/include/trace/events/sched.h#L332>
//! <https://elixir.bootlin.com/linux/v6.12/source/include/trace/events/task.h#L34>
//!
//! Every exit of the machine runs the program, but only processes in `PROCESSES` get a record.
//! `do_exit` passes the tracepoint after it has counted the thread out of `signal_struct.live`, and
//! before it closes descriptors. exec() sets the name after it has closed the close-on-exec
//! descriptors.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use tcptrace_ebpf::abi::{Process, hook, kind, process_step};

use crate::emit::{none, submit};
use crate::kernel::thread::Thread;
use crate::maps::{self, count};

#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn process_exit(ctx: RawTracePointContext) -> i32 {
    let thread = Thread::new(ctx.arg(0));
    let pid = thread.process();
    if thread.is_process_alive() || !maps::is_remembered(pid) {
        return 0;
    }
    maps::forget_process(pid);
    emit(pid, process_step::EXITED, [0; 16]);
    0
}

#[raw_tracepoint(tracepoint = "task_rename")]
pub fn process_renamed(ctx: RawTracePointContext) -> i32 {
    let thread = Thread::new(ctx.arg(0));
    let pid = thread.process();
    if !thread.is_first() || !maps::is_remembered(pid) {
        return 0;
    }
    let mut comm = [0; 16];
    let name: *const u8 = ctx.arg(1);
    // SAFETY: the helper writes at most the size of `comm`, and checks the address. It truncates a
    // longer name, like the kernel.
    unsafe {
        bpf_probe_read_kernel_str(
            comm.as_mut_ptr().cast(),
            size_of_val(&comm) as u32,
            name.cast(),
        );
    }
    emit(pid, process_step::RENAMED, comm);
    0
}

#[inline(always)]
fn emit(pid: u32, step: u8, comm: [u8; 16]) {
    count(hook::SCHED_PROCESS_EXIT, |counters| counters.admitted += 1);
    let payload = || Process {
        pid,
        step,
        reserved: [0; 3],
        comm,
    };
    submit(hook::SCHED_PROCESS_EXIT, kind::PROCESS, payload, none);
}
