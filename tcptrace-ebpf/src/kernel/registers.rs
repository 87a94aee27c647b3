//! Readers of `struct pt_regs`, and the meaning of its registers on each processor.

use core::marker::PhantomData;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::programs::{PerfEventContext, ProbeContext, RetProbeContext};
use tcptrace_ebpf::abi::{aarch64, machine, x86_64};

use crate::globals::{
    MACHINE, REGS_AX, REGS_CS, REGS_DI, REGS_ORIG_AX, REGS_ORIG_X0, REGS_PSTATE, REGS_SI,
    REGS_SYSCALLNO, REGS_X,
};
use crate::kernel::memory::{Memory, Probed};

/// Size of a register in `pt_regs.regs` of arm64.
const REGISTER: usize = size_of::<u64>();

/// The register of arm64 with the number of the system call.
const X8: usize = 8;

/// The lowest bits of `cs` are 3 in user mode (`user_mode`, arch/x86/include/asm/ptrace.h).
const USER_RPL: u64 = 3;

/// The lowest bits of `pstate` are 0 in user mode, 32-bit or not (`user_mode`,
/// arch/arm64/include/asm/ptrace.h).
const PSR_MODE_MASK: u64 = 0xf;

/// Returns whether the processor is an arm64.
#[inline(always)]
pub fn is_aarch64() -> bool {
    MACHINE.load() == machine::AARCH64
}

/// Returns whether a 64-bit system call's number is that of accept() or accept4().
#[inline(always)]
pub fn is_accept(number: i32) -> bool {
    // Comparisons of signed numbers cost the verifier more.
    let number = number as u32;
    if is_aarch64() {
        matches!(number, aarch64::ACCEPT | aarch64::ACCEPT4)
    } else {
        matches!(number, x86_64::ACCEPT | x86_64::ACCEPT4)
    }
}

/// Returns the argument with this index at the entry of a function.
///
/// The object is compiled for the registers of x86-64, which the program loads from its context.
/// arm64 has the arguments in the first registers (arch/arm64/include/uapi/asm/ptrace.h). The helper
/// reads them, because the compiler would join two loads, and the verifier requires a constant offset
/// from the context.
#[inline(always)]
pub fn argument(ctx: &ProbeContext, index: usize) -> u64 {
    if is_aarch64() {
        // SAFETY: the context is the function's struct pt_regs.
        unsafe { Probed::read_at(ctx.as_ptr().cast::<u8>().wrapping_add(index * REGISTER)) }
    } else {
        ctx.arg(index).unwrap_or(0)
    }
}

/// Returns a pointer argument at the entry of a function.
#[inline(always)]
pub fn pointer(ctx: &ProbeContext, index: usize) -> *const u8 {
    argument(ctx, index) as *const u8
}

/// Returns what a function returns. arm64 has it in the first register.
#[inline(always)]
pub fn returned(ctx: &RetProbeContext) -> u64 {
    if is_aarch64() {
        // SAFETY: the context is the function's struct pt_regs.
        unsafe { Probed::read_at(ctx.as_ptr().cast()) }
    } else {
        ctx.ret()
    }
}

/// Returns whether the perf event interrupted user mode.
#[inline(always)]
pub fn is_user(ctx: &PerfEventContext) -> bool {
    // SAFETY: what the helper reads is not the context of the UAPI, but a struct
    // bpf_perf_event_data_kern, which begins with a pointer to the registers.
    unsafe {
        let regs: *const u8 = Probed::read_at(ctx.as_ptr().cast());
        if is_aarch64() {
            Probed::read::<u64>(regs, &REGS_PSTATE) & PSR_MODE_MASK == 0
        } else {
            Probed::read::<u64>(regs, &REGS_CS) & USER_RPL == USER_RPL
        }
    }
}

/// The registers of user mode, which the kernel saves when it is entered.
pub struct Registers<M>(*const u8, PhantomData<M>);

impl<M: Memory> Registers<M> {
    /// The pointer must be to a task's own `struct pt_regs`.
    #[inline(always)]
    pub unsafe fn new(regs: *const u8) -> Registers<M> {
        Registers(regs, PhantomData)
    }

    /// Returns the number of the system call; -1 at an entry by an exception or an interrupt
    /// (arch/x86/entry/entry_64.S, arch/arm64/kernel/entry.S).
    #[inline(always)]
    pub fn number(&self) -> i32 {
        // SAFETY: a struct pt_regs.
        unsafe {
            if is_aarch64() {
                M::read(self.0, &REGS_SYSCALLNO)
            } else {
                M::read(self.0, &REGS_ORIG_AX)
            }
        }
    }

    /// Returns the first argument of the system call, also when it returns. arm64 returns the result
    /// in the first argument's register, and keeps the argument.
    #[inline(always)]
    pub fn first_argument(&self) -> u64 {
        // SAFETY: a struct pt_regs.
        unsafe {
            if is_aarch64() {
                M::read(self.0, &REGS_ORIG_X0)
            } else {
                M::read(self.0, &REGS_DI)
            }
        }
    }

    /// Returns the second argument of the system call.
    #[inline(always)]
    pub fn second_argument(&self) -> u64 {
        // SAFETY: a struct pt_regs.
        unsafe {
            if is_aarch64() {
                M::read(self.0.wrapping_add(REGISTER), &REGS_X)
            } else {
                M::read(self.0, &REGS_SI)
            }
        }
    }

    /// Returns whether the system call was accept() with this result, at the delivery of a signal.
    ///
    /// On arm64 the kernel has prepared a restart by then, as if no signal had a handler (`do_signal`,
    /// arch/arm64/kernel/signal.c): it forgets the number and replaces the result by the first
    /// argument. The number is still in its register.
    #[inline(always)]
    pub fn is_leaving_accept(&self, result: i32) -> bool {
        // SAFETY: a struct pt_regs.
        unsafe {
            if is_aarch64() {
                let x0: u64 = M::read(self.0, &REGS_X);
                let x8: u64 = M::read(self.0.wrapping_add(X8 * REGISTER), &REGS_X);
                self.number() == -1 && is_accept(x8 as i32) && x0 == self.first_argument()
            } else {
                let ax: i64 = M::read(self.0, &REGS_AX);
                is_accept(self.number()) && ax == i64::from(result)
            }
        }
    }
}
