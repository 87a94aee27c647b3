//! Formatting of the time of day.

/// The time zone of displayed times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// The zone of `TZ` or /etc/localtime.
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

    fn hours_minutes_seconds(self, seconds: u64) -> (u64, u64, u64) {
        match self {
            Zone::Local => local(seconds),
            Zone::Utc => utc(seconds),
        }
    }
}

/// Formats times of day. Consecutive times mostly share a second, which is formatted once.
pub struct TimeOfDay {
    zone: Zone,
    second: u64,
    text: String,
}

impl TimeOfDay {
    pub fn new(zone: Zone) -> TimeOfDay {
        TimeOfDay {
            zone,
            second: u64::MAX,
            text: String::new(),
        }
    }

    /// Formats nanoseconds since 1970 as `HH:MM:SS.µµµµµµ`.
    pub fn of(&mut self, wall_ns: u64) -> &str {
        /// Length of `HH:MM:SS.`.
        const SECONDS: usize = 9;
        let (second, micros) = (wall_ns / 1_000_000_000, wall_ns / 1_000 % 1_000_000);
        if second != self.second {
            let (h, m, s) = self.zone.hours_minutes_seconds(second);
            self.second = second;
            self.text = format!("{h:02}:{m:02}:{s:02}.");
        }
        self.text.truncate(SECONDS);
        // The leading 1 preserves leading zeros.
        let mut buffer = itoa::Buffer::new();
        self.text.push_str(&buffer.format(1_000_000 + micros)[1..]);
        &self.text
    }
}

/// Converts seconds since 1970 to hours, minutes and seconds in UTC.
fn utc(seconds: u64) -> (u64, u64, u64) {
    (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

/// Converts seconds since 1970 to local time, or to UTC if localtime_r() fails.
fn local(seconds: u64) -> (u64, u64, u64) {
    let time = seconds as libc::time_t;
    // SAFETY: all members of `tm` are integers or pointers, for which zero is valid.
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid during the call, which does not keep them.
    if unsafe { libc::localtime_r(&time, &mut tm) }.is_null() {
        return utc(seconds);
    }
    (tm.tm_hour as u64, tm.tm_min as u64, tm.tm_sec as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_day_has_microseconds() {
        const TIME: u64 = 1_772_373_787_123_456_789;
        let mut utc = TimeOfDay::new(Zone::Utc);
        assert_eq!(utc.of(TIME), "14:03:07.123456");
        assert_eq!(utc.of(TIME + 1_000), "14:03:07.123457");
        assert_eq!(utc.of(TIME + 876_543_211), "14:03:08.000000");
        assert_eq!(utc.of(TIME), "14:03:07.123456");
        // Current time zones differ by whole minutes.
        assert!(TimeOfDay::new(Zone::Local).of(TIME).ends_with(":07.123456"));
    }
}
