//! Writes a record into this CPU's buffer, see `abi::lane`.
//!
//! The ring buffer is one for all CPUs: its lock, and the helpers around it, take as long as all that a
//! hook reads. A per-CPU buffer needs neither, because its CPU is alone with it: programs at BTF tracepoints
//! run with preemption off (until Linux 6.19: from 7.0 on their carriers are not taken), and one that comes
//! on top of another is over before that one goes on. It finds `level` raised, and its record goes through
//! the ring buffer, as does one that finds the buffer full.

use core::hint::black_box;
use core::sync::atomic::{Ordering, compiler_fence};

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use tcptrace_ebpf::abi::lane::{self, CHUNK, LEVELS, LONGEST, LaneEnds, Ring};

use crate::emit::{now_ns, wakeup};
use crate::maps::{self, EVENTS};
use crate::settings::LANE_CHUNKS;

/// Every CPU's chunks; the loader sets the number.
#[map]
static LANES: Array<[u64; CHUNK / 8]> = Array::with_max_entries(1, lane::MMAPABLE);

/// Of each CPU; the loader sets the number.
#[map]
static LANE_ENDS: Array<LaneEnds> = Array::with_max_entries(1, lane::MMAPABLE);

/// A record behind its length.
#[repr(C)]
struct Frame<R> {
    len: u64,
    record: R,
}

/// Writes a record, which `fill` makes with its time; false when there is no room for it. For programs
/// that cannot be preempted.
#[inline(always)]
pub fn write<R: 'static>(fill: impl FnOnce(*mut R, u64)) -> bool {
    let Some(ends) = own_ends() else {
        return false;
    };
    // SAFETY: this CPU's own value. Volatile, because of who comes on top of this program. The fences
    // keep the compiler's order.
    unsafe {
        let level = (&raw const (*ends).level).read_volatile();
        if level >= u64::from(LEVELS) {
            return false;
        }
        (&raw mut (*ends).level).write_volatile(level + 1);
        compiler_fence(Ordering::SeqCst);
        let is_written = write_at(ends, level as u32, fill);
        compiler_fence(Ordering::SeqCst);
        (&raw mut (*ends).level).write_volatile(level);
        is_written
    }
}

/// Lets the loader know that a record is on its way, before its time is taken. For programs that can be
/// preempted: another one may run meanwhile, and be over later.
#[inline(always)]
pub fn announce() {
    if let Some(ends) = own_ends() {
        // SAFETY: an aligned value of a map.
        unsafe { maps::increment(&raw mut (*ends).busy) };
    }
}

/// The record that was announced can be read, or is lost. A program stays on its CPU.
#[inline(always)]
pub fn arrived() {
    if let Some(ends) = own_ends() {
        // SAFETY: as above.
        unsafe { maps::decrement(&raw mut (*ends).busy) };
    }
}

#[inline(always)]
fn own_ends() -> Option<*mut LaneEnds> {
    // SAFETY: the helper takes nothing and cannot fail.
    LANE_ENDS.get_ptr_mut(unsafe { bpf_get_smp_processor_id() })
}

/// # Safety
/// `level` must be raised to one more than this: who comes on top then takes the chunk of its own level.
#[inline(always)]
unsafe fn write_at<R: 'static>(
    ends: *mut LaneEnds,
    level: u32,
    fill: impl FnOnce(*mut R, u64),
) -> bool {
    const { assert!(size_of::<Frame<R>>() <= LONGEST) };
    // Behind `level`, see `LaneEnds`.
    let mono_ns = now_ns();
    let frame = size_of::<Frame<R>>() as u64;
    let chunks = LANE_CHUNKS.load();
    let ring = Ring::of(chunks);
    // SAFETY: this CPU's own value; the loader moves `read`.
    let (at, read) = unsafe { ((*ends).written, (&raw const (*ends).read).read_volatile()) };
    let has_room = level == 0 && ring.has_room(at, read, frame);
    let (chunk, offset) = if has_room {
        (ring.chunk_of(at), ring.offset_of(at))
    } else {
        (chunks + level, 0)
    };
    // SAFETY: the helper takes nothing and cannot fail.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(chunk) = LANES.get_ptr_mut(cpu * lane::chunks(chunks) + chunk) else {
        return false;
    };
    // The compiler knows that it fits, and the verifier does not: so it must be checked.
    let offset = black_box(offset);
    if offset > CHUNK as u64 - frame {
        return false;
    }
    // SAFETY: inside of the chunk, where nobody else writes.
    unsafe {
        let place = chunk.cast::<u8>().add(offset as usize).cast::<Frame<R>>();
        (&raw mut (*place).len).write(size_of::<R>() as u64);
        fill(&raw mut (*place).record, mono_ns);
        if has_room {
            // x86-64 keeps the order of stores.
            compiler_fence(Ordering::SeqCst);
            (&raw mut (*ends).written).write_volatile(ring.next(at, frame));
            true
        } else {
            let record = &*(&raw const (*place).record);
            EVENTS.output::<R>(record, wakeup(mono_ns)).is_ok()
        }
    }
}
