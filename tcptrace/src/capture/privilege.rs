//! Privileges for tracing, and the errors for missing ones.

use super::error::CaptureError;

/// Bit numbers of the capability sets in /proc/self/status (include/uapi/linux/capability.h).
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Checks that the process has CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN, which implies both.
pub fn check() -> Result<(), CaptureError> {
    let Some(effective) = effective_capabilities() else {
        // Without /proc the kernel itself will refuse.
        return Ok(());
    };
    let missing = missing(effective);
    if missing.is_empty() {
        return Ok(());
    }
    Err(CaptureError::NotPermitted(format!(
        "tracing needs {}; run tcptrace as root or with sudo",
        missing.join(" and ")
    )))
}

/// Returns the capabilities of root that the process lacks, and that a kernel or a security module may
/// ask for when a program is attached.
pub fn lacking() -> Vec<&'static str> {
    let has_admin = |effective: u64| effective >> CAP_SYS_ADMIN & 1 != 0;
    match effective_capabilities().is_none_or(has_admin) {
        true => vec![],
        false => vec!["CAP_SYS_ADMIN"],
    }
}

/// Returns the error for a kernel that refuses although the capabilities are present.
pub fn refused(what: &str) -> CaptureError {
    CaptureError::NotPermitted(format!(
        "the kernel refuses {what} although CAP_BPF and CAP_PERFMON are present; check for kernel \
         lockdown (/sys/kernel/security/lockdown), a seccomp filter, or an unprivileged container"
    ))
}

/// Raises RLIMIT_MEMLOCK. Before Linux 5.11 maps count against it, and the default is 64 KiB. If it
/// cannot be raised, creating the maps reports the error.
pub fn raise_memlock_limit() {
    let unlimited = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the rlimit is valid.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &unlimited) };
}

fn effective_capabilities() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(effective.trim(), 16).ok()
}

fn missing(effective: u64) -> Vec<&'static str> {
    let has = |capability: u32| effective >> capability & 1 != 0;
    if has(CAP_SYS_ADMIN) {
        return vec![];
    }
    [(CAP_BPF, "CAP_BPF"), (CAP_PERFMON, "CAP_PERFMON")]
        .into_iter()
        .filter(|&(capability, _)| !has(capability))
        .map(|(_, name)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(missing(0), ["CAP_BPF", "CAP_PERFMON"]);
        assert_eq!(missing(1 << CAP_BPF), ["CAP_PERFMON"]);
        assert!(missing(1 << CAP_BPF | 1 << CAP_PERFMON).is_empty());
        assert!(missing(1 << CAP_SYS_ADMIN).is_empty());
    }
}
