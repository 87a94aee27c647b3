//! accept(), seen at the system call.
//!
//! The carrier for kernels without kprobes and BTF trampolines: raw `sys_enter` and `sys_exit`,
//! and the walk from the descriptor to its socket.
//!
//! ```text
//! tracepoint sys_enter(struct pt_regs *regs, long id)    5.10 to 6.18
//! tracepoint sys_exit(struct pt_regs *regs, long ret)    5.10 to 6.18
//! ```
//! include/trace/events/syscalls.h:
//! <https://elixir.bootlin.com/linux/v6.12/source/include/trace/events/syscalls.h#L18>
//!
//! Both fire for every system call of the machine, so the first thing they do is to compare a
//! number. What they cannot see: io_uring, 32-bit programs, accepts inside the kernel.

use aya_ebpf::macros::{btf_tracepoint, raw_tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext};
use tcptrace_ebpf::abi::witness;

use super::{Returned, called, take_call};
use crate::memory::{Direct, Memory, Probed};
use crate::settings::{REGS_DI, REGS_ORIG_AX};
use crate::sock::Sock;
use crate::task::{Task, is_accept};

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
    let listener = listener::<M>(task, regs);
    if !listener.is_null() {
        called(listener, 0);
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
    let call = take_call();
    let returned = Returned {
        child: task.tcp_sock(result as i32),
        listener: match call {
            Some(call) => Sock::new(call.listener as *const u8),
            // The call began before the hooks did; its argument is still in the registers.
            None => listener::<M>(task, regs),
        },
        call,
        result: result as i32,
        witness: witness::SYS_EXIT,
    };
    let is_tcp = if result < 0 {
        !returned.listener.is_null()
    } else {
        !returned.child.is_null()
    };
    if is_tcp {
        returned.write();
    }
}

/// The TCP socket of the descriptor that accept() was called with.
#[inline(always)]
fn listener<M: Memory>(task: Task, regs: *const u8) -> Sock<Probed> {
    // SAFETY: `regs` is the tracepoint's struct pt_regs.
    let fd: u64 = unsafe { M::read(regs, &REGS_DI) };
    task.tcp_sock(fd as i32)
}
