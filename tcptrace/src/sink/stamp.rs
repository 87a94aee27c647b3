//! Formatting of wall-clock times. Consecutive times mostly share a second, which is formatted
//! once.

use std::time::{Duration, UNIX_EPOCH};

/// Length of `2026-03-01T14:03:07.123456789Z`.
const LEN: usize = 30;
/// Offset of the nanoseconds.
const NANOS: usize = 20;

/// The last formatted time.
pub struct Stamp {
    second: u64,
    text: String,
}

impl Default for Stamp {
    fn default() -> Stamp {
        Stamp {
            second: u64::MAX,
            text: String::with_capacity(LEN),
        }
    }
}

impl Stamp {
    /// Formats nanoseconds since 1970 according to RFC 3339, in UTC.
    pub fn of(&mut self, wall_ns: u64) -> &str {
        use std::fmt::Write;
        let (second, nanos) = (wall_ns / 1_000_000_000, wall_ns % 1_000_000_000);
        if second != self.second {
            let time = UNIX_EPOCH + Duration::from_secs(second);
            self.second = second;
            self.text.clear();
            // Writing to a String cannot fail.
            let _ = write!(self.text, "{}", humantime::format_rfc3339_nanos(time));
        }
        self.text.truncate(NANOS);
        let mut buffer = itoa::Buffer::new();
        // The leading 1 preserves leading zeros.
        self.text
            .push_str(&buffer.format(1_000_000_000 + nanos)[1..]);
        self.text.push('Z');
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_equal_those_of_humantime() {
        const NOON: u64 = 1_772_366_400_000_000_000;
        let mut stamp = Stamp::default();
        for ns in [
            0,
            1,
            999_999_999,
            1_000_000_000,
            59_000_000_123,
            86_400_000_000_000,
        ] {
            let time = UNIX_EPOCH + Duration::from_nanos(NOON + ns);
            let expected = humantime::format_rfc3339_nanos(time).to_string();
            assert_eq!(stamp.of(NOON + ns), expected);
        }
    }
}
