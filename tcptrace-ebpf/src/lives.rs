//! `--depth connections` and `histogram`: joins a socket's events to a life, which is one record at
//! its end, or a count in `tallies`.
//!
//! Nothing is worked out here. A life keeps what its events would have said, and the loader plays
//! them to the same correlator. An event without a life (the socket is older than the trace, or
//! `LIVES` was full at its birth) is told as ever.
//!
//! A life is over when its socket has entered CLOSE and no accept() can return it any more: one that
//! is reset in the accept queue stays there. Of CLOSE and accept(), which may come at once on two
//! CPUs, each notes itself first and then looks for the other, so that one of them sees both; and
//! who tells of a life is whoever removes it from `LIVES`. Where no accept() can be looking any more,
//! CLOSE is alone with it, and the life may [`rest`] instead.

use core::sync::atomic::{Ordering, compiler_fence};

use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns};
use tcptrace_ebpf::abi::{
    Accept, Addrs6, Header, Life, STEPS, SetState, Stats, depth, hook, kind, section, state_flag,
};

use crate::emit::{header, wakeup};
use crate::maps::{self, EVENTS, LIVES, UNBORN};
use crate::rest;
use crate::settings::DEPTH;
use crate::sock::{TCP_CLOSE, TCP_ESTABLISHED, TCP_LISTEN, TCP_SYN_RECV, TCP_SYN_SENT};
use crate::tallies;
use crate::task::Task;

/// Whether sockets have lives.
#[inline(always)]
pub fn wanted() -> bool {
    DEPTH.load() != depth::EVENTS
}

/// Whether a socket has a life.
#[inline(always)]
pub fn has(sk: u64) -> bool {
    wanted() && living(sk).is_some()
}

/// A socket's life.
#[inline(always)]
fn living(sk: u64) -> Option<&'static mut Life> {
    Place::of(sk).life()
}

/// Where a socket's life is, or may begin. It is looked up once for all that a change of state does
/// there.
#[derive(Clone, Copy)]
pub struct Place(Option<*mut Life>);

impl Place {
    #[inline(always)]
    pub fn of(sk: u64) -> Place {
        Place(LIVES.get_ptr_mut(sk))
    }

    /// The life there, unless it is over and its place at rest.
    #[inline(always)]
    fn life(self) -> Option<&'static mut Life> {
        // SAFETY: a value of the map, which stays there until the life is over.
        let life = unsafe { &mut *self.0? };
        (life.steps != 0).then_some(life)
    }
}

/// Adds a change of state to a life of which nothing more is to be told; false where there is none.
#[inline(always)]
pub fn counted(sk: u64, place: Place, newstate: u8) -> bool {
    if !tallies::wanted() {
        return false;
    }
    let Some(life) = place
        .life()
        .filter(|life| life.is_tallied != 0 && life.is_settled != 0)
    else {
        return false;
    };
    if newstate == TCP_CLOSE {
        tallies::count_steps(u64::from(life.steps) + 1);
        end(sk, life, true);
    } else {
        // More steps than a life can have are counted all the same.
        life.steps = life.steps.saturating_add(1);
    }
    true
}

/// Adds a change of state that is no CLOSE to its socket's life; false when there is none.
///
/// The kernel changes a socket's state under its lock, so no other change of it comes at the time.
#[inline(always)]
pub fn live(change: &SetState, place: Place, ends: impl FnOnce() -> Addrs6) -> bool {
    let Some(life) = life_of(change, place) else {
        return false;
    };
    let step = usize::from(life.steps);
    if step >= STEPS {
        return false;
    }
    life.entered_ns[step] = unsafe { bpf_ktime_get_ns() };
    life.states[step] = change.newstate;
    life.flags[step] = change.flags;
    if step == 0 {
        life.born_from = change.oldstate;
        life.cpu = unsafe { bpf_get_smp_processor_id() } as u16;
        life.born = *change;
        life.ends = ends();
        if change.sections & section::TASK != 0 {
            life.task = Task::current().told();
        }
    } else if change.newstate == TCP_ESTABLISHED {
        let sections = life.born.sections;
        life.born = *change;
        life.born.sections = sections;
        life.ends = ends();
    }
    // Last: an accept() on another CPU may be looking.
    life.steps = step as u8 + 1;
    true
}

/// The life that a change of state belongs to, or begins.
#[inline(always)]
fn life_of(change: &SetState, place: Place) -> Option<&'static mut Life> {
    match (change.oldstate, change.newstate) {
        (TCP_CLOSE, TCP_SYN_SENT) | (TCP_LISTEN, TCP_SYN_RECV) => {
            if let Some(old) = place.life() {
                // What lived here is gone.
                over(change.sk, old, unsafe { bpf_ktime_get_ns() }, false);
                begin(change.sk, Place::of(change.sk))
            } else {
                begin(change.sk, place)
            }
        }
        // The filter may not have passed its birth, where the kernel had not set the peer yet.
        (TCP_SYN_RECV, TCP_ESTABLISHED) => place.life().or_else(|| begin(change.sk, place)),
        _ => place.life(),
    }
}

/// Where nothing lives yet.
#[inline(always)]
fn begin(sk: u64, place: Place) -> Option<&'static mut Life> {
    if let Place(Some(life)) = place {
        // SAFETY: a value of the map, which nobody else looks at while it is at rest.
        let life = unsafe { &mut *life };
        rest::LIVES.wakes(life.born.sk);
        // What else is left of its last one counts only where these say so, or `steps`.
        life.accepted_ns = 0;
        life.is_closed = 0;
        life.is_tallied = 0;
        life.is_settled = 0;
        return Some(life);
    }
    LIVES.insert(sk, UNBORN.get(0)?, 0).ok()?;
    // SAFETY: a value of the map, which stays there until the life is over.
    LIVES.get_ptr_mut(sk).map(|life| unsafe { &mut *life })
}

/// Takes a life that is over from its place; false when another CPU has done so. `alone`: none can.
#[inline(always)]
fn end(sk: u64, life: &mut Life, alone: bool) -> bool {
    // Not `sk`: verifiers let nobody multiply an address.
    if alone && rest::LIVES.has_room(life.born.sk) {
        life.steps = 0;
        return true;
    }
    LIVES.remove(sk).is_ok()
}

/// Notes a socket's change to CLOSE; false when it has no life.
#[inline(always)]
pub fn close(change: &SetState, place: Place, ends: Addrs6, stats: Stats) -> bool {
    let Some(life) = place.life() else {
        return false;
    };
    let is_a_servers = life.born_from == TCP_LISTEN;
    if !is_a_servers && tallies::wanted() && tallies::closed(life) {
        tallies::count_steps(u64::from(life.steps) + 1);
        end(change.sk, life, true);
        return true;
    }
    let closed = &mut life.closed;
    let now_ns = unsafe { bpf_ktime_get_ns() };
    closed.mono_ns = now_ns;
    closed.change = *change;
    closed.ends = ends;
    closed.stats = stats;
    if change.sections & section::TASK != 0 {
        closed.task = Task::current().told();
    }
    compiler_fence(Ordering::SeqCst);
    life.is_closed = 1;
    fence(life);
    // SAFETY: members of the life, which accept() may be setting on another CPU.
    let (accepted_ns, is_settled) = unsafe {
        (
            (&raw const life.accepted_ns).read_volatile(),
            (&raw const life.is_settled).read_volatile() != 0,
        )
    };
    let may_be_queued = is_a_servers
        && accepted_ns == 0
        && change.flags & (state_flag::HELD | state_flag::ORPHANED) == 0;
    if !may_be_queued {
        over(change.sk, life, now_ns, !is_a_servers || is_settled);
    }
    true
}

/// Adds the accept() that returned it to a socket's life; false when it has none.
#[inline(always)]
pub fn accepted(accept: &Accept, listener: [u8; 16]) -> bool {
    // It stays in the map: a socket that no process has yet is left there when it closes, until
    // this. The softirq that may be changing it on another CPU leaves these members alone.
    let Some(life) = living(accept.sk) else {
        return false;
    };
    let now_ns = unsafe { bpf_ktime_get_ns() };
    life.accept = *accept;
    life.listener = listener;
    life.acceptor = Task::current().told();
    if tallies::wanted() {
        tallies::accepted(life, accept.called_ns, now_ns);
    }
    compiler_fence(Ordering::SeqCst);
    life.accepted_ns = now_ns;
    fence(life);
    // SAFETY: as above.
    if unsafe { (&raw const life.is_closed).read_volatile() } != 0 {
        over(accept.sk, life, now_ns, false);
    } else {
        // After it nothing of the life is touched here. SAFETY: as above.
        unsafe { (&raw mut life.is_settled).write_volatile(1) };
    }
    true
}

/// What stands before it is visible to other CPUs before what stands after it is read.
#[inline(always)]
fn fence(life: &mut Life) {
    compiler_fence(Ordering::SeqCst);
    // An atomic addition: on x86-64 nothing passes it.
    // SAFETY: a member of a value of the map.
    unsafe { maps::increment(&raw mut life.fence) };
    compiler_fence(Ordering::SeqCst);
}

/// Ends a life and tells of it, unless another CPU does so or it is counted. `now_ns` is when what
/// ended it came; `alone` as in [`end`].
#[inline(never)]
fn over(sk: u64, life: &mut Life, now_ns: u64, alone: bool) {
    #[repr(C)]
    struct Record {
        header: Header,
        life: Life,
    }

    let steps = u64::from(life.steps) + u64::from(life.is_closed);
    if life.is_tallied != 0 {
        if end(sk, life, alone) {
            tallies::count_steps(steps);
        }
        return;
    }
    let is_accepted = life.accepted_ns != 0;
    let Some(mut slot) = EVENTS.reserve::<Record>(0) else {
        if end(sk, life, alone) {
            maps::count_all_lost(hook::SET_STATE, steps);
            if is_accepted {
                maps::count_all_lost(hook::ACCEPT, 1);
            }
        }
        return;
    };
    let record = slot.as_mut_ptr();
    // SAFETY: the reserved slot, big enough and aligned to eight bytes.
    unsafe {
        (&raw mut (*record).header).write(header(kind::LIFE, now_ns));
        (&raw mut (*record).life).write(*life);
    }
    if end(sk, life, alone) {
        slot.submit(wakeup(now_ns));
    } else {
        slot.discard(wakeup(now_ns));
    }
}
