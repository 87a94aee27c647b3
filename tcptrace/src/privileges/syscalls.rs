//! The system calls that a running trace may make: a seccomp filter (seccomp(2)) for all threads.
//!
//! It holds what a trace uses after its start, and what the C library, the allocator and a panic may
//! use. Any other call fails with ENOSYS, as on a kernel without it, so that a library falls back to an
//! older call instead of the trace being killed. execve(), ptrace(), mount(), setuid(), the loading of
//! modules and of eBPF programs are among the others.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter_all_threads,
};

/// Calls that are allowed with any argument.
const ALLOWED: &[c_long] = &[
    // Memory.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // Threads, signals, the end.
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_membarrier,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    // Later threads give up privileges, too.
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_restrict_self,
    libc::SYS_prctl,
    // Files.
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fallocate,
    libc::SYS_fchown,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_ioctl,
    libc::SYS_lseek,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_statx,
    libc::SYS_unlinkat,
    libc::SYS_write,
    libc::SYS_writev,
    // Lookups: namespaces, and cgroups by their ids.
    libc::SYS_open_by_handle_at,
    libc::SYS_setns,
    // Time and waiting.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_getrandom,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    // The server of export, the experiments of the demo, notifications to systemd.
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_socket,
    libc::SYS_socketpair,
    // The command of the trace, the job control of top, facts about the process.
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpgid,
    libc::SYS_getrusage,
    libc::SYS_getsid,
    libc::SYS_getuid,
    libc::SYS_kill,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_prlimit64,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_wait4,
    libc::SYS_waitid,
];

/// Older calls that newer architectures do not have.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_arch_prctl,
    libc::SYS_dup2,
    libc::SYS_epoll_wait,
    libc::SYS_getdents,
    libc::SYS_getpgrp,
    libc::SYS_lstat,
    libc::SYS_open,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_select,
    libc::SYS_stat,
    libc::SYS_time,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c_long] = &[];

/// The commands of bpf(2) that a running trace uses (include/uapi/linux/bpf.h): it reads maps and
/// facts, adds containers to a filter, and runs iterators.
const BPF_COMMANDS: [u64; 6] = [
    1,  // BPF_MAP_LOOKUP_ELEM
    2,  // BPF_MAP_UPDATE_ELEM
    4,  // BPF_MAP_GET_NEXT_KEY
    15, // BPF_OBJ_GET_INFO_BY_FD
    28, // BPF_LINK_CREATE
    33, // BPF_ITER_CREATE
];

/// Allows all threads of the process only the calls of a running trace. Does nothing on a kernel without
/// seccomp.
///
/// # Errors
/// If the filter cannot be made.
pub fn restrict() -> anyhow::Result<()> {
    match apply_filter_all_threads(&filter()?) {
        Ok(()) => Ok(()),
        Err(seccompiler::Error::Seccomp(_)) if !is_available() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Returns whether this kernel has seccomp filters.
pub fn is_available() -> bool {
    std::path::Path::new("/proc/sys/kernel/seccomp/actions_avail").exists()
}

fn filter() -> anyhow::Result<BpfProgram> {
    let always = ALLOWED.iter().chain(OLDER);
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> =
        always.map(|number| (*number, vec![])).collect();
    let commands = BPF_COMMANDS.map(|command| {
        let is = SeccompCmpOp::Eq;
        let is = SeccompCondition::new(0, SeccompCmpArgLen::Dword, is, command)?;
        SeccompRule::new(vec![is])
    });
    let commands: Result<Vec<SeccompRule>, _> = commands.into_iter().collect();
    rules.insert(libc::SYS_bpf, commands?);
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Errno(libc::ENOSYS as u32),
        SeccompAction::Allow,
        std::env::consts::ARCH.try_into()?,
    )?;
    Ok(filter.try_into()?)
}

#[cfg(test)]
mod tests {
    use std::io;

    use seccompiler::apply_filter;

    use super::*;

    /// The result of a system call: 0, or the error's number.
    fn error_of(result: c_long) -> i32 {
        match result {
            0.. => 0,
            _ => io::Error::last_os_error().raw_os_error().unwrap_or(-1),
        }
    }

    #[test]
    fn forbidden_calls_are_refused_and_the_others_work() {
        let filter = filter().unwrap();
        let thread = std::thread::spawn(move || {
            apply_filter(&filter).unwrap();
            let zero: c_long = 0;
            // SAFETY: with these arguments no call has an effect, even if it is not refused: pointers
            // are null, processes and descriptors do not exist.
            unsafe {
                let none: *const libc::c_char = std::ptr::null();
                let call = |number| error_of(libc::syscall(number, -1, none, none, zero, zero));
                let refused = [
                    libc::SYS_execve,
                    libc::SYS_ptrace,
                    libc::SYS_mount,
                    libc::SYS_init_module,
                    libc::SYS_setresuid,
                    libc::SYS_unshare,
                    libc::SYS_perf_event_open,
                ]
                .map(call);
                let bpf =
                    |command: c_long| error_of(libc::syscall(libc::SYS_bpf, command, none, 0));
                let bpf = [bpf(5), bpf(0), bpf(1)];
                (refused, bpf, std::fs::read("/proc/self/stat").is_ok())
            }
        });
        let (refused, bpf, reads) = thread.join().unwrap();
        assert_eq!(refused, [libc::ENOSYS; 7]);
        // Loading a program and making a map are refused; a lookup only fails for its arguments.
        assert_eq!(&bpf[..2], [libc::ENOSYS; 2]);
        assert!(bpf[2] != libc::ENOSYS && bpf[2] != 0, "{bpf:?}");
        assert!(reads);
    }
}
