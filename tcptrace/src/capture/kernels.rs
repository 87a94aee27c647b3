//! Differences between kernel versions that concern tcptrace.
//!
//! They are in one table, because scattered notes become outdated. Most rows need no decision in
//! code: an unsupported program does not load, and a missing structure is not in BTF, and both are
//! tried (`hooks.rs`, `btf.rs`). The rows with names are decided by version, because nothing else
//! shows the difference. `tcptrace doctor` prints what the running kernel lacks.

use aya::util::KernelVersion;

/// A feature of newer kernels.
pub struct Change {
    /// The first version with the feature: major, minor.
    pub since: (u8, u8),
    pub what: &'static str,
    /// Link to the change.
    pub source: &'static str,
    /// The behaviour on older kernels.
    pub before: &'static str,
}

/// Decides whether the eBPF program `state_btf` calls `bpf_get_socket_cookie`.
pub const SOCKET_COOKIE: Change = Change {
    since: (5, 12),
    what: "bpf_get_socket_cookie() in tracing programs",
    source: "https://git.kernel.org/torvalds/c/c5dbb89fc2ac",
    before: "a cookie is shown only once someone else has asked for it, as `ss -e` does",
};

/// Decides whether the listener of an accept() and system calls are looked up in the task's
/// registers.
pub const TASK_REGISTERS: Change = Change {
    since: (5, 15),
    what: "bpf_task_pt_regs()",
    source: "https://git.kernel.org/torvalds/c/dd6e10fbd9fb",
    before: "by fentry and kprobe, the listener of an accept() that was blocked when tracing began \
     is found by its address only; --why does not know the system calls of threads",
};

/// Decides whether a `recursion_misses` of 0 is a count. Older kernels show 0 for kprobes and
/// classic tracepoints, because they do not count the skipped program runs.
pub const KPROBE_MISSES: Change = Change {
    since: (6, 7),
    what: "recursion_misses of kprobes and classic tracepoints",
    source: "https://git.kernel.org/torvalds/c/dd8657894c11",
    before: "recursion_misses is null for these: their runs are skipped without a count",
};

/// All rows, by version.
pub const CHANGES: &[Change] = &[
    Change {
        since: (5, 5),
        what: "BTF tracepoints and BTF trampolines (fentry, fexit)",
        source: "https://git.kernel.org/torvalds/c/fec56f5890d9",
        before: "raw tracepoints and kprobes",
    },
    Change {
        since: (5, 8),
        what: "the BPF ring buffer",
        source: "https://git.kernel.org/torvalds/c/457f44363a88",
        before: "refuses to trace",
    },
    Change {
        since: (5, 11),
        what: "eBPF maps are charged to the memory control group",
        source: "https://git.kernel.org/torvalds/c/3ac1f01b43b6",
        before: "RLIMIT_MEMLOCK is raised, which takes CAP_SYS_RESOURCE",
    },
    SOCKET_COOKIE,
    Change {
        since: (5, 12),
        what: "recursion_misses, the count of the runs that the kernel has skipped",
        source: "https://git.kernel.org/torvalds/c/9ed9e9ba2337",
        before: "recursion_misses is null",
    },
    Change {
        // Also in older stable kernels. `struct bpf_tramp_image` in BTF decides.
        since: (5, 12),
        what: "fexit is safe at a function that sleeps",
        source: "https://git.kernel.org/torvalds/c/e21aa341785c",
        before: "no fentry at inet_csk_accept",
    },
    TASK_REGISTERS,
    Change {
        since: (5, 15),
        what: "a socket's cgroup beside its class of net_cls and net_prio",
        source: "https://git.kernel.org/torvalds/c/8520e224f547",
        before: "the cgroup is null once net_cls or net_prio is in use",
    },
    Change {
        since: (5, 15),
        what: "links for kprobes and classic tracepoints",
        source: "https://git.kernel.org/torvalds/c/b89fbfbb854c",
        before: "aya attaches them by PERF_EVENT_IOC_SET_BPF, to the same effect",
    },
    Change {
        since: (5, 16),
        what: "the verifier's count of instructions",
        source: "https://git.kernel.org/torvalds/c/aba64c7da983",
        before: "doctor leaves it out",
    },
    Change {
        since: (5, 17),
        what: "programs may load an argument that is a pointer to an integer",
        source: "https://git.kernel.org/torvalds/c/bb6728d75611",
        before: "no difference: fentry at inet_csk_accept reads `int *err` through a helper",
    },
    Change {
        since: (5, 17),
        what: "bpf_get_func_ret()",
        source: "https://git.kernel.org/torvalds/c/f92c1e183604",
        before: "no difference: fexit takes the result from its place behind the arguments",
    },
    Change {
        since: (5, 18),
        what: "sched_switch passes the state of the thread that leaves its CPU",
        source: "https://git.kernel.org/torvalds/c/9c2136be0878",
        before: "no difference: BTF shows it, and --why reads the state from the thread",
    },
    Change {
        // Also in older stable kernels, so the version does not decide.
        since: (6, 1),
        what: "a tracepoint's program is skipped where it would run on top of itself",
        source: "https://git.kernel.org/torvalds/c/05b24ff9b2cf",
        before: "no difference: the state hook's backup finds nothing to do",
    },
    Change {
        since: (6, 1),
        what: "cgroup.ancestors instead of ancestor_ids",
        source: "https://git.kernel.org/torvalds/c/7f203bc89eb6",
        before: "no difference: BTF shows which one exists",
    },
    KPROBE_MISSES,
    Change {
        since: (6, 10),
        what: "inet_csk_accept() has two parameters instead of four",
        source: "https://git.kernel.org/torvalds/c/92ef0fd55ac8",
        before: "no difference: BTF shows the number, and there are programs for each",
    },
    Change {
        since: (6, 15),
        what: "LISTEN to SYN_RECV names the peer",
        source: "https://elixir.bootlin.com/linux/v6.15/source/net/ipv4/inet_connection_sock.c",
        before: "the peer is null there, and known from SYN_RECV to ESTABLISHED on",
    },
];

impl Change {
    /// Returns true if a kernel has the feature, by its version. An unknown version has none.
    pub fn is_in(&self, kernel: Option<KernelVersion>) -> bool {
        let (major, minor) = self.since;
        kernel >= Some(KernelVersion::new(major, minor, 0))
    }
}

/// Returns the features that a kernel lacks.
pub fn lacking(kernel: Option<KernelVersion>) -> impl Iterator<Item = &'static Change> {
    CHANGES.iter().filter(move |change| !change.is_in(kernel))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linux(major: u8, minor: u8) -> Option<KernelVersion> {
        Some(KernelVersion::new(major, minor, 7))
    }

    #[test]
    fn the_table_is_sorted_by_version_and_has_sources() {
        assert!(CHANGES.is_sorted_by_key(|change| change.since));
        for change in CHANGES {
            assert!(change.source.starts_with("https://"), "{}", change.what);
        }
    }

    #[test]
    fn a_kernel_has_the_changes_up_to_its_version() {
        assert!(!SOCKET_COOKIE.is_in(linux(5, 11)));
        assert!(SOCKET_COOKIE.is_in(linux(5, 12)));
        assert!(!KPROBE_MISSES.is_in(linux(5, 19)));
        assert!(KPROBE_MISSES.is_in(linux(6, 7)));
        assert!(!TASK_REGISTERS.is_in(None));
        assert_eq!(lacking(linux(6, 12)).count(), 1);
        assert_eq!(lacking(linux(6, 18)).count(), 0);
    }
}
