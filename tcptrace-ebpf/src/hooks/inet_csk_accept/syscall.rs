//! Hook for accept() at the system call.
//!
//! The attach method for kernels without kprobes and BTF trampolines. It uses the entry and the
//! return of the system call, and finds the socket through the descriptor.
//!
//! ```text
//! tracepoint sys_enter(struct pt_regs *regs, long id)    5.10 to 6.18
//! tracepoint sys_exit(struct pt_regs *regs, long ret)    5.10 to 6.18
//! ```
//! include/trace/events/syscalls.h, kernel/trace/trace_syscalls.c:
//! <https://elixir.bootlin.com/linux/v6.12/source/include/trace/events/syscalls.h#L18>
//! <https://elixir.bootlin.com/linux/v6.12/source/kernel/trace/trace_syscalls.c#L557>
//!
//! The kernel also makes tracepoints of single system calls from these two, such as
//! `syscalls:sys_enter_accept4`. For them it checks a bitmap, and runs no program at other system
//! calls. `sys_enter` and `sys_exit` fire for every system call of the machine, so their programs
//! first compare the number. None of them sees io_uring, 32-bit programs, or accepts inside the
//! kernel.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::{btf_tracepoint, raw_tracepoint, tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext, TracePointContext};
use tcptrace_ebpf::abi::witness;

use super::{Returned, called, take_call};
use crate::kernel::memory::{Direct, Memory, Probed};
use crate::kernel::registers::{Registers, is_accept};
use crate::kernel::sock::Sock;
use crate::kernel::task::Task;

/// Offset of the first argument at the entry of a system call, and of the result at its return, in
/// bytes. It is behind a `struct trace_entry` and the number, aligned to 8 (`struct syscall_tp_t`,
/// kernel/trace/trace_syscalls.c). This also holds where a vendor's trace_entry is 4 bytes longer.
const VALUE: usize = 16;

#[tracepoint]
pub fn accept_enter_tp(ctx: TracePointContext) -> u32 {
    let listener = Task::current().tcp_sock(value(&ctx) as i32);
    if !listener.is_null() {
        called(listener, 0, 0);
    }
    0
}

#[tracepoint]
pub fn accept_exit_tp(ctx: TracePointContext) -> u32 {
    let task = Task::current();
    returned(task, value(&ctx), || task.descriptor_of_accept());
    0
}

#[inline(always)]
fn value(ctx: &TracePointContext) -> i64 {
    // SAFETY: the offset is inside the record of every system call's tracepoint, see `VALUE`. This
    // is a plain load, because the verifier requires a constant offset from the context.
    unsafe { *ctx.as_ptr().cast::<u8>().add(VALUE).cast() }
}

#[btf_tracepoint(function = "sys_enter")]
pub fn sys_enter_btf(ctx: BtfTracePointContext) -> i32 {
    if is_accept(ctx.arg(1)) {
        entered::<Direct>(ctx.arg(0));
    }
    0
}

#[btf_tracepoint(function = "sys_exit")]
pub fn sys_exit_btf(ctx: BtfTracePointContext) -> i32 {
    exited::<Direct>(ctx.arg(0), ctx.arg(1));
    0
}

#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn sys_enter_raw(ctx: RawTracePointContext) -> i32 {
    if is_accept(ctx.arg(1)) {
        entered::<Probed>(ctx.arg(0));
    }
    0
}

#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn sys_exit_raw(ctx: RawTracePointContext) -> i32 {
    exited::<Probed>(ctx.arg(0), ctx.arg(1));
    0
}

#[inline(always)]
fn entered<M: Memory>(regs: *const u8) {
    let task = Task::current();
    if task.is_compat() {
        return;
    }
    // SAFETY: the tracepoint's struct pt_regs.
    let descriptor = unsafe { Registers::<M>::new(regs) }.first_argument();
    let listener = task.tcp_sock(descriptor as i32);
    if !listener.is_null() {
        called(listener, 0, 0);
    }
}

#[inline(always)]
fn exited<M: Memory>(regs: *const u8, result: i64) {
    // SAFETY: the tracepoint's struct pt_regs.
    let regs = unsafe { Registers::<M>::new(regs) };
    if !is_accept(regs.number()) {
        return;
    }
    let task = Task::current();
    if task.is_compat() {
        return;
    }
    returned(task, result, || Some(regs.first_argument()));
}

/// Handles a return. `descriptor` returns the argument of accept(), if the registers still have it.
#[inline(always)]
fn returned(task: Task, result: i64, descriptor: impl FnOnce() -> Option<u64>) {
    let call = take_call();
    let listener = match &call {
        Some(call) => Sock::new(call.listener as *const u8),
        // The call began before the hooks were attached.
        None => match descriptor() {
            Some(descriptor) => task.tcp_sock(descriptor as i32),
            None => Sock::null(),
        },
    };
    let socket = task.sock(result as i32);
    let child = socket.tcp();
    let returned = Returned {
        child,
        listener,
        call,
        result: result as i32,
        witness: witness::SYS_EXIT,
        is_wrapped: child.id() != socket.id(),
    };
    let is_tcp = if result < 0 {
        !returned.listener.is_null()
    } else {
        !returned.child.is_null()
    };
    if is_tcp {
        returned.write_unless_hidden();
    }
}
