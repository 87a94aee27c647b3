//! `struct cgroup`, of the one hierarchy that is version 2.

use crate::memory::Memory;
use crate::settings::{CGROUP_KN, KERNFS_NODE_ID};

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
