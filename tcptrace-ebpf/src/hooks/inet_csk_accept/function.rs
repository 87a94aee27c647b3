//! Hook for accept() at the kernel's functions, by fentry and fexit, or by kprobe and kretprobe.
//!
//! It has three witnesses, because none sees everything:
//!
//! - the entry of `inet_csk_accept` has the listener and the time of the call;
//! - the return of `inet_csk_accept` has the child or the error. fexit misses the first return of
//!   an acceptor that was blocked at attach. A kretprobe has room for a few blocked callers only
//!   (`maxactive`), and silently loses the others;
//! - the entry of `security_sock_graft`, which every successful accept calls right after, misses
//!   neither. It writes the record if the return has not.
//!
//! ```text
//! void security_sock_graft(struct sock *sk, struct socket *parent)    5.10 to 6.18
//! ```
//! `sock_graft` calls it: <https://elixir.bootlin.com/linux/v6.12/source/include/net/sock.h#L1999>

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::{fentry, fexit, kprobe, kretprobe};
use aya_ebpf::programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext};
use tcptrace_ebpf::abi::{total, witness};

use super::{Returned, called, take_call};
use crate::globals::{ACCEPT_ARGS, PROTO_ACCEPT_ARG_ERR, PROTO_ACCEPT_ARG_FLAGS};
use crate::kernel::memory::{Memory, Probed};
use crate::kernel::registers::{argument, pointer, returned};
use crate::kernel::sock::Sock;
use crate::kernel::task::Task;
use crate::maps::{self, CALLS};

// Each prototype needs a program, because the verifier lets a program read only the function's own
// arguments. The return value follows the arguments.

#[fentry(function = "inet_csk_accept")]
pub fn accept_fentry4(ctx: FEntryContext) -> i32 {
    // SAFETY: the context is an array of the arguments. The helper reads it, because verifiers
    // before Linux 5.17 reject the load of a pointer to an integer (`btf_ctx_access`).
    let error = unsafe { Probed::read_at(ctx.as_ptr().cast::<u8>().add(2 * size_of::<u64>())) };
    entered(ctx.arg(0), error, ctx.arg::<u32>(1));
    0
}

#[fexit(function = "inet_csk_accept")]
pub fn accept_fexit4(ctx: FExitContext) -> i32 {
    left(ctx.arg(4), witness::FEXIT);
    0
}

#[fentry(function = "inet_csk_accept")]
pub fn accept_fentry2(ctx: FEntryContext) -> i32 {
    entered(ctx.arg(0), error_in(ctx.arg(1)), flags_in(ctx.arg(1)));
    0
}

#[fexit(function = "inet_csk_accept")]
pub fn accept_fexit2(ctx: FExitContext) -> i32 {
    left(ctx.arg(2), witness::FEXIT);
    0
}

#[fentry(function = "security_sock_graft")]
pub fn graft_fentry(ctx: FEntryContext) -> i32 {
    grafted(ctx.arg(0));
    0
}

#[kprobe]
pub fn accept_kprobe(ctx: ProbeContext) -> u32 {
    let listener = pointer(&ctx, 0);
    let arg = argument(&ctx, 1);
    if ACCEPT_ARGS.load() == 4 {
        entered(listener, argument(&ctx, 2), arg as u32);
    } else {
        entered(listener, error_in(arg), flags_in(arg));
    }
    0
}

#[kretprobe]
pub fn accept_kretprobe(ctx: RetProbeContext) -> u32 {
    left(returned(&ctx) as *const u8, witness::KRETPROBE);
    0
}

#[kprobe]
pub fn graft_kprobe(ctx: ProbeContext) -> u32 {
    grafted(pointer(&ctx, 0));
    0
}

/// Returns the address of the error in a `struct proto_accept_arg`.
#[inline(always)]
fn error_in(arg: u64) -> u64 {
    arg + u64::from(PROTO_ACCEPT_ARG_ERR.load())
}

/// Returns the flags in a `struct proto_accept_arg`.
#[inline(always)]
fn flags_in(arg: u64) -> u32 {
    // SAFETY: a struct proto_accept_arg.
    unsafe { Probed::read(arg as *const u8, &PROTO_ACCEPT_ARG_FLAGS) }
}

#[inline(always)]
fn entered(listener: *const u8, error: u64, flags: u32) {
    let listener = Sock::<Probed>::new(listener);
    if listener.is_tcp() {
        called(listener, error, flags.into());
    }
}

#[inline(always)]
fn left(child: *const u8, witness: u8) {
    let id = bpf_get_current_pid_tgid();
    let Some(call) = CALLS.get_ptr_mut(id) else {
        // Only calls that began with all hooks attached reach this point, so the entry of this one
        // was missed. Either `CALLS` was full, or the kernel skipped the program.
        // `security_sock_graft` emits a child's record. A failed call is lost, and the full map or
        // the kernel has counted it.
        maps::add_to_total(total::MISSED_CALLS);
        return;
    };
    let child = Sock::<Probed>::new(child);
    // SAFETY: only this task touches its own entry.
    let returned = unsafe {
        (*call).emitted = child.id();
        *call
    };
    let result = if child.is_null() {
        let _ = CALLS.remove(id);
        // SAFETY: this is where the kernel has just stored the error, on the caller's stack.
        unsafe { Probed::read_at(returned.error as *const u8) }
    } else {
        0
    };
    Returned {
        child,
        listener: Sock::new(returned.listener as *const u8),
        call: Some(returned),
        result,
        witness,
        is_wrapped: false,
    }
    .write_unless_hidden();
}

#[inline(always)]
fn grafted(sk: *const u8) {
    let grafted = Sock::<Probed>::new(sk);
    let child = grafted.tcp();
    if child.is_null() {
        return;
    }
    let call = take_call();
    if call.is_some_and(|call| call.emitted == child.id()) {
        return;
    }
    Returned {
        child,
        listener: match call {
            Some(call) => Sock::new(call.listener as *const u8),
            None => Task::current().listener_of_accept(child),
        },
        call,
        result: 0,
        witness: witness::SECURITY_SOCK_GRAFT,
        is_wrapped: child.id() != grafted.id(),
    }
    .write();
}
