//! Conversion of kernel time to wall-clock time.

use std::fs;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The wall clock as an offset from CLOCK_MONOTONIC. The offset is measured once, so that the time
/// line of a trace stays continuous when somebody sets the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Wall clock minus CLOCK_MONOTONIC, in nanoseconds.
    offset_ns: u64,
}

impl Clock {
    /// Measures the offset.
    pub fn measure() -> Clock {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Clock::with_offset((wall.as_nanos() as u64).saturating_sub(mono_now_ns()))
    }

    /// A clock with a known offset, in nanoseconds.
    pub fn with_offset(offset_ns: u64) -> Clock {
        Clock { offset_ns }
    }

    /// Wall clock minus CLOCK_MONOTONIC, in nanoseconds.
    pub fn offset_ns(&self) -> u64 {
        self.offset_ns
    }

    /// Converts a CLOCK_MONOTONIC time to wall-clock time, in nanoseconds since 1970.
    pub fn wall_ns(&self, mono_ns: u64) -> u64 {
        self.offset_ns.saturating_add(mono_ns)
    }
}

/// Returns CLOCK_MONOTONIC of the initial time namespace, in nanoseconds. This is the clock of
/// `bpf_ktime_get_ns`, which ignores time namespaces.
pub fn mono_now_ns() -> u64 {
    static OFFSET_NS: OnceLock<i64> = OnceLock::new();
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a valid timespec; CLOCK_MONOTONIC always exists, so this cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    let own_ns = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
    let offset_ns = *OFFSET_NS.get_or_init(namespace_offset_ns);
    own_ns.saturating_sub_signed(offset_ns)
}

/// Returns how far CLOCK_MONOTONIC of this process's time namespace is ahead of the initial one, in
/// nanoseconds. See time_namespaces(7).
fn namespace_offset_ns() -> i64 {
    let namespace = |name| fs::read_link(format!("/proc/self/ns/{name}")).ok();
    // The file has the offsets of the namespace for children, which nearly always is this process's
    // own. The two differ only after unshare(CLONE_NEWTIME), which leaves the calling process in
    // its old namespace. The old namespace is assumed to be the initial one.
    if namespace("time") != namespace("time_for_children") {
        return 0;
    }
    let offsets = fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
    monotonic_offset_ns(&offsets).unwrap_or(0)
}

/// Parses /proc/PID/timens_offsets. Each line has a clock, its offset in seconds, and nanoseconds.
fn monotonic_offset_ns(offsets: &str) -> Option<i64> {
    let mut lines = offsets.lines().map(str::split_ascii_whitespace);
    let mut fields =
        lines.find_map(|mut fields| (fields.next()? == "monotonic").then_some(fields))?;
    let mut number = || fields.next()?.parse::<i64>().ok();
    let (seconds, nanoseconds) = (number()?, number()?);
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_offset_of_a_time_namespace_is_parsed() {
        for (offsets, ns) in [
            (
                "monotonic           0         0\nboottime            0         0\n",
                Some(0),
            ),
            (
                "monotonic       -1000         0\nboottime            7         0\n",
                Some(-1_000_000_000_000),
            ),
            (
                "boottime 7 0\nmonotonic 86400 5\n",
                Some(86_400_000_000_005),
            ),
            ("boottime 7 0\n", None),
            ("monotonic 9223372036854775807 0\n", None),
            ("", None),
        ] {
            assert_eq!(monotonic_offset_ns(offsets), ns, "{offsets}");
        }
    }
}
