//! `--depth connections` and `histogram`: joins a socket's events to a life, which is one record at
//! its end, or a count in `tallies`.
//!
//! Nothing is worked out here. A life keeps what its events would have said, and the loader plays
//! them to the same correlator. An event without a life (the socket is older than the trace, or
//! `LIVES` was full at its birth) is told as ever.

use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns};
use tcptrace_ebpf::abi::{
    Accept, Addrs6, Closed, Header, Life, STEPS, SetState, Stats, Task, depth, hook, kind,
    life_flag, section,
};

use crate::emit::{current_task, header, wakeup};
use crate::maps::{self, EVENTS, LIVES, UNBORN};
use crate::settings::DEPTH;
use crate::sock::{TCP_CLOSE, TCP_ESTABLISHED, TCP_LISTEN, TCP_SYN_RECV, TCP_SYN_SENT};
use crate::tallies;

/// Whether sockets have lives.
#[inline(always)]
pub fn wanted() -> bool {
    DEPTH.load() != depth::EVENTS
}

/// Whether a socket has a life.
#[inline(always)]
pub fn has(sk: u64) -> bool {
    wanted() && LIVES.get_ptr(sk).is_some()
}

/// Adds a change of state that is no CLOSE to its socket's life; false when there is none.
///
/// The kernel changes a socket's state under its lock, so its life is no other CPU's at the time.
#[inline(always)]
pub fn live(change: &SetState, ends: impl FnOnce() -> Addrs6) -> bool {
    let Some(life) = life_of(change) else {
        return false;
    };
    let step = life.steps as usize;
    if step >= STEPS {
        return false;
    }
    life.entered_ns[step] = unsafe { bpf_ktime_get_ns() };
    life.states[step] = change.newstate;
    life.flags[step] = change.flags;
    life.steps = step as u32 + 1;
    if step == 0 {
        life.born_from = change.oldstate;
        life.cpu = unsafe { bpf_get_smp_processor_id() } as u16;
        life.born = *change;
        life.ends = ends();
        if change.sections & section::TASK != 0 {
            life.task = current_task();
        }
    } else if change.newstate == TCP_ESTABLISHED {
        let sections = life.born.sections;
        life.born = *change;
        life.born.sections = sections;
        life.ends = ends();
    }
    if tallies::is_tallied(life) {
        tallies::count_steps(1);
    }
    true
}

/// The life that a change of state belongs to, or begins.
#[inline(always)]
fn life_of(change: &SetState) -> Option<&'static mut Life> {
    let known = LIVES.get_ptr_mut(change.sk);
    let life = match (change.oldstate, change.newstate) {
        (TCP_CLOSE, TCP_SYN_SENT) | (TCP_LISTEN, TCP_SYN_RECV) => {
            if let Some(old) = known {
                // SAFETY: a value of the map. What lived here is gone, and went without CLOSE.
                let old = unsafe { &*old };
                if !tallies::is_tallied(old) {
                    tell(old);
                }
            }
            begin(change.sk)
        }
        // The filter may not have passed its birth, where the kernel had not set the peer yet.
        (TCP_SYN_RECV, TCP_ESTABLISHED) => known.or_else(|| begin(change.sk)),
        _ => known,
    };
    // SAFETY: a value of the map, which only the end of the life removes.
    life.map(|life| unsafe { &mut *life })
}

#[inline(always)]
fn begin(sk: u64) -> Option<*mut Life> {
    LIVES.insert(sk, UNBORN.get(0)?, 0).ok()?;
    LIVES.get_ptr_mut(sk)
}

/// Ends a socket's life at its change to CLOSE; false when it has none.
#[inline(always)]
pub fn end(change: &SetState, ends: Addrs6, stats: Stats) -> bool {
    #[repr(C)]
    struct Record {
        header: Header,
        life: Life,
        closed: Closed,
    }

    let Some(life) = LIVES.get_ptr_mut(change.sk) else {
        return false;
    };
    // SAFETY: as in `live`.
    let life = unsafe { &mut *life };
    if tallies::wanted() && tallies::ended(life, change) {
        let _ = LIVES.remove(change.sk);
        return true;
    }
    life.status |= life_flag::CLOSED;
    let mono_ns = unsafe { bpf_ktime_get_ns() };
    if let Some(mut slot) = EVENTS.reserve::<Record>(0) {
        let record = slot.as_mut_ptr();
        let task = if change.sections & section::TASK != 0 {
            current_task()
        } else {
            Task {
                pid: 0,
                tid: 0,
                comm: [0; 16],
            }
        };
        // SAFETY: the reserved slot, big enough and aligned to eight bytes.
        unsafe {
            (&raw mut (*record).header).write(header(kind::LIFE, mono_ns));
            (&raw mut (*record).life).write(*life);
            (&raw mut (*record).closed.change).write(*change);
            (&raw mut (*record).closed.ends).write(ends);
            (&raw mut (*record).closed.task).write(task);
            (&raw mut (*record).closed.stats).write(stats);
        }
        slot.submit(wakeup(size_of::<Record>() as u64));
    } else {
        lost(life, 1);
    }
    let _ = LIVES.remove(change.sk);
    true
}

/// Writes a life without an end.
#[inline(never)]
fn tell(life: &Life) {
    #[repr(C)]
    struct Record {
        header: Header,
        life: Life,
    }

    let Some(mut slot) = EVENTS.reserve::<Record>(0) else {
        lost(life, 0);
        return;
    };
    let record = slot.as_mut_ptr();
    // SAFETY: as above.
    unsafe {
        (&raw mut (*record).header).write(header(kind::LIFE, bpf_ktime_get_ns()));
        (&raw mut (*record).life).write(*life);
    }
    slot.submit(wakeup(size_of::<Record>() as u64));
}

/// Counts all that a life has seen as lost, and so many changes of state more.
#[inline(always)]
fn lost(life: &Life, more: u64) {
    maps::count_all_lost(hook::SET_STATE, u64::from(life.steps) + more);
    if life.accepted_ns != 0 {
        maps::count_all_lost(hook::ACCEPT, 1);
    }
}

/// Adds the accept() that returned it to a socket's life; false when it has none.
#[inline(always)]
pub fn accepted(accept: &Accept, listener: [u8; 16]) -> bool {
    let Some(life) = LIVES.get_ptr_mut(accept.sk) else {
        return false;
    };
    // SAFETY: a value of the map. The final ACK may be changing it on another CPU: not these
    // members, and its end comes after this.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    unsafe {
        (&raw mut (*life).accept).write(*accept);
        (&raw mut (*life).listener).write(listener);
        (&raw mut (*life).acceptor).write(current_task());
        (&raw mut (*life).accepted_ns).write(now_ns);
    }
    if tallies::wanted() {
        tallies::accepted(life, accept.called_ns, now_ns);
    }
    true
}
