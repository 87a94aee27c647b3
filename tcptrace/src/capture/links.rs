//! Number of missed kprobe hits, read from a probe's link (`struct bpf_link_info`).
//!
//! A kprobe hit while another kprobe runs on the same CPU is skipped before any program runs
//! (`kprobe_ftrace_handler` and `kprobe_int3_handler`, arch/x86/kernel/kprobes/). The program's
//! `recursion_misses` does not count it. The link's information does, since Linux 6.7
//! (`bpf_perf_link_fill_kprobe`, kernel/bpf/syscall.c).

use std::fs;
use std::os::fd::RawFd;

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// The start of `struct bpf_link_info` for the link of a kprobe (include/uapi/linux/bpf.h).
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

/// `BPF_PERF_EVENT_KPROBE`: a kprobe at the entry of a function. Kretprobes have another number.
/// Their misses are not counted, because another program of the hook sees the calls that a
/// kretprobe misses.
const KPROBE: u32 = 3;

/// Returns the program id and the descriptor of each link that this process has to an entry kprobe.
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

/// Returns how often the kernel missed the probe of this link.
pub fn missed(fd: RawFd) -> Option<u64> {
    Some(info(fd)?.missed)
}

/// Calls `bpf(BPF_OBJ_GET_INFO_BY_FD)`.
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
    // SAFETY: the kernel reads the attributes and writes at most `len` bytes to `info`.
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
    fn link_info_has_the_layout_of_the_kernels_structure() {
        assert_eq!(std::mem::offset_of!(LinkInfo, perf_kind), 16);
        assert_eq!(std::mem::offset_of!(LinkInfo, func_name), 24);
        assert_eq!(std::mem::offset_of!(LinkInfo, missed), 48);
    }

    #[test]
    fn a_descriptor_that_is_no_link_has_no_count() {
        assert_eq!(missed(-1), None);
    }
}
