//! Writing of records into the ring buffer. A record that does not fit is counted as lost.

use core::ffi::c_void;

use aya_ebpf::bindings::{
    BPF_F_USER_STACK, BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP,
};
use aya_ebpf::helpers::generated::{bpf_get_stack, bpf_probe_read_kernel};
use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns};
use tcptrace_ebpf::abi::{Header, Stack, VERSION, section, total};

use crate::globals::WAKE_AT;
use crate::kernel::tuple::Addrs;
use crate::maps::{self, EVENTS};

/// A record: its header, its payload, and the sections that the payload lists.
#[repr(C)]
struct Record<P, S> {
    header: Header,
    payload: P,
    sections: S,
}

impl<P, S> Record<P, S> {
    const NO_PADDING: () = assert!(
        size_of::<Self>() == size_of::<Header>() + size_of::<P>() + size_of::<S>(),
        "padding would carry kernel memory out"
    );
}

/// Two adjacent sections.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Pair<A, B>(A, B);

/// Reserves a record in the ring buffer, fills it in place and submits it. Counts it as lost if the
/// ring buffer is full.
///
/// The time is read after the reservation. A loader that has read up to the producer position of
/// some moment therefore has every record with an earlier time.
///
/// `payload` and `sections` run after the reservation, so that their results need no room on the
/// stack. `S` is a section, or [`Pair`].
#[inline(always)]
pub fn submit<P: Copy + 'static, S: Copy + 'static>(
    hook: u32,
    kind: u8,
    payload: impl FnOnce() -> P,
    sections: impl FnOnce(Place<S>),
) {
    const { Record::<P, S>::NO_PADDING };
    let Some(mut slot) = EVENTS.reserve::<Record<P, S>>(0) else {
        maps::count_lost(hook);
        return;
    };
    let mono_ns = now_ns();
    let record = slot.as_mut_ptr();
    // SAFETY: the slot is reserved, and aligned to eight bytes.
    unsafe {
        (&raw mut (*record).header).write(header(kind, mono_ns));
        (&raw mut (*record).payload).write(payload());
        sections(Place(&raw mut (*record).sections));
    }
    slot.submit(wakeup(mono_ns));
}

/// The uninitialised place of a section in a record. It must be filled, because unwritten bytes
/// would expose older records.
pub struct Place<S>(*mut S);

impl<S> Place<S> {
    #[inline(always)]
    pub fn fill(self, section: S) {
        // SAFETY: the place is in a reserved record.
        unsafe { self.0.write(section) };
    }
}

impl Place<Stack> {
    /// Fills in the call stacks of the current task. They are empty where the kernel cannot read
    /// them. `ctx` is the program's context.
    #[inline(always)]
    pub fn fill_stack(self, ctx: *mut c_void) {
        // SAFETY: both members lie inside of the place.
        unsafe {
            read_stack(ctx, &raw mut (*self.0).kernel, 0);
            read_stack(ctx, &raw mut (*self.0).user, BPF_F_USER_STACK.into());
        }
    }
}

/// # Safety
/// `frames` must be valid for writes.
#[inline(always)]
unsafe fn read_stack<const N: usize>(ctx: *mut c_void, frames: *mut [u64; N], flags: u64) {
    let size = size_of::<[u64; N]>() as u32;
    // SAFETY: the helpers write at most `size` bytes. The second writes zeros, because it cannot
    // read address 0. The first fills the rest with zeros, but nothing if too many programs on this
    // CPU read stacks at once.
    unsafe {
        if bpf_get_stack(ctx, frames.cast(), size, flags) < 0 {
            bpf_probe_read_kernel(frames.cast(), size, core::ptr::null());
        }
    }
}

impl<A, B> Place<Pair<A, B>> {
    /// Returns the places of the two sections.
    #[inline(always)]
    pub fn split(self) -> (Place<A>, Place<B>) {
        // SAFETY: both fields lie inside of the place.
        unsafe { (Place(&raw mut (*self.0).0), Place(&raw mut (*self.0).1)) }
    }
}

/// Fills the place of a record without sections.
#[inline(always)]
pub fn none(place: Place<()>) {
    place.fill(());
}

/// Like [`submit`], with the addresses as the first section, in IPv4 form where possible. `payload`
/// gets the bit of `sections` that says which form was used.
#[inline(always)]
pub fn submit_with_addrs<P: Copy + 'static, S: Copy + 'static>(
    hook: u32,
    kind: u8,
    addrs: Addrs,
    payload: impl FnOnce(u8) -> P,
    sections: impl FnOnce(Place<S>),
) {
    if addrs.is_v4 {
        submit(
            hook,
            kind,
            #[inline(always)]
            || payload(section::V4),
            #[inline(always)]
            |place: Place<Pair<_, S>>| {
                let (first, rest) = place.split();
                first.fill(addrs.as_v4());
                sections(rest);
            },
        );
    } else {
        submit(
            hook,
            kind,
            #[inline(always)]
            || payload(0),
            #[inline(always)]
            |place: Place<Pair<_, S>>| {
                let (first, rest) = place.split();
                first.fill(addrs.as_v6());
                sections(rest);
            },
        );
    }
}

#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: the helper takes nothing and cannot fail.
    unsafe { bpf_ktime_get_ns() }
}

/// Returns the header of a record of `kind`, written on this CPU.
#[inline(always)]
pub fn header(kind: u8, mono_ns: u64) -> Header {
    Header {
        mono_ns,
        lost: maps::total(total::LOST) as u32,
        // SAFETY: the helper takes nothing and cannot fail.
        cpu: unsafe { bpf_get_smp_processor_id() } as u16,
        kind,
        version: VERSION,
    }
}

/// One record in this many queries the fill level of the ring buffer. A query costs a tenth of a
/// record.
const QUERY_EVERY: u64 = 8;

/// A writer that queries wakes the reader if the fill level is at most this many bytes above
/// `WAKE_AT`. It is wide enough that writers on several CPUs do not all skip it without a query.
const WAKE_WINDOW: u64 = 16 << 10;

/// Returns the wake-up flag of a record. The reader runs on a timer, because a wake-up costs
/// several times as much as a record. It is woken early, and once, when the ring buffer fills past
/// `WAKE_AT`.
#[inline(always)]
fn wakeup(mono_ns: u64) -> u64 {
    // The low bits of a time are as good as random. The lowest four are skipped, because some
    // clocks tick more slowly.
    if (mono_ns >> 4) & (QUERY_EVERY - 1) != 0 {
        return BPF_RB_NO_WAKEUP.into();
    }
    let waiting = EVENTS.query(BPF_RB_AVAIL_DATA.into());
    let mark = u64::from(WAKE_AT.load());
    if waiting >= mark && waiting < mark + WAKE_WINDOW {
        BPF_RB_FORCE_WAKEUP.into()
    } else {
        BPF_RB_NO_WAKEUP.into()
    }
}
