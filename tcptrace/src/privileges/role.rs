//! Which thread needs which capability, and for what.

use rustix::thread::CapabilitySet;

/// The purpose of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Reads the ring buffer. It keeps only what a trial shows to be needed.
    Main,
    /// Looks up namespaces, cgroups and containers, see [`super::Lookups`].
    Lookups,
    /// Reads the names of the kernel's functions, then becomes [`Role::Symbols`].
    SymbolsBegin,
    /// Finds the functions of stacks, with `--why`.
    Symbols,
    /// Every other thread.
    Other,
}

/// A capability that a thread keeps while a trace runs.
pub struct Kept {
    pub capability: CapabilitySet,
    pub name: &'static str,
    pub purpose: &'static str,
}

/// The capabilities of each role, for `tcptrace doctor` and for [`Role::capabilities`].
pub const ROLES: &[(Role, &str, &[Kept])] = &[
    (
        Role::Lookups,
        "the thread that looks up namespaces and containers, until the end",
        &[
            Kept {
                capability: CapabilitySet::SYS_ADMIN,
                name: "CAP_SYS_ADMIN",
                purpose: "enter other network namespaces, to list their sockets",
            },
            Kept {
                capability: CapabilitySet::SYS_PTRACE,
                name: "CAP_SYS_PTRACE",
                purpose: "find the network namespaces of other processes",
            },
            Kept {
                capability: CapabilitySet::DAC_READ_SEARCH,
                name: "CAP_DAC_READ_SEARCH",
                purpose: "find a cgroup by its id, read the files that name containers",
            },
        ],
    ),
    (
        Role::Main,
        "the main thread, until the end, only as far as needed",
        &[
            Kept {
                capability: CapabilitySet::BPF,
                name: "CAP_BPF",
                purpose: "read the counters and sockets, only before Linux 5.19",
            },
            Kept {
                capability: CapabilitySet::KILL,
                name: "CAP_KILL",
                purpose: "end a COMMAND of another user",
            },
            Kept {
                capability: CapabilitySet::DAC_OVERRIDE,
                name: "CAP_DAC_OVERRIDE",
                purpose: "begin the files of --rotate and --keep in a folder of another user",
            },
            Kept {
                capability: CapabilitySet::CHOWN,
                name: "CAP_CHOWN",
                purpose: "give these files to the user who called sudo",
            },
            Kept {
                capability: CapabilitySet::SYS_NICE,
                name: "CAP_SYS_NICE",
                purpose: "end the lowest priority when events pile up, only without CAP_SYS_RESOURCE \
                          at the start",
            },
        ],
    ),
    (
        Role::Symbols,
        "the thread that names functions, only with --why, until the end",
        &[
            Kept {
                capability: CapabilitySet::SYS_PTRACE,
                name: "CAP_SYS_PTRACE",
                purpose: "read the mappings of other processes",
            },
            Kept {
                capability: CapabilitySet::DAC_READ_SEARCH,
                name: "CAP_DAC_READ_SEARCH",
                purpose: "read their programs and libraries",
            },
            Kept {
                capability: CapabilitySet::CHECKPOINT_RESTORE,
                name: "CAP_CHECKPOINT_RESTORE",
                purpose: "open mapped files that are deleted or in other mount namespaces",
            },
        ],
    ),
];

/// Returns what a process with these effective capabilities cannot find out.
pub fn unseen(effective: CapabilitySet) -> Vec<&'static str> {
    let has = |capability| effective.contains(capability);
    let enters = has(CapabilitySet::SYS_ADMIN) && has(CapabilitySet::SYS_PTRACE);
    let namespaces = (!enters).then_some(
        "what snapshots show in other network namespaces, such as sockets that are older than the \
         trace: they need CAP_SYS_ADMIN and CAP_SYS_PTRACE",
    );
    let containers = (!has(CapabilitySet::DAC_READ_SEARCH))
        .then_some("containers: finding a cgroup by its id needs CAP_DAC_READ_SEARCH");
    namespaces.into_iter().chain(containers).collect()
}

/// Like [`unseen`], for the functions in stacks.
pub fn unseen_in_stacks(effective: CapabilitySet) -> Option<&'static str> {
    let needed = CapabilitySet::SYS_PTRACE | CapabilitySet::DAC_READ_SEARCH;
    (!effective.contains(needed)).then_some(
        "names of user functions in the stacks of other users' processes: they need CAP_SYS_PTRACE \
         and CAP_DAC_READ_SEARCH",
    )
}

impl Role {
    /// Returns the capabilities that a thread of this role keeps.
    pub fn capabilities(self) -> CapabilitySet {
        if self == Role::SymbolsBegin {
            return Role::Symbols.capabilities() | CapabilitySet::SYSLOG;
        }
        let rows = ROLES.iter().filter(|(role, ..)| *role == self);
        rows.flat_map(|(_, _, kept)| kept.iter())
            .map(|kept| kept.capability)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_that_is_missing_is_named_with_what_it_would_show() {
        let all = CapabilitySet::all();
        assert_eq!(unseen(all), [""; 0]);
        assert_eq!(unseen_in_stacks(all), None);
        let unseen_without = |capability: CapabilitySet| unseen(all - capability).join(" ");
        for (capability, name) in [
            (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
            (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE"),
            (CapabilitySet::DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH"),
        ] {
            assert!(unseen_without(capability).contains(name), "{name}");
        }
        let stacks = unseen_in_stacks(CapabilitySet::BPF | CapabilitySet::PERFMON);
        assert!(stacks.unwrap().contains("CAP_SYS_PTRACE"));
    }
}
