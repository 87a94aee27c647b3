//! accept(), seen at the system call.
//!
//! The carrier for kernels without kprobes and BTF trampolines: the entry and the return of the
//! system call, and the walk from the descriptor to its socket.
//!
//! ```text
//! tracepoint sys_enter(struct pt_regs *regs, long id)    5.10 to 6.18
//! tracepoint sys_exit(struct pt_regs *regs, long ret)    5.10 to 6.18
//! ```
//! include/trace/events/syscalls.h, kernel/trace/trace_syscalls.c:
//! <https://elixir.bootlin.com/linux/v6.12/source/include/trace/events/syscalls.h#L18>
//! <https://elixir.bootlin.com/linux/v6.12/source/kernel/trace/trace_syscalls.c#L557>
//!
//! The kernel has tracepoints of single system calls as well, which it makes from these two:
//! `syscalls:sys_enter_accept4` and its like. For them it looks into a bitmap and runs nothing at the
//! other system calls. `sys_enter` and `sys_exit` fire for every system call of the machine, so the first thing
//! that their programs do is to compare a number. What none of them sees: io_uring, 32-bit
//! programs, accepts inside the kernel.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::{btf_tracepoint, raw_tracepoint, tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext, TracePointContext};
use tcptrace_ebpf::abi::witness;

use super::{Returned, called, take_call};
use crate::globals::{REGS_DI, REGS_ORIG_AX};
use crate::kernel::memory::{Direct, Memory, Probed};
use crate::kernel::sock::Sock;
use crate::kernel::task::{Task, is_accept};

/// Where the first argument is at the entry of a system call, and the result at its return: behind
/// a `struct trace_entry` and the number, aligned to 8 (`struct syscall_tp_t`,
/// kernel/trace/trace_syscalls.c), also where a vendor's trace_entry is 4 bytes longer.
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
    // SAFETY: inside the record of every system call's tracepoint, see `VALUE`. A plain load: the
    // verifier wants a constant offset from the context.
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
    // SAFETY: `regs` is the tracepoint's struct pt_regs.
    let descriptor: u64 = unsafe { M::read(regs, &REGS_DI) };
    let listener = task.tcp_sock(descriptor as i32);
    if !listener.is_null() {
        called(listener, 0, 0);
    }
}

#[inline(always)]
fn exited<M: Memory>(regs: *const u8, result: i64) {
    // SAFETY: `regs` is the tracepoint's struct pt_regs.
    if !is_accept(unsafe { M::read(regs, &REGS_ORIG_AX) }) {
        return;
    }
    let task = Task::current();
    if task.is_compat() {
        return;
    }
    returned(task, result, || {
        // SAFETY: as above.
        Some(unsafe { M::read(regs, &REGS_DI) })
    });
}

/// `descriptor` tells which one accept() was called with, where the registers still have it.
#[inline(always)]
fn returned(task: Task, result: i64, descriptor: impl FnOnce() -> Option<u64>) {
    let call = take_call();
    let listener = match &call {
        Some(call) => Sock::new(call.listener as *const u8),
        // The call began before the hooks did.
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
        wrapped: child.id() != socket.id(),
    };
    let is_tcp = if result < 0 {
        !returned.listener.is_null()
    } else {
        !returned.child.is_null()
    };
    if is_tcp {
        returned.tell();
    }
}
