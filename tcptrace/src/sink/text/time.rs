//! The time of day.

use std::time::{SystemTime, UNIX_EPOCH};

/// Whose clock on the wall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// What `TZ` or /etc/localtime says.
    Local,
    Utc,
}

impl Zone {
    pub fn name(self) -> &'static str {
        match self {
            Zone::Local => "local",
            Zone::Utc => "UTC",
        }
    }

    /// `HH:MM:SS.µµµµµµ`
    pub fn time_of_day(self, time: SystemTime) -> String {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = since.as_secs();
        let (h, m, s) = match self {
            Zone::Local => local(seconds),
            Zone::Utc => utc(seconds),
        };
        format!("{h:02}:{m:02}:{s:02}.{:06}", since.subsec_micros())
    }
}

/// Seconds since 1970 to hours, minutes, seconds.
fn utc(seconds: u64) -> (u64, u64, u64) {
    (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

/// The same where this process is, or UTC if the C library cannot say.
fn local(seconds: u64) -> (u64, u64, u64) {
    let time = seconds as libc::time_t;
    // SAFETY: all of tm's members are integers and a pointer, for which zero is a value.
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for the call, which keeps neither.
    if unsafe { libc::localtime_r(&time, &mut tm) }.is_null() {
        return utc(seconds);
    }
    (tm.tm_hour as u64, tm.tm_min as u64, tm.tm_sec as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn of_day() {
        let time = UNIX_EPOCH + Duration::from_nanos(1_772_373_787_123_456_789);
        assert_eq!(Zone::Utc.time_of_day(time), "14:03:07.123456");
        // Zones differ by whole minutes, nowadays.
        assert!(Zone::Local.time_of_day(time).ends_with(":07.123456"));
    }
}
