//! Tracking of accept() calls that a signal interrupts, for the result that their caller sees.
//!
//! ```text
//! tracepoint signal_deliver(int sig, struct kernel_siginfo *info, struct k_sigaction *ka)    5.10 to 6.18
//! ```
//! include/trace/events/signal.h. `get_signal` calls it:
//! <https://elixir.bootlin.com/linux/v6.12/source/kernel/signal.c#L2694>
//!
//! A call that a signal wakes returns ERESTARTSYS or a similar error, which no program sees. Before
//! the return to user space, the kernel runs the signal's handler. Then it turns the error into
//! EINTR or restarts the call (`handle_signal`, arch/x86/kernel/signal.c; `do_signal`,
//! arch/arm64/kernel/signal.c). Without a handler it
//! always restarts the call.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::{map, raw_tracepoint};
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::programs::RawTracePointContext;

use super::Returned;
use crate::globals::{SA_FLAGS, SA_HANDLER};
use crate::kernel::memory::{Memory, Probed};
use crate::kernel::registers::is_aarch64;
use crate::kernel::sock::Sock;
use crate::kernel::task::Task;
use crate::maps::Call;

const EINTR: i32 = 4;

/// include/linux/errno.h
const ERESTARTSYS: i32 = 512;
const ERESTARTNOINTR: i32 = 513;
const ERESTARTNOHAND: i32 = 514;
const ERESTART_RESTARTBLOCK: i32 = 516;

/// include/uapi/asm-generic/signal.h
const SA_RESTART: u64 = 0x1000_0000;
/// SIG_DFL is 0.
const SIG_IGN: u64 = 1;

/// A call whose result the next signal decides.
#[repr(C)]
#[derive(Clone, Copy)]
struct Interrupted {
    /// `called_ns` is 0 if the call was not seen.
    call: Call,
    listener: u64,
    /// The result of the call, a negated errno.
    result: i32,
    witness: u32,
}

/// Interrupted calls by `bpf_get_current_pid_tgid()`. The entry of a task that the signal kills
/// stays until it is evicted.
#[map]
static INTERRUPTED: LruHashMap<u64, Interrupted> = LruHashMap::with_max_entries(1024, 0);

/// Stores a failed call if a signal interrupted it. Returns whether it did; the program of the
/// signal then writes the record, if any.
#[inline(always)]
pub(super) fn defer_to_signal(returned: &Returned) -> bool {
    let is_interrupted = matches!(
        -returned.result,
        ERESTARTSYS | ERESTARTNOINTR | ERESTARTNOHAND | ERESTART_RESTARTBLOCK
    );
    if !is_interrupted {
        return false;
    }
    let interrupted = Interrupted {
        call: returned.call.unwrap_or(Call {
            called_ns: 0,
            listener: 0,
            error: 0,
            emitted: 0,
            flags: 0,
        }),
        listener: returned.listener.id(),
        result: returned.result,
        witness: returned.witness.into(),
    };
    // A full map evicts the oldest entry.
    let _ = INTERRUPTED.insert(bpf_get_current_pid_tgid(), interrupted, 0);
    true
}

/// Forgets an interrupted call of this thread, which was restarted or has nothing to do with the call
/// that begins. On arm64 the registers at a later signal do not tell that.
#[inline(always)]
pub(super) fn begin_call() {
    if is_aarch64() {
        let _ = INTERRUPTED.remove(bpf_get_current_pid_tgid());
    }
}

#[raw_tracepoint(tracepoint = "signal_deliver")]
pub fn accept_signal(ctx: RawTracePointContext) -> i32 {
    let id = bpf_get_current_pid_tgid();
    let Some(interrupted) = INTERRUPTED.get_ptr_mut(id) else {
        return 0;
    };
    // SAFETY: only this task touches its own entry.
    let interrupted = unsafe { *interrupted };
    let action: *const u8 = ctx.arg(2);
    // SAFETY: the tracepoint's own struct k_sigaction.
    let (handler, flags): (u64, u64) = unsafe {
        (
            Probed::read(action, &SA_HANDLER),
            Probed::read(action, &SA_FLAGS),
        )
    };
    if handler <= SIG_IGN {
        return 0;
    }
    let _ = INTERRUPTED.remove(id);
    // If the task is not leaving the call, the call was restarted, and this signal belongs to
    // something later.
    let is_leaving = Task::current().is_leaving_accept(interrupted.result);
    let is_restarted = match -interrupted.result {
        ERESTARTSYS => flags & SA_RESTART != 0,
        result => result == ERESTARTNOINTR,
    };
    if is_leaving && !is_restarted {
        Returned {
            child: Sock::null(),
            listener: Sock::new(interrupted.listener as *const u8),
            call: (interrupted.call.called_ns != 0).then_some(interrupted.call),
            result: -EINTR,
            witness: interrupted.witness as u8,
            is_wrapped: false,
        }
        .write();
    }
    0
}
