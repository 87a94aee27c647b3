//! Writes a record into this CPU's lane, see `abi::lane`.
//!
//! The ring buffer is one for all CPUs: its lock, and the helpers around it, take as long as all that a
//! hook reads. A lane needs neither, because a CPU is alone with it: programs at BTF tracepoints run
//! with preemption off (until Linux 6.19: from 7.0 on their carriers are not taken), and one that comes on
//! top of another is over before that one goes on. It finds `level` raised, and its record goes through the ring
//! buffer, as does one that finds its lane full.

use core::hint::black_box;
use core::sync::atomic::{Ordering, compiler_fence};

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use tcptrace_ebpf::abi::lane::{self, CHUNK, CHUNK_WORDS, LEVELS, LaneEnds};

use crate::emit::wakeup;
use crate::maps::EVENTS;
use crate::settings::LANE_CHUNKS;

/// Every CPU's chunks; the loader sets the number.
#[map]
static LANES: Array<[u64; CHUNK_WORDS]> = Array::with_max_entries(1, lane::MMAPABLE);

/// Of each CPU; the loader sets the number.
#[map]
static LANE_ENDS: Array<LaneEnds> = Array::with_max_entries(1, lane::MMAPABLE);

/// A record in a chunk, and the length that says what follows.
#[repr(C)]
struct Framed<R> {
    len: u64,
    record: R,
    next_len: u64,
}

/// Writes a record, which `fill` makes; false when there is no room for it. For programs that cannot
/// be preempted.
#[inline(always)]
pub fn write<R: 'static>(mono_ns: u64, fill: impl FnOnce(*mut R)) -> bool {
    // SAFETY: the helper takes nothing and cannot fail.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(ends) = LANE_ENDS.get_ptr_mut(cpu) else {
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
        let is_written = write_at(cpu, ends, level as u32, mono_ns, fill);
        compiler_fence(Ordering::SeqCst);
        (&raw mut (*ends).level).write_volatile(level);
        is_written
    }
}

/// # Safety
/// `level` must be raised to one more than this: who comes on top then takes the chunk of its own level.
#[inline(always)]
unsafe fn write_at<R: 'static>(
    cpu: u32,
    ends: *mut LaneEnds,
    level: u32,
    mono_ns: u64,
    fill: impl FnOnce(*mut R),
) -> bool {
    let len = (size_of::<u64>() + size_of::<R>()) as u64;
    let chunks = LANE_CHUNKS.load();
    // SAFETY: this CPU's own value; the loader moves `read`.
    let (written, read) = unsafe { ((*ends).written, (&raw const (*ends).read).read_volatile()) };
    let rest = CHUNK as u64 - written % CHUNK as u64;
    let at = if rest < len { written + rest } else { written };
    let has_room = level == 0 && at + len - read <= u64::from(chunks) * CHUNK as u64;
    let (chunk, offset) = if has_room {
        // The number of chunks is a power of two.
        let chunk = (at / CHUNK as u64) as u32 & chunks.wrapping_sub(1);
        (chunk, at % CHUNK as u64)
    } else {
        (chunks + level, 0)
    };
    let Some(chunk) = LANES.get_ptr_mut(cpu * lane::chunks(chunks) + chunk) else {
        return false;
    };
    // The compiler knows that it fits, and the verifier does not: so it must be checked.
    let offset = black_box(offset);
    if offset > CHUNK as u64 - len {
        return false;
    }
    // SAFETY: inside of the chunk, where nobody else writes.
    unsafe {
        let framed = chunk.cast::<u8>().add(offset as usize).cast::<Framed<R>>();
        (&raw mut (*framed).len).write(size_of::<R>() as u64);
        fill(&raw mut (*framed).record);
        (&raw mut (*framed).next_len).write(0);
        if has_room {
            // x86-64 keeps the order of stores.
            compiler_fence(Ordering::SeqCst);
            (&raw mut (*ends).written).write_volatile(at + len);
            true
        } else {
            let record = &*(&raw const (*framed).record);
            EVENTS.output::<R>(record, wakeup(mono_ns)).is_ok()
        }
    }
}
