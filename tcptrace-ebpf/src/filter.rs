//! The filter: decides in the kernel which events get a record, before anything is written.

use aya_ebpf::maps::lpm_trie::Key;
use tcptrace_ebpf::abi::{AddressKey, addresses, filter, ports};

use crate::globals::{CGROUP_LEVELS, FILTER};
use crate::kernel::cgroup;
use crate::kernel::memory::Memory;
use crate::kernel::sock::Sock;
use crate::kernel::tuple::Tuple;
use crate::maps::{self, ADDRESSES, CGROUPS, NETNS, PORTS, UIDS};

/// Counts an event of a hook, and returns whether it passes the filter.
///
/// A port that the kernel has not set yet is 0, which no filter can name. So a port filter leaves
/// out such an event. An unset address matches only the network of all addresses.
///
/// `owner` is the full socket whose user and cgroup count: the socket, or the listener of a
/// half-open connection. If it is null, these two conditions are left to the loader, which knows
/// whether it traces the connection.
#[inline(always)]
pub fn admit<M: Memory>(
    hook: u32,
    tuple: &Tuple,
    netns: impl FnOnce() -> u32,
    owner: Sock<M>,
) -> bool {
    let Some(counters) = maps::counters(hook) else {
        return false;
    };
    let is_admitted = passes(tuple, netns, owner);
    if is_admitted {
        counters.admitted += 1;
    } else {
        counters.filtered += 1;
    }
    is_admitted
}

/// Returns whether an event passes the filter, without counting it. For iterators, which the kernel
/// may run twice for one socket.
#[inline(always)]
pub fn passes<M: Memory>(tuple: &Tuple, netns: impl FnOnce() -> u32, owner: Sock<M>) -> bool {
    let wanted = FILTER.load();
    if wanted == 0 {
        return true;
    }
    let family = if tuple.addrs.is_v4 {
        filter::V4
    } else {
        filter::V6
    };
    let families = wanted & (filter::V4 | filter::V6);
    (families == 0 || families & family != 0)
        && (wanted & filter::PORT == 0
            || in_set(ports::EITHER, tuple.lport)
            || in_set(ports::EITHER, tuple.rport))
        && (wanted & filter::LOCAL_PORT == 0 || in_set(ports::LOCAL, tuple.lport))
        && (wanted & filter::REMOTE_PORT == 0 || in_set(ports::REMOTE, tuple.rport))
        && (wanted & (filter::ADDRESS | filter::LOCAL_ADDRESS | filter::REMOTE_ADDRESS) == 0
            || addresses_pass(wanted, tuple))
        && (wanted & filter::NETNS == 0 || NETNS.get_ptr(netns()).is_some())
        && (wanted & filter::UID == 0 || owner.is_null() || UIDS.get_ptr(owner.uid()).is_some())
        && (wanted & filter::CGROUP == 0 || owner.is_null() || is_wanted(owner.cgroup()))
}

#[inline(always)]
fn in_set(set: u32, port: u16) -> bool {
    let word = PORTS.get(set + u32::from(port >> 6)).copied().unwrap_or(0);
    word >> (port & 63) & 1 != 0
}

/// A separate subprogram, because inlining it in every program would fill most of the object.
#[inline(never)]
fn addresses_pass(wanted: u32, tuple: &Tuple) -> bool {
    let own = tuple.addrs.as_v6().laddr;
    let peer = tuple.addrs.as_v6().raddr;
    let is_v4 = tuple.addrs.is_v4;
    (wanted & filter::ADDRESS == 0
        || is_in(addresses::EITHER, own, is_v4)
        || is_in(addresses::EITHER, peer, is_v4))
        && (wanted & filter::LOCAL_ADDRESS == 0 || is_in(addresses::LOCAL, own, is_v4))
        && (wanted & filter::REMOTE_ADDRESS == 0 || is_in(addresses::REMOTE, peer, is_v4))
}

/// Returns whether an address is in a network of the set. The family is compared because an
/// IPv4-mapped address also lies in the IPv6 network ::/0.
#[inline(always)]
fn is_in(set: u32, addr: [u8; 16], is_v4: bool) -> bool {
    let key = Key::new(addresses::SET_BITS + 128, AddressKey { set, addr });
    let family = if is_v4 { 4 } else { 6 };
    ADDRESSES.get(&key).is_some_and(|it| *it == family)
}

/// Returns whether a cgroup or one of its ancestors is in the map `CGROUPS`.
///
/// A separate subprogram, because inlining its loop in every program would fill most of the object.
#[inline(never)]
fn is_wanted(cgroup: *const u8) -> bool {
    let own_level = cgroup::level(cgroup);
    let levels = CGROUP_LEVELS.load();
    for level in 0..u32::BITS {
        // The verifier knows this global's value, and walks only the levels whose bit is set.
        if levels >> level & 1 == 0 {
            continue;
        }
        if level <= own_level
            && CGROUPS
                .get_ptr(cgroup::ancestor_id(cgroup, level))
                .is_some()
        {
            return true;
        }
    }
    false
}
