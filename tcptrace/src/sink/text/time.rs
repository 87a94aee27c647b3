//! The time of day.

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

    fn hours_minutes_seconds(self, seconds: u64) -> (u64, u64, u64) {
        match self {
            Zone::Local => local(seconds),
            Zone::Utc => utc(seconds),
        }
    }
}

/// Writes times of day, thousands of which share a second.
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

    /// `HH:MM:SS.µµµµµµ` of a time since 1970 in nanoseconds.
    pub fn of(&mut self, wall_ns: u64) -> &str {
        /// `HH:MM:SS.`
        const SECONDS: usize = 9;
        let (second, micros) = (wall_ns / 1_000_000_000, wall_ns / 1_000 % 1_000_000);
        if second != self.second {
            let (h, m, s) = self.zone.hours_minutes_seconds(second);
            self.second = second;
            self.text = format!("{h:02}:{m:02}:{s:02}.");
        }
        self.text.truncate(SECONDS);
        // A leading 1 keeps the zeros.
        let mut buffer = itoa::Buffer::new();
        self.text.push_str(&buffer.format(1_000_000 + micros)[1..]);
        &self.text
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

    #[test]
    fn of_day() {
        const TIME: u64 = 1_772_373_787_123_456_789;
        let mut utc = TimeOfDay::new(Zone::Utc);
        assert_eq!(utc.of(TIME), "14:03:07.123456");
        assert_eq!(utc.of(TIME + 1_000), "14:03:07.123457");
        assert_eq!(utc.of(TIME + 876_543_211), "14:03:08.000000");
        assert_eq!(utc.of(TIME), "14:03:07.123456");
        // Zones differ by whole minutes, nowadays.
        assert!(TimeOfDay::new(Zone::Local).of(TIME).ends_with(":07.123456"));
    }
}
