//! The BPF programs that a process has loaded, and whether the kernel still has them.

use std::fs;

/// Ids of loaded programs. The kernel reuses an id only after 2^31 others.
#[derive(Clone, Debug)]
pub struct Programs {
    ids: Vec<u32>,
}

impl Programs {
    /// Finds the programs of a tracer that has attached them.
    pub fn of(pid: u32) -> Programs {
        let programs = Programs::so_far(pid);
        assert!(!programs.ids.is_empty(), "a tracer has programs");
        programs
    }

    /// Finds the programs of which a process holds a descriptor, perhaps none.
    pub fn so_far(pid: u32) -> Programs {
        let folder = format!("/proc/{pid}/fdinfo");
        // A process that is ending has no folder any more.
        let mut ids: Vec<u32> = fs::read_dir(folder)
            .into_iter()
            .flatten()
            .filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok())
            .filter_map(|info| {
                let line = info
                    .lines()
                    .find_map(|line| line.strip_prefix("prog_id:"))?;
                line.trim().parse().ok()
            })
            .collect();
        ids.sort();
        ids.dedup();
        Programs { ids }
    }

    /// Number of programs.
    #[allow(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Waits until the kernel has freed all of them. It frees a program only when nothing attaches
    /// or holds it.
    pub fn wait_until_gone(&self) {
        crate::eventually("the programs to leave the kernel", || {
            self.ids.iter().all(|&id| !is_loaded(id)).then_some(())
        });
    }
}

/// Asks the kernel for a descriptor of the program (`BPF_PROG_GET_FD_BY_ID`).
fn is_loaded(id: u32) -> bool {
    const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
    // The prefix of `union bpf_attr` that the command reads: prog_id, next_id, open_flags.
    let attr = [id, 0, 0];
    // SAFETY: the kernel reads `attr`, which outlives the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_GET_FD_BY_ID,
            &attr,
            std::mem::size_of_val(&attr),
        )
    };
    if fd >= 0 {
        // SAFETY: the descriptor is ours and nobody else knows it.
        unsafe { libc::close(fd as libc::c_int) };
    }
    fd >= 0
}
