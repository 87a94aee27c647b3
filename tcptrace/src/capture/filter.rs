//! Transfer of the filter to the kernel programs: bits for the conditions in use, and maps with
//! their values.

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap};
use aya::{Ebpf, Pod};
use tcptrace_ebpf::abi::{self, addresses};
use zerocopy::IntoBytes;

use super::error::{CaptureError, no_map};
use crate::filter::{Family, Filter, PortRange};

/// Returns the value of the `FILTER` global.
pub fn bits(filter: &Filter) -> u32 {
    let when = |condition: bool, bit: u32| if condition { bit } else { 0 };
    when(!filter.ports.is_empty(), abi::filter::PORT)
        | when(!filter.local_ports.is_empty(), abi::filter::LOCAL_PORT)
        | when(!filter.remote_ports.is_empty(), abi::filter::REMOTE_PORT)
        | when(!filter.addresses.is_empty(), abi::filter::ADDRESS)
        | when(
            !filter.local_addresses.is_empty(),
            abi::filter::LOCAL_ADDRESS,
        )
        | when(
            !filter.remote_addresses.is_empty(),
            abi::filter::REMOTE_ADDRESS,
        )
        | when(filter.family == Some(Family::V4), abi::filter::V4)
        | when(filter.family == Some(Family::V6), abi::filter::V6)
        | when(!filter.netns.is_empty(), abi::filter::NETNS)
        | when(!filter.users.is_empty(), abi::filter::UID)
        | when(!filter.cgroups.is_empty(), abi::filter::CGROUP)
}

/// Returns the value of the `CGROUP_LEVELS` global. A cgroup of unknown level may be at any level.
pub fn cgroup_levels(filter: &Filter) -> u32 {
    let levels = filter.cgroups.iter().map(|cgroup| cgroup.level);
    levels.fold(0, |all, level| {
        all | level.map_or(u32::MAX, |level| 1 << level)
    })
}

/// Room in the map of cgroups for containers that start during the trace.
const LATER_CONTAINERS: usize = 4096;

/// Returns the sizes of the filter's maps. The kernel does not allow a map without entries.
pub fn sizes(filter: &Filter) -> [(&'static str, u32); 4] {
    let later = match filter.follows_containers() {
        true => LATER_CONTAINERS,
        false => 0,
    };
    let networks = networks(filter).map(|(_, networks)| networks.len()).sum();
    [
        ("ADDRESSES", networks),
        ("NETNS", filter.netns.len()),
        ("UIDS", filter.users.len()),
        ("CGROUPS", filter.cgroups.len() + later),
    ]
    .map(|(map, entries): (_, usize)| (map, entries.max(1) as u32))
}

/// Checks by the offsets found in BTF that sockets have a cgroup on this kernel, and that the
/// cgroup's level and id can be read.
pub fn can_tell_cgroups(offsets: &[(&str, u32)]) -> Result<(), CaptureError> {
    let has = |name| offsets.iter().any(|it| it.0 == name && it.1 != 0);
    let all_found = (has("SK_CGROUP") || has("SK_CGROUP_OR_CLASS"))
        && (has("CGROUP_ANCESTORS") || has("CGROUP_ANCESTOR_IDS"))
        && ["CGROUP_KN", "CGROUP_LEVEL", "KERNFS_NODE_ID"].map(has) == [true; 3];
    match all_found {
        true => Ok(()),
        false => Err(CaptureError::Unsupported(
            "its sockets do not store their cgroup; leave out --cgroup, --container and --pod, or boot a kernel built with \
             CONFIG_SOCK_CGROUP_DATA=y, as the distributions' are"
                .into(),
        )),
    }
}

/// Writes the filter's values into the maps.
pub fn fill(ebpf: &mut Ebpf, filter: &Filter) -> anyhow::Result<()> {
    fill_ports(ebpf, filter)?;
    fill_addresses(ebpf, filter)?;
    let netns = filter.netns.iter().map(|netns| netns.inode);
    fill_set(ebpf, "NETNS", netns)?;
    fill_set(ebpf, "UIDS", filter.users.iter().map(|user| user.uid))?;
    let cgroups = filter.cgroups.iter().map(|cgroup| cgroup.id);
    fill_set(ebpf, "CGROUPS", cgroups)
}

/// Adds a cgroup to the filter of running programs.
///
/// # Errors
/// If the map is full.
pub fn add_cgroup(ebpf: &mut Ebpf, id: u64) -> anyhow::Result<()> {
    fill_set(ebpf, "CGROUPS", [id].into_iter())
}

fn fill_ports(ebpf: &mut Ebpf, filter: &Filter) -> anyhow::Result<()> {
    let mut words = vec![0u64; abi::ports::WORDS as usize];
    for (set, ranges) in [
        (abi::ports::EITHER, &filter.ports),
        (abi::ports::LOCAL, &filter.local_ports),
        (abi::ports::REMOTE, &filter.remote_ports),
    ] {
        for &PortRange { first, last } in ranges {
            for port in first..=last {
                words[set as usize + usize::from(port >> 6)] |= 1 << (port & 63);
            }
        }
    }
    let mut map: Array<_, u64> = Array::try_from(ebpf.map_mut("PORTS").ok_or_else(no_map)?)?;
    for (index, word) in words.into_iter().enumerate().filter(|&(_, word)| word != 0) {
        map.set(index as u32, word, 0)?;
    }
    Ok(())
}

/// Returns the filter's networks in three sets, each with its number in the map's keys: for either
/// address, the local address and the remote address.
fn networks(filter: &Filter) -> impl Iterator<Item = (u32, &[crate::filter::Network])> {
    [
        (addresses::EITHER, &filter.addresses[..]),
        (addresses::LOCAL, &filter.local_addresses),
        (addresses::REMOTE, &filter.remote_addresses),
    ]
    .into_iter()
}

fn fill_addresses(ebpf: &mut Ebpf, filter: &Filter) -> anyhow::Result<()> {
    let map = ebpf.map_mut("ADDRESSES").ok_or_else(no_map)?;
    let mut map: LpmTrie<_, [u8; size_of::<abi::AddressKey>()], u32> = LpmTrie::try_from(map)?;
    for (set, networks) in networks(filter) {
        for network in networks {
            let (addr, bits) = network.as_v6();
            let mut key = [0; size_of::<abi::AddressKey>()];
            key.copy_from_slice(abi::AddressKey { set, addr }.as_bytes());
            let family = if network.addr.is_ipv4() { 4u32 } else { 6 };
            let bits = addresses::SET_BITS + u32::from(bits);
            map.insert(&Key::new(bits, key), family, 0)?;
        }
    }
    Ok(())
}

fn fill_set<K: Pod>(
    ebpf: &mut Ebpf,
    map: &str,
    values: impl Iterator<Item = K>,
) -> anyhow::Result<()> {
    let map = ebpf.map_mut(map).ok_or_else(no_map)?;
    let mut map: HashMap<_, K, u32> = HashMap::try_from(map)?;
    for value in values {
        map.insert(value, 1, 0)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_filters_are_refused_if_an_offset_is_missing() {
        let all = [
            ("SK_CGROUP", 600),
            ("CGROUP_KN", 256),
            ("CGROUP_LEVEL", 216),
            ("CGROUP_ANCESTORS", 2224),
            ("KERNFS_NODE_ID", 96),
        ];
        assert!(can_tell_cgroups(&all).is_ok());
        for missing in 0..all.len() {
            let mut offsets = all;
            offsets[missing].1 = 0;
            assert!(can_tell_cgroups(&offsets).is_err(), "{}", all[missing].0);
        }
    }

    #[test]
    fn map_sizes_equal_the_number_of_values() {
        let network: crate::filter::Network = "10.0.0.0/8".parse().unwrap();
        let filter = Filter {
            addresses: vec![network],
            remote_addresses: vec![network],
            ..Filter::default()
        };
        assert_eq!(
            sizes(&filter),
            [("ADDRESSES", 2), ("NETNS", 1), ("UIDS", 1), ("CGROUPS", 1)]
        );
    }
}
