//! Writes records into the ring buffer, or counts them as lost.

use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns};
use tcptrace_ebpf::abi::{Header, VERSION, section, tally};

use crate::globals::WAKE_AT;
use crate::kernel::tuple::Addrs;
use crate::maps::{self, EVENTS};

/// A record: header, payload, and the sections that the payload announces.
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

/// Two sections, one behind the other.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Two<A, B>(A, B);

/// Reserves room for a record, fills it there and submits it. Where there is no room, the record
/// counts as lost.
///
/// The time is taken after the reservation. So once the loader has read up to a position that it saw
/// at some moment, it has every record of that moment and before.
///
/// `payload` is called, and `sections` fills, when the record has its place, so that neither needs
/// room on the stack. `S` is a section, or [`Two`].
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
    // SAFETY: the reserved slot, which is aligned to eight bytes.
    unsafe {
        (&raw mut (*record).header).write(header(kind, mono_ns));
        (&raw mut (*record).payload).write(payload());
        sections(Place(&raw mut (*record).sections));
    }
    slot.submit(wakeup(mono_ns));
}

/// Where a section of a record lies. Whoever has it must fill it: what is not written would carry
/// older records out.
pub struct Place<S>(*mut S);

impl<S> Place<S> {
    #[inline(always)]
    pub fn fill(self, section: S) {
        // SAFETY: a place in a record that is reserved.
        unsafe { self.0.write(section) };
    }
}

impl<A, B> Place<Two<A, B>> {
    /// The places of the two sections.
    #[inline(always)]
    pub fn split(self) -> (Place<A>, Place<B>) {
        // SAFETY: inside of the place.
        unsafe { (Place(&raw mut (*self.0).0), Place(&raw mut (*self.0).1)) }
    }
}

/// For a record without sections.
#[inline(always)]
pub fn none(place: Place<()>) {
    place.fill(());
}

/// Like [`submit`], with the addresses as the first section, in their shorter form. `payload` is
/// given the bit of `sections` that says which form.
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
            |place: Place<Two<_, S>>| {
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
            |place: Place<Two<_, S>>| {
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

/// A writer that asks wakes the reader within so many bytes above `WAKE_AT`. They are so many records
/// that writers on several CPUs do not all step over them without asking.
const WINDOW: u64 = 16 << 10;

/// The reader drains by a timer, because a wake-up costs several times the record itself. It is
/// woken early, and once, when the ring buffer fills past `WAKE_AT`.
#[inline(always)]
fn wakeup(mono_ns: u64) -> u64 {
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
