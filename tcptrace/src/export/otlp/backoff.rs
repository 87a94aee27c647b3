//! How long to wait before a request is sent again.

use std::time::{Duration, SystemTime};

/// Upper bound on the first wait.
const FIRST: Duration = Duration::from_secs(1);

/// Upper bound on later waits.
const LONGEST: Duration = Duration::from_secs(30);

/// Upper bound on the wait that a collector can ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(600);

/// Exponential back-off: each wait is at most twice as long as the one before.
#[derive(Debug)]
pub struct Backoff {
    at_most: Duration,
}

impl Backoff {
    pub fn new() -> Backoff {
        Backoff { at_most: FIRST }
    }

    /// Returns the wait after another failure. It is between half of the upper bound and the upper
    /// bound, by `random` in [0, 1), so that many senders do not return at the same time. It is not
    /// shorter than `asked`, the time in the collector's header Retry-After.
    pub fn wait(&mut self, asked: Option<Duration>, random: f64) -> Duration {
        let wait = self.at_most.mul_f64(0.5 + random / 2.0);
        self.at_most = (self.at_most * 2).min(LONGEST);
        wait.max(asked.unwrap_or_default().min(LONGEST_ASKED))
    }
}

/// Returns whether a request may be sent again after an answer with this status
/// (<https://opentelemetry.io/docs/specs/otlp/#retryable-response-codes>).
pub fn is_retryable(status: u16) -> bool {
    matches!(status, 429 | 502 | 503 | 504)
}

/// Returns the time in a header Retry-After: seconds, or a date (RFC 9110, section 10.2.3).
pub fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let date = httpdate::parse_http_date(value).ok()?;
            Some(date.duration_since(now).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn waits_double_up_to_half_a_minute_and_vary_by_half() {
        for (random, expected) in [
            (0.0, [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0]),
            (0.5, [0.75, 1.5, 3.0, 6.0, 12.0, 22.5, 22.5]),
        ] {
            let mut backoff = Backoff::new();
            let waits = [(); 7].map(|()| backoff.wait(None, random));
            assert_eq!(waits, expected.map(seconds));
        }
    }

    #[test]
    fn a_collector_can_ask_for_a_longer_wait_of_at_most_ten_minutes() {
        for (asked, expected) in [(0, 0.5), (7, 7.0), (601, 600.0), (u64::MAX, 600.0)] {
            let mut backoff = Backoff::new();
            let asked = Some(Duration::from_secs(asked));
            assert_eq!(backoff.wait(asked, 0.0), seconds(expected));
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + seconds(784_111_777.0);
        for (value, expected) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
        ] {
            let expected = expected.map(Duration::from_secs);
            assert_eq!(retry_after(value, now), expected, "{value}");
        }
    }

    #[test]
    fn only_the_codes_of_the_specification_are_retryable() {
        let retryable: Vec<u16> = (100..600).filter(|code| is_retryable(*code)).collect();
        assert_eq!(retryable, [429, 502, 503, 504]);
    }
}
