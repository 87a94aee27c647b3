//! Kernel time to wall clock time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The wall clock as an offset from CLOCK_MONOTONIC, measured once, so that one trace has one
/// time line even when the wall clock is set while it runs.
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

    /// The wall clock time of a CLOCK_MONOTONIC time, in nanoseconds since 1970.
    pub fn wall_ns(&self, mono_ns: u64) -> u64 {
        self.offset_ns.saturating_add(mono_ns)
    }
}

/// CLOCK_MONOTONIC now, in nanoseconds: the clock of `bpf_ktime_get_ns`.
pub fn mono_now_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a valid timespec; CLOCK_MONOTONIC always exists, so this cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
