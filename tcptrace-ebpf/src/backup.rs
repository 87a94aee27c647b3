//! What a program notes for its backup: which firings of their tracepoint it has told.
//!
//! Notes are taken only while there is a backup (`STAGE`, see `abi::backup`).

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray};
use tcptrace_ebpf::abi::backup;

/// The loader sets it.
#[map]
static BACKUP: Array<u32> = Array::with_max_entries(1, 0);

/// A firing of the tracepoint that a state program has told, and its backup has not seen yet.
#[repr(C)]
#[derive(Clone, Copy)]
struct Firing {
    /// Where its arguments are, on the kernel's stack: firings that are under way at the same
    /// time have them at different places. 0: none.
    args: u64,
    sk: u64,
}

/// Two a CPU: a process's firing, and that of a softirq on top of it.
#[map]
static TOLD: PerCpuArray<[Firing; 2]> = PerCpuArray::with_max_entries(1, 0);

#[inline(always)]
fn stage() -> u32 {
    // SAFETY: an aligned value of the map, which only the loader writes.
    BACKUP
        .get_ptr(0)
        .map_or(backup::NONE, |stage| unsafe { stage.read_volatile() })
}

/// Notes that a firing has been told. `args` is the program's context.
#[inline(always)]
pub fn told(args: *const u8, sk: *const u8) {
    if stage() != backup::NONE {
        remember(args, sk);
    }
}

/// Whether a firing was not told, as far as this is known by now; its note is taken away.
#[inline(always)]
pub fn is_skipped(args: *const u8, sk: *const u8) -> bool {
    !forget(args, sk) && stage() == backup::ACTS
}

#[inline(always)]
fn remember(args: *const u8, sk: *const u8) {
    let Some(slots) = TOLD.get_ptr_mut(0) else {
        return;
    };
    let firing = Firing {
        args: args as u64,
        sk: sk as u64,
    };
    // SAFETY: this CPU's own slots. Volatile, because a softirq may work on them in between.
    unsafe {
        let first = (&raw const (*slots)[0].args).read_volatile();
        // A firing at the same place is over, whoever left it there.
        let free = first == 0 || first == firing.args;
        let slot = if free {
            &raw mut (*slots)[0]
        } else {
            &raw mut (*slots)[1]
        };
        slot.write_volatile(firing);
    }
}

/// Whether it was there.
#[inline(always)]
fn forget(args: *const u8, sk: *const u8) -> bool {
    let Some(slots) = TOLD.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: as above.
    unsafe {
        for slot in [&raw mut (*slots)[0], &raw mut (*slots)[1]] {
            let told = slot.read_volatile();
            if told.args == args as u64 && told.sk == sk as u64 {
                (&raw mut (*slot).args).write_volatile(0);
                return true;
            }
        }
    }
    false
}
