//! Writes one record where the loader reads it, or counts it as lost.

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns};
use tcptrace_ebpf::abi::{Header, VERSION, tally};

use crate::lanes;
use crate::maps::{self, EVENTS};
use crate::settings::WAKE_AT;

/// A record: header, payload, and the sections that the payload announces.
#[repr(C)]
struct Record<P, S> {
    header: Header,
    payload: P,
    sections: S,
}

impl<P: Copy + 'static, S: Copy + 'static> Record<P, S> {
    const NO_PADDING: () = assert!(
        size_of::<Self>() == size_of::<Header>() + size_of::<P>() + size_of::<S>(),
        "padding would carry kernel memory out"
    );

    /// # Safety
    /// `record` must be big enough, and aligned to eight bytes.
    #[inline(always)]
    unsafe fn write(
        record: *mut Self,
        kind: u8,
        mono_ns: u64,
        payload: &P,
        sections: impl FnOnce() -> S,
    ) {
        const { Self::NO_PADDING };
        // SAFETY: the caller's promise.
        unsafe {
            (&raw mut (*record).header).write(header(kind, mono_ns));
            (&raw mut (*record).payload).write(*payload);
            (&raw mut (*record).sections).write(sections());
        }
    }
}

/// Writes a record of `kind`. `S` is a section, or a tuple struct of sections without padding. For
/// programs that can be preempted; [`emit_here`] is cheaper.
#[inline(always)]
pub fn emit<P: Copy + 'static, S: Copy + 'static>(hook: u32, kind: u8, payload: &P, sections: S) {
    emit_with(
        hook,
        kind,
        payload,
        #[inline(always)]
        || sections,
    );
}

/// Like [`emit`], but reads the sections when the record has its place, so that they need none on
/// the stack.
#[inline(always)]
pub fn emit_with<P: Copy + 'static, S: Copy + 'static>(
    hook: u32,
    kind: u8,
    payload: &P,
    sections: impl FnOnce() -> S,
) {
    lanes::announce();
    let mono_ns = now_ns();
    if let Some(mut slot) = EVENTS.reserve::<Record<P, S>>(0) {
        // SAFETY: the reserved slot.
        unsafe { Record::write(slot.as_mut_ptr(), kind, mono_ns, payload, sections) };
        slot.submit(wakeup(mono_ns));
    } else {
        maps::count_lost(hook);
    }
    lanes::arrived();
}

/// The same for programs that cannot be preempted: those at BTF tracepoints, see [`lanes`], and at
/// classic ones (`perf_syscall_exit`, kernel/trace/trace_syscalls.c, sees to it itself).
#[inline(always)]
pub fn emit_here<P: Copy + 'static, S: Copy + 'static>(
    hook: u32,
    kind: u8,
    payload: &P,
    sections: S,
) {
    emit_here_with(
        hook,
        kind,
        payload,
        #[inline(always)]
        || sections,
    );
}

/// Like [`emit_here`], but reads the sections when the record has its place, as [`emit_with`].
#[inline(always)]
pub fn emit_here_with<P: Copy + 'static, S: Copy + 'static>(
    hook: u32,
    kind: u8,
    payload: &P,
    sections: impl FnOnce() -> S,
) {
    let is_written = lanes::write::<Record<P, S>>(
        #[inline(always)]
        |record, mono_ns| {
            // SAFETY: a place for one.
            unsafe { Record::write(record, kind, mono_ns, payload, sections) }
        },
    );
    if !is_written {
        maps::count_lost(hook);
    }
}

/// Before the place is looked for: ordering by time tolerates the gap, and waiting for the ring
/// buffer's lock is not part of what happened.
#[inline(always)]
pub fn now_ns() -> u64 {
    unsafe { bpf_ktime_get_ns() }
}

/// The header of a record of `kind`, on this CPU.
#[inline(always)]
pub fn header(kind: u8, mono_ns: u64) -> Header {
    Header {
        mono_ns,
        lost: maps::tally(tally::LOST) as u32,
        // SAFETY: the helper takes nothing and cannot fail.
        cpu: unsafe { bpf_get_smp_processor_id() } as u16,
        kind,
        version: VERSION,
    }
}

/// One record in so many asks how full the ring buffer is: asking takes a tenth of the record.
const ASK_EACH: u64 = 8;

/// The bytes above `WAKE_AT` in which whoever asks wakes the reader: so many records that writers
/// on several CPUs do not all step over it without asking.
const WINDOW: u64 = 16 << 10;

/// The reader drains by a timer, because a wake-up costs several times the record itself. It is
/// woken early, and once, when the ring buffer fills past `WAKE_AT`.
#[inline(always)]
pub fn wakeup(mono_ns: u64) -> u64 {
    // The last bits of a time are as good as random; but for the very last, some clocks tick
    // slower than that.
    if (mono_ns >> 4) & (ASK_EACH - 1) != 0 {
        return BPF_RB_NO_WAKEUP.into();
    }
    let waiting = EVENTS.query(BPF_RB_AVAIL_DATA.into());
    let mark = u64::from(WAKE_AT.load());
    if waiting >= mark && waiting < mark + WINDOW {
        BPF_RB_FORCE_WAKEUP.into()
    } else {
        BPF_RB_NO_WAKEUP.into()
    }
}
