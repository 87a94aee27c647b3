//! Reads from a probe's link how often the kernel missed the probe (`struct bpf_link_info`).
//!
//! A kprobe that is hit while another one is at work on that CPU is skipped before any program runs
//! (`kprobe_ftrace_handler` and `kprobe_int3_handler`, arch/x86/kernel/kprobes/), so the program's own
//! `recursion_misses` does not have it. The link's information does, since Linux 6.7
//! (`bpf_perf_link_fill_kprobe`, kernel/bpf/syscall.c).

use std::fs;
use std::os::fd::RawFd;

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// The start of `struct bpf_link_info`, of a link of a kprobe (include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct LinkInfo {
    kind: u32,
    id: u32,
    prog_id: u32,
    padding: u32,
    perf_kind: u32,
    perf_padding: u32,
    func_name: u64,
    name_len: u32,
    offset: u32,
    addr: u64,
    missed: u64,
    cookie: u64,
}

/// `BPF_LINK_TYPE_PERF_EVENT`
const PERF_EVENT: u32 = 7;

/// `BPF_PERF_EVENT_KPROBE`: the entry of a function. A return has a number of its own, and misses more: it
/// is left to the hook whether something makes up for that.
const KPROBE: u32 = 3;

/// The links of kprobes at entries that this process has: their programs' ids and their descriptors.
pub fn probes() -> Vec<(u32, RawFd)> {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten();
    let fds = entries.filter_map(|entry| {
        let path = entry.ok()?.path();
        // `anon_inode:bpf_link`, `bpf_link_prime`, kernel/bpf/syscall.c
        let is_link = fs::read_link(&path).ok()?.to_str()?.ends_with("bpf_link");
        is_link.then(|| path.file_name()?.to_str()?.parse().ok())?
    });
    fds.filter_map(|fd: RawFd| {
        let info = info(fd)?;
        let is_probe = (info.kind, info.perf_kind) == (PERF_EVENT, KPROBE);
        is_probe.then_some((info.prog_id, fd))
    })
    .collect()
}

/// How often the kernel missed the probe of this link.
pub fn missed(fd: RawFd) -> Option<u64> {
    Some(info(fd)?.missed)
}

/// `bpf(BPF_OBJ_GET_INFO_BY_FD)`
fn info(fd: RawFd) -> Option<LinkInfo> {
    const COMMAND: libc::c_int = 15;

    #[repr(C)]
    struct Attributes {
        fd: u32,
        len: u32,
        info: u64,
    }

    let mut info = LinkInfo::new_zeroed();
    let mut attributes = Attributes {
        fd: fd as u32,
        len: size_of::<LinkInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: the kernel reads the attributes, and writes no more than `len` bytes at `info`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            COMMAND,
            &raw mut attributes,
            size_of::<Attributes>(),
        )
    };
    (result == 0).then_some(info)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_of_missed_probes_is_where_the_kernel_writes_it() {
        assert_eq!(std::mem::offset_of!(LinkInfo, perf_kind), 16);
        assert_eq!(std::mem::offset_of!(LinkInfo, func_name), 24);
        assert_eq!(std::mem::offset_of!(LinkInfo, missed), 48);
    }

    #[test]
    fn what_is_no_link_has_no_count() {
        assert_eq!(missed(-1), None);
    }
}
