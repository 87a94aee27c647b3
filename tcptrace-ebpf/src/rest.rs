//! Entries that stay in their table when they are done with, until their key comes again.
//!
//! To insert and to delete costs several lookups, and keys come again: a thread calls accept() again,
//! and the kernel gives a new socket the memory of an old one. How many may stay is counted in
//! groups of keys, so that one key is always counted in the same place, and CPUs seldom meet there.

use aya_ebpf::Global;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use tcptrace_ebpf::abi::rest;

use crate::maps::{decrement, increment};
use crate::settings::{CALLS_AT_REST, LIVES_AT_REST};

/// How many entries of each group are at rest: first those of `CALLS`, then those of `LIVES`.
#[map]
static AT_REST: Array<u64> = Array::with_max_entries(2 * rest::GROUPS, 0);

/// A table whose entries may rest.
pub struct Table {
    first_group: u32,
    /// So many of each group may; the loader derives it from the size of the table.
    room: &'static Global<u32>,
}

pub const CALLS: Table = Table {
    first_group: 0,
    room: &CALLS_AT_REST,
};

pub const LIVES: Table = Table {
    first_group: rest::GROUPS,
    room: &LIVES_AT_REST,
};

impl Table {
    /// Whether the entry of this key, which is done with, may stay: it is counted then.
    #[inline(always)]
    pub fn has_room(&self, key: u64) -> bool {
        let Some(at_rest) = AT_REST.get_ptr_mut(self.group(key)) else {
            return false;
        };
        // SAFETY: an aligned u64 of the map. A few more, of CPUs that look at the same time, do no harm.
        unsafe {
            let has_room = at_rest.read_volatile() < u64::from(self.room.load());
            if has_room {
                increment(at_rest);
            }
            has_room
        }
    }

    /// An entry at rest is used again.
    #[inline(always)]
    pub fn wakes(&self, key: u64) {
        if let Some(at_rest) = AT_REST.get_ptr_mut(self.group(key)) {
            // SAFETY: as above.
            unsafe { decrement(at_rest) };
        }
    }

    /// Fibonacci hashing (Knuth, The Art of Computer Programming, volume 3, section 6.4): addresses
    /// and ids differ in their middle bits.
    #[inline(always)]
    fn group(&self, key: u64) -> u32 {
        let hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        self.first_group + (hash as u32 & (rest::GROUPS - 1))
    }
}
