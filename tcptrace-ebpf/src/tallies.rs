//! `--depth histogram`: counts the connections that go the plain way, where they are over.
//!
//! Only what needs no judgement is counted: a connection that became ESTABLISHED and that an
//! accept() returned later, the time of whose call is known; and a client's that ended without an
//! error. All others are lives, and the loader judges them as at the other depths.

use aya_ebpf::bindings::BPF_NOEXIST;
use tcptrace_ebpf::abi::{Distribution, Life, Tally, TallyKey, bucket, depth, hook};

use crate::maps::{self, NO_TALLY, TALLIES, count};
use crate::settings::DEPTH;
use crate::sock::{TCP_CLOSE, TCP_ESTABLISHED, TCP_LISTEN};

#[inline(always)]
pub fn wanted() -> bool {
    DEPTH.load() == depth::HISTOGRAM
}

/// An accept() that was called at `called_ns` (0: not known) has returned a socket at `now_ns`.
#[inline(always)]
pub fn accepted(life: &mut Life, called_ns: u64, now_ns: u64) {
    let established_ns = life.entered_ns[1];
    let is_plain = life.born_from == TCP_LISTEN
        && life.steps >= 2
        && life.states[1] == TCP_ESTABLISHED
        && established_ns <= now_ns
        && called_ns != 0;
    if !is_plain {
        return;
    }
    let key = TallyKey {
        netns: life.born.netns,
        port: life.born.lport,
        client: 0,
    };
    let Some(tally) = tally(&key) else {
        return;
    };
    increment(if established_ns <= called_ns {
        &mut tally.queued
    } else {
        &mut tally.awaited
    });
    // In eighths of a microsecond. Whole milliseconds are from TCP timestamps, see the loader's
    // `estimate_syn`.
    let srtt_us = life.born.srtt_us;
    if srtt_us % 8000 != 0 {
        add(&mut tally.handshake, u64::from(srtt_us) * 125);
    }
    add(&mut tally.accept_queue, now_ns - established_ns);
    life.is_tallied = 1;
    count(hook::ACCEPT, |counters| counters.tallied += 1);
}

/// A client's socket has entered CLOSE; whether its connection was established, and is counted.
#[inline(always)]
pub fn closed(life: &Life) -> bool {
    let is_plain =
        life.born_from == TCP_CLOSE && life.steps >= 2 && life.states[1] == TCP_ESTABLISHED;
    if !is_plain {
        return false;
    }
    let key = TallyKey {
        netns: life.born.netns,
        port: life.born.rport,
        client: 1,
    };
    let Some(tally) = tally(&key) else {
        return false;
    };
    increment(&mut tally.queued);
    let syn_sent_ns = life.entered_ns[1].wrapping_sub(life.entered_ns[0]);
    add(&mut tally.handshake, syn_sent_ns);
    true
}

/// So many changes of state need not be told.
#[inline(always)]
pub fn count_steps(steps: u64) {
    count(hook::SET_STATE, |counters| counters.tallied += steps);
}

#[inline(always)]
fn tally(key: &TallyKey) -> Option<&'static mut Tally> {
    let tally = match TALLIES.get_ptr_mut(key) {
        Some(tally) => tally,
        None => {
            // Not over one that a program on top of this one has begun meanwhile.
            let _ = TALLIES.insert(key, NO_TALLY.get(0)?, BPF_NOEXIST.into());
            TALLIES.get_ptr_mut(key)?
        }
    };
    // SAFETY: a value of the map. It is this CPU's, but a program can run on top of another.
    Some(unsafe { &mut *tally })
}

#[inline(always)]
fn increment(total: &mut u64) {
    // SAFETY: part of a value of the map.
    unsafe { maps::increment(total) };
}

#[inline(always)]
fn add(distribution: &mut Distribution, ns: u64) {
    // The compiler knows that the index is good, and the verifier does not: so it must be checked.
    let bucket = core::hint::black_box(bucket(ns));
    if let Some(count) = distribution.counts.get_mut(bucket) {
        increment(count);
    }
    distribution.max_ns = distribution.max_ns.max(ns);
}
