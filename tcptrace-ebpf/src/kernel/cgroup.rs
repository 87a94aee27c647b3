//! Reader of `struct cgroup`, of the version 2 hierarchy.

use crate::globals::{
    CGROUP_ANCESTOR_IDS, CGROUP_ANCESTORS, CGROUP_KN, CGROUP_LEVEL, KERNFS_NODE_ID,
};
use crate::kernel::memory::{Memory, Probed};

/// Tag bits of `sk_cgrp_data.val`, which Linux 5.14 and before use. If both are 0, the value is a
/// pointer to a cgroup. Otherwise it is a net_cls class, or a pointer without a counted reference.
const NO_POINTER: u64 = 0b11;

/// Returns the cgroup of a `sk_cgrp_data.val`, or null.
#[inline(always)]
pub fn untagged(val: u64) -> *const u8 {
    match val & NO_POINTER {
        0 => val as *const u8,
        _ => core::ptr::null(),
    }
}

/// Returns the id, which is the inode of the cgroup's directory; 0 for null.
#[inline(always)]
pub fn id<M: Memory>(cgroup: *const u8) -> u64 {
    if cgroup.is_null() || KERNFS_NODE_ID.load() == 0 {
        return 0;
    }
    // SAFETY: a struct cgroup that a socket refers to, and its kernfs node.
    unsafe { M::read(M::read(cgroup, &CGROUP_KN), &KERNFS_NODE_ID) }
}

/// Returns the number of levels below the root.
#[inline(always)]
pub fn level(cgroup: *const u8) -> u32 {
    // SAFETY: a struct cgroup; the helper checks addresses.
    unsafe { Probed::read(cgroup, &CGROUP_LEVEL) }
}

/// Returns the id of the ancestor at a level, or the cgroup's own id at its own level.
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
