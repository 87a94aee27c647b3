//! `struct cgroup`, of the one hierarchy that is version 2.

use crate::globals::{
    CGROUP_ANCESTOR_IDS, CGROUP_ANCESTORS, CGROUP_KN, CGROUP_LEVEL, KERNFS_NODE_ID,
};
use crate::kernel::memory::{Memory, Probed};

/// What Linux 5.14 and before keep in `sk_cgrp_data.val`: a pointer, unless one of the two lowest
/// bits says that it is a class of net_cls, or a pointer that is not counted as a reference.
const NO_POINTER: u64 = 0b11;

/// The cgroup of a `sk_cgrp_data.val`; null for one that names no cgroup.
#[inline(always)]
pub fn untagged(val: u64) -> *const u8 {
    match val & NO_POINTER {
        0 => val as *const u8,
        _ => core::ptr::null(),
    }
}

/// Its id, which is the inode of its directory; 0 when there is none.
#[inline(always)]
pub fn id<M: Memory>(cgroup: *const u8) -> u64 {
    if cgroup.is_null() || KERNFS_NODE_ID.load() == 0 {
        return 0;
    }
    // SAFETY: a struct cgroup that a socket refers to, and its kernfs node.
    unsafe { M::read(M::read(cgroup, &CGROUP_KN), &KERNFS_NODE_ID) }
}

/// How many levels it is below the root.
#[inline(always)]
pub fn level(cgroup: *const u8) -> u32 {
    // SAFETY: a struct cgroup; the helper checks addresses.
    unsafe { Probed::read(cgroup, &CGROUP_LEVEL) }
}

/// The id of the cgroup at a level above this one, or of itself at its own level.
#[inline(always)]
pub fn ancestor_id(cgroup: *const u8, level: u32) -> u64 {
    let index = level as usize * size_of::<u64>();
    // SAFETY: both arrays have an element for each level up to the cgroup's own.
    unsafe {
        if CGROUP_ANCESTORS.load() == 0 {
            let ids = cgroup.wrapping_add(CGROUP_ANCESTOR_IDS.load() as usize);
            return Probed::read_at(ids.wrapping_add(index));
        }
        let ancestors = cgroup.wrapping_add(CGROUP_ANCESTORS.load() as usize);
        id::<Probed>(Probed::read_at(ancestors.wrapping_add(index)))
    }
}
