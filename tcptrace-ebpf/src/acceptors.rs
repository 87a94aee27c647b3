//! The acceptors: the threads whose scheduling is recorded, because they call accept() on a
//! listener of the trace.
//!
//! Without `--why` nothing here runs: the verifier drops the branch of `WHY`.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap};
use tcptrace_ebpf::abi::{self, Sched, hook, kind, sched_flag, sched_section, sched_step};

use crate::emit::{Place, submit};
use crate::globals::WHY;
use crate::kernel::task::Task;
use crate::maps::{self, count};

/// A thread that accepts, or that will probably accept.
#[repr(C)]
#[derive(Clone, Copy)]
struct Acceptor {
    /// Address of the listener of its last accept() or listen().
    listener: u64,
    /// 0 if it has only called listen(), else 1.
    accepts: u64,
}

/// The acceptors by their tid. The loader sets the size to 1 without `--why`.
#[map]
static ACCEPTORS: HashMap<u32, Acceptor> = HashMap::with_max_entries(abi::ACCEPTORS, 0);

/// Number of rows in `MARKS`, a power of two.
const MARKS_LEN: usize = 4096;

/// The row at `tid % MARKS_LEN` is the number of acceptors with such a tid. It tells most other
/// threads apart without a hash.
#[map]
static MARKS: Array<[u64; MARKS_LEN]> = Array::with_max_entries(1, 0);

/// Returns whether a thread is an acceptor.
#[inline(always)]
pub fn has(tid: u32) -> bool {
    is_marked(tid) && ACCEPTORS.get_ptr(tid).is_some()
}

#[inline(always)]
fn is_marked(tid: u32) -> bool {
    MARKS
        .get(0)
        .is_some_and(|marks| marks[tid as usize % MARKS_LEN] != 0)
}

/// Adds `n`, which is 1 or -1, to the row of a tid.
#[inline(always)]
fn mark(tid: u32, n: i64) {
    if let Some(marks) = MARKS.get_ptr_mut(0) {
        // SAFETY: the index is inside of the array, and all writers go through here.
        unsafe { maps::add(&raw mut (*marks)[tid as usize % MARKS_LEN], n as u64) };
    }
}

/// Removes a thread that has exited, because the kernel may reuse its number.
#[inline(always)]
pub fn forget(tid: u32) {
    if ACCEPTORS.remove(tid).is_ok() {
        mark(tid, -1);
    }
}

/// Adds the current thread, which calls accept() on this listener.
#[inline(always)]
pub fn accepts(listener: u64) {
    if WHY.load() != 0 && listener != 0 {
        enrol(listener, 1);
    }
}

/// Adds the current thread, which calls listen(): it will probably accept.
#[inline(always)]
pub fn listens(listener: u64) {
    if WHY.load() != 0 {
        enrol(listener, 0);
    }
}

/// A separate subprogram, because inlining it in every program of accept() would fill most of the
/// object.
#[inline(never)]
fn enrol(listener: u64, accepts: u64) {
    let id = bpf_get_current_pid_tgid();
    let tid = id as u32;
    let known = ACCEPTORS.get_ptr(tid);
    let is_known = known.is_some();
    if let Some(known) = known {
        // SAFETY: only this thread changes its own entry.
        let known = unsafe { *known };
        if known.listener == listener && known.accepts >= accepts {
            return;
        }
    }
    count(hook::SCHED_SWITCH, |counters| counters.admitted += 1);
    if ACCEPTORS
        .insert(tid, Acceptor { listener, accepts }, 0)
        .is_err()
    {
        maps::count_lost(hook::SCHED_SWITCH);
        return;
    }
    if !is_known {
        mark(tid, 1);
    }
    let payload = || Sched {
        listener,
        step: sched_step::ENROLLED,
        sections: sched_section::TASK,
        flags: if accepts == 0 { sched_flag::LISTENS } else { 0 },
        ..Sched::of(tid, (id >> 32) as u32)
    };
    submit(
        hook::SCHED_SWITCH,
        kind::SCHED,
        payload,
        #[inline(always)]
        |place: Place<_>| place.fill(Task::current().as_section()),
    );
}
