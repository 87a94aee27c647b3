//! accept(), seen at the system call.
//!
//! The carrier for kernels without kprobes and BTF trampolines: raw `sys_enter` and `sys_exit`,
//! and the walk from the descriptor to its socket.
//!
//! ```text
//! TP_PROTO(struct pt_regs *regs, long id)     sys_enter
//! TP_PROTO(struct pt_regs *regs, long ret)    sys_exit
//! ```
//! include/trace/events/syscalls.h, the same from Linux 5.10 to 6.18:
//! <https://elixir.bootlin.com/linux/v6.12/source/include/trace/events/syscalls.h#L18>
//!
//! Both fire for every system call of the machine, so the first thing they do is to compare a
//! number. What they cannot see: io_uring, 32-bit programs, accepts inside the kernel.

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_get_current_task, bpf_ktime_get_ns, bpf_probe_read_kernel,
};
use aya_ebpf::macros::{btf_tracepoint, raw_tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, RawTracePointContext};
use tcptrace_ebpf::abi::{
    Accept, AcceptEnds, Addrs6, Task, accept_flag, hook, kind, tally, witness,
};

use crate::emit::{current_task, emit};
use crate::filter;
use crate::maps::{self, CALLS, Call, count};
use crate::memory::{Direct, Memory, Probed};
use crate::settings::*;
use crate::sock::Sock;

/// arch/x86/entry/syscalls/syscall_64.tbl
const NR_ACCEPT: u64 = 43;
const NR_ACCEPT4: u64 = 288;

/// `TS_COMPAT`, arch/x86/include/asm/thread_info.h: in a 32-bit system call, whose numbers and
/// registers mean something else.
const TS_COMPAT: u32 = 0x0002;

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
fn is_accept(number: u64) -> bool {
    number == NR_ACCEPT || number == NR_ACCEPT4
}

#[inline(always)]
fn entered<M: Memory>(regs: *const u8) {
    // SAFETY: `regs` is the tracepoint's struct pt_regs.
    let Some(fd) = (unsafe { M::read::<u64>(regs, &REGS_DI) }) else {
        return;
    };
    let task = current();
    if is_compat(task) {
        return;
    }
    let Some(listener) = tcp_sock_of_fd(task, fd as i32) else {
        return;
    };
    let call = Call {
        called_ns: unsafe { bpf_ktime_get_ns() },
        listener: listener.id(),
    };
    if CALLS.insert(bpf_get_current_pid_tgid(), call, 0).is_err() {
        maps::add_to_tally(tally::UNTRACKED_CALLS);
    }
}

#[inline(always)]
fn exited<M: Memory>(regs: *const u8, result: i64) {
    // SAFETY: `regs` is the tracepoint's struct pt_regs.
    match unsafe { M::read(regs, &REGS_ORIG_AX) } {
        Some(number) if is_accept(number) => {}
        _ => return,
    }
    let task = current();
    if is_compat(task) {
        return;
    }
    let id = bpf_get_current_pid_tgid();
    // SAFETY: only this task touches its own entry.
    let call = unsafe { CALLS.get(id) }.copied();
    let _ = CALLS.remove(id);
    let listener = match call {
        Some(call) => Some(Sock::<Probed>::new(call.listener as *const u8)),
        // The call began before the hooks did; its argument is still in the registers.
        // SAFETY: as above.
        None => {
            unsafe { M::read::<u64>(regs, &REGS_DI) }.and_then(|fd| tcp_sock_of_fd(task, fd as i32))
        }
    };
    if result < 0 {
        if let Some(listener) = listener {
            returned(None, Some(listener), call, result as i32);
        }
    } else if let Some(child) = tcp_sock_of_fd(task, result as i32) {
        returned(Some(child), listener, call, result as i32);
    }
}

/// Writes the record of an accept that returned. One of `child` and `listener` is there.
#[inline(always)]
fn returned(
    child: Option<Sock<Probed>>,
    listener: Option<Sock<Probed>>,
    call: Option<Call>,
    result: i32,
) {
    let Some(subject) = child.or(listener) else {
        return;
    };
    count(hook::ACCEPT, |counters| counters.seen += 1);
    let ends = subject.ends();
    if !filter::passes(&ends) {
        count(hook::ACCEPT, |counters| counters.filtered += 1);
        return;
    }

    let mut flags = 0;
    if child.is_some_and(Sock::has_fastopen_request) {
        flags |= accept_flag::FASTOPEN;
    }
    if call.is_none() && maps::tally(tally::UNTRACKED_CALLS) == 0 {
        flags |= accept_flag::BLOCKED_AT_ATTACH;
    }
    let payload = Accept {
        sk: child.map_or(0, Sock::id),
        listener: listener.map_or(0, Sock::id),
        cookie: child.map_or(0, Sock::cookie),
        called_ns: call.map_or(0, |call| call.called_ns),
        netns: subject.netns(),
        backlog_len: listener.map_or(0, Sock::backlog_len),
        backlog_max: listener.map_or(0, Sock::backlog_max),
        result,
        lport: ends.lport,
        rport: ends.rport,
        state: child.map_or(0, Sock::state),
        witness: witness::SYS_EXIT,
        flags,
        reserved: 0,
    };
    let nowhere = Addrs6 {
        laddr: [0; 16],
        raddr: [0; 16],
    };
    let accept_ends = AcceptEnds {
        child: child.map_or(nowhere, |_| ends.addrs.as_v6()),
        listener: listener.map_or(nowhere, |sk| sk.ends().addrs.as_v6()).laddr,
    };
    let sections = Sections(accept_ends, current_task());
    emit(hook::ACCEPT, kind::ACCEPT, &payload, sections);
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Sections(AcceptEnds, Task);

#[inline(always)]
fn current() -> *const u8 {
    unsafe { bpf_get_current_task() as *const u8 }
}

#[inline(always)]
fn is_compat(task: *const u8) -> bool {
    // SAFETY: `task` is the current struct task_struct.
    unsafe { Probed::read::<u32>(task, &TASK_STATUS) }.unwrap_or(0) & TS_COMPAT != 0
}

/// From a descriptor to the TCP socket behind it.
#[inline(always)]
fn tcp_sock_of_fd(task: *const u8, fd: i32) -> Option<Sock<Probed>> {
    let sk = sock_of_fd(task, fd);
    if sk.is_null() {
        return None;
    }
    Sock::<Probed>::new(sk).tcp()
}

/// From a descriptor to its `struct sock`, null when it is not a socket's: the way of
/// `sockfd_lookup` without its locks. Tracing programs run with preemption off inside an RCU read
/// section, so the table and the file stay; a fault reads as nothing.
///
/// A subprogram of its own: inlined three times it would fill most of the object.
#[inline(never)]
fn sock_of_fd(task: *const u8, fd: i32) -> *const u8 {
    // SAFETY: each pointer is read from the structure before it; the helper checks addresses.
    let sk = || unsafe {
        let files = Probed::read::<*const u8>(task, &TASK_FILES)?;
        let table = Probed::read::<*const u8>(files, &FILES_FDT)?;
        if fd < 0 || fd as u32 >= Probed::read::<u32>(table, &FDT_MAX_FDS)? {
            return None;
        }
        let entries = Probed::read::<*const u8>(table, &FDT_FD)?;
        let entry = entries.wrapping_add(fd as usize * size_of::<usize>());
        let file = bpf_probe_read_kernel(entry.cast::<*const u8>()).ok()?;
        let socket = Probed::read::<*const u8>(file, &FILE_PRIVATE_DATA)?;
        // Any kind of file has private data; only a socket's points back to the file.
        if Probed::read::<*const u8>(socket, &SOCKET_FILE)? != file {
            return None;
        }
        Probed::read::<*const u8>(socket, &SOCKET_SK)
    };
    sk().unwrap_or(core::ptr::null())
}
