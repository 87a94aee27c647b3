//! accept() interrupted by a signal: what its caller sees of that.
//!
//! ```text
//! tracepoint signal_deliver(int sig, struct kernel_siginfo *info, struct k_sigaction *ka)    5.10 to 6.18
//! ```
//! include/trace/events/signal.h, called by `get_signal`:
//! <https://elixir.bootlin.com/linux/v6.12/source/kernel/signal.c#L2694>
//!
//! A call that a signal wakes returns ERESTARTSYS or one of its like, which no program sees. On the
//! way back to the program the kernel runs the signal's handler, if it has one, and makes EINTR of
//! it or starts the call again (`handle_signal`, arch/x86/kernel/signal.c); without a handler it
//! starts it again in any case.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::{map, raw_tracepoint};
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::programs::RawTracePointContext;

use super::Returned;
use crate::globals::{SA_FLAGS, SA_HANDLER};
use crate::kernel::memory::{Memory, Probed};
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

/// A call whose outcome the next signal decides.
#[repr(C)]
#[derive(Clone, Copy)]
struct Interrupted {
    /// Its time is 0 when it was not seen.
    call: Call,
    listener: u64,
    /// As the call returned, a negated errno.
    result: i32,
    witness: u32,
}

/// By `bpf_get_current_pid_tgid()`. A task that the signal ends leaves its entry here.
#[map]
static INTERRUPTED: LruHashMap<u64, Interrupted> = LruHashMap::with_max_entries(1024, 0);

/// Whether a call that failed goes on to a signal, which tells of it then, or nobody does.
#[inline(always)]
pub(super) fn interrupted(returned: &Returned) -> bool {
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
    // In a full map the oldest gives way.
    let _ = INTERRUPTED.insert(bpf_get_current_pid_tgid(), interrupted, 0);
    true
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
    // Else that call has been started again, and this signal is about something later.
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
            wrapped: false,
        }
        .write();
    }
    0
}
