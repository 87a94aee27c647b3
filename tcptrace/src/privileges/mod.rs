//! The privileges of a trace after its hooks are attached.
//!
//! The kernel keeps capabilities for each thread. Each thread of a trace gives up its own: all of
//! them, or all but those of a [`Role`]. Threads of one process share their memory, so this protects
//! against files and names that mislead a thread, not against foreign code in the process.

mod lookups;
pub mod paths;
mod role;
pub mod syscalls;

use std::io;

use anyhow::Context;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

pub use self::lookups::Lookups;
use self::paths::Needs;
pub use self::role::{ROLES, Role, unseen, unseen_in_stacks};
use crate::stdio::{plain, say};

/// Gives up all capabilities of the calling thread except `keep`, and all ways to get others.
/// Threads that it starts later have no more than it.
///
/// # Errors
/// If the system refuses.
pub fn keep_only(keep: CapabilitySet) -> io::Result<()> {
    // Without CAP_SETPCAP the bounding set stays. It matters only to programs that are executed, and
    // those get nothing after no_new_privs.
    for capability in (CapabilitySet::all() - keep).iter() {
        let _ = remove_capability_from_bounding_set(capability);
    }
    set_no_new_privs(true)?;
    clear_ambient_capability_set()?;
    let now = capabilities(None)?;
    let left = CapabilitySets {
        effective: now.effective & keep,
        permitted: now.permitted & keep,
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, left)?)
}

/// Gives up all capabilities of the calling thread, which has nothing to do that needs one.
///
/// A refusal is reported and not fatal: the thread that attaches the hooks does not go on if it
/// cannot give up its own.
pub fn give_up() {
    keep(Role::Other);
    if let Err(error) = paths::restrict(&Needs::default()) {
        say(format_args!("cannot give up access to files: {error}"));
    }
}

/// Gives up everything but `keep` and `needs` in the calling thread, and the system calls that a running
/// trace does not make in all threads.
///
/// # Errors
/// If the system refuses.
pub fn confine(keep: CapabilitySet, needs: &Needs) -> anyhow::Result<()> {
    keep_only(keep).context("cannot give up privileges")?;
    paths::restrict(needs).context("cannot give up access to files")?;
    syscalls::restrict().context("cannot give up system calls")
}

/// Like [`give_up`], but keeps the capabilities of a role.
pub fn keep(role: Role) {
    if let Err(error) = keep_only(role.capabilities()) {
        say(format_args!("cannot give up privileges: {}", plain(&error)));
    }
}

/// Returns the effective capabilities of the calling thread; all of them if the system does not tell.
pub fn effective() -> CapabilitySet {
    capabilities(None).map_or(CapabilitySet::all(), |sets| sets.effective)
}

/// Calls `act` as a thread without capabilities would. The capabilities are back when it returns.
///
/// # Errors
/// If the system refuses.
pub fn without<T>(act: impl FnOnce() -> T) -> io::Result<T> {
    let before = capabilities(None)?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        ..before
    };
    set_capabilities(None, none)?;
    let done = act();
    set_capabilities(None, before)?;
    Ok(done)
}

/// Lets the process leave SCHED_IDLE later, without CAP_SYS_NICE: raises RLIMIT_NICE by one above the
/// current nice value. Does nothing without CAP_SYS_RESOURCE.
pub fn allow_current_nice() {
    // SAFETY: plain system calls. `limit` is valid for reading and writing.
    unsafe {
        let nice = libc::getpriority(libc::PRIO_PROCESS, 0);
        let needed = (21 - nice) as libc::rlim_t;
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NICE, &mut limit);
        limit.rlim_cur = limit.rlim_cur.max(needed);
        limit.rlim_max = limit.rlim_max.max(needed);
        libc::setrlimit(libc::RLIMIT_NICE, &limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the value of a line of the calling thread's status.
    fn status(name: &str) -> String {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim_start_matches(':').trim().to_owned()
    }

    #[test]
    fn a_thread_that_gives_up_keeps_only_what_its_role_needs() {
        let had = u64::from_str_radix(&status("CapPrm"), 16).unwrap();
        for role in [Role::Other, Role::Lookups] {
            let kept = had & role.capabilities().bits();
            let kept = format!("{kept:016x}");
            let found = std::thread::spawn(move || {
                keep(role);
                ["CapEff", "CapPrm", "CapAmb", "CapInh", "NoNewPrivs"].map(status)
            });
            let none = format!("{:016x}", 0);
            let expected = [kept.clone(), kept, none.clone(), none, "1".to_owned()];
            assert_eq!(found.join().unwrap(), expected, "{role:?}");
        }
        // Other threads are as before.
        assert_eq!(u64::from_str_radix(&status("CapPrm"), 16).unwrap(), had);
        assert_eq!(status("NoNewPrivs"), "0");
    }

    #[test]
    fn capabilities_are_back_after_a_trial_without_them() {
        let had = status("CapEff");
        let during = without(|| status("CapEff")).unwrap();
        assert_eq!((during, status("CapEff")), (format!("{:016x}", 0), had));
    }
}
