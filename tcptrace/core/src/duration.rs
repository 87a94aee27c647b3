//! Durations for people: four significant digits and a unit.

use std::fmt;

/// A duration in nanoseconds; displays as `950 ns`, `23.41 µs`, `5.003 s`, rounded to nearest.
///
/// Width, fill and alignment apply: `{:>9}` makes a column (no duration under 100 000 s is wider).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Human(pub u64);

/// Units above the nanosecond, with their length in nanoseconds.
const UNITS: [(&str, u64); 3] = [(" µs", 1_000), (" ms", 1_000_000), (" s", 1_000_000_000)];

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text(&mut [0; 32]))
    }
}

impl Human {
    /// Writes the duration as `Display` does, without a width. This is faster for a `String`.
    pub fn write(self, to: &mut impl fmt::Write) -> fmt::Result {
        to.write_str(self.text(&mut [0; 32]))
    }

    /// Returns the duration as text in `buffer`, written from the last character backwards. This is
    /// fast, because many lines have one or two durations. The buffer holds twenty digits, a point
    /// and a unit.
    fn text(self, buffer: &mut [u8; 32]) -> &str {
        let (mut number, decimals, unit) = self.form();
        let mut at = buffer.len() - unit.len();
        buffer[at..].copy_from_slice(unit.as_bytes());
        let point = at - decimals;
        while number > 0 || point <= at {
            if at == point && decimals > 0 {
                at -= 1;
                buffer[at] = b'.';
            }
            at -= 1;
            buffer[at] = b'0' + (number % 10) as u8;
            number /= 10;
        }
        str::from_utf8(&buffer[at..]).expect("digits and a unit")
    }

    /// Returns a number, the count of its digits after the point, and the unit.
    fn form(self) -> (u64, usize, &'static str) {
        let ns = self.0;
        if ns < 1_000 {
            return (ns, 0, " ns");
        }
        // Takes the first form with at most four digits after rounding: 999 960 ns is "1.000 ms", not
        // "1000.0 µs".
        for (unit, scale) in UNITS {
            for (decimals, power) in [(3, 1_000), (2, 100), (1, 10)] {
                let digits = div_round(ns, scale / power);
                if digits < 10_000 {
                    return (digits, decimals, unit);
                }
            }
        }
        (div_round(ns, 1_000_000_000), 0, " s")
    }
}

/// Returns `n / by`, rounded half up.
fn div_round(n: u64, by: u64) -> u64 {
    n / by + u64::from(n % by >= by.div_ceil(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_has_at_most_four_digits_and_a_unit() {
        for (ns, text) in [
            (0, "0 ns"),
            (950, "950 ns"),
            (999, "999 ns"),
            (1_000, "1.000 µs"),
            (23_414, "23.41 µs"),
            (234_149, "234.1 µs"),
            (300_000, "300.0 µs"),
            (1_020_000_000, "1.020 s"),
            (5_003_000_000, "5.003 s"),
            (61_200_000_000, "61.20 s"),
            (86_400_000_000_000, "86400 s"),
            (u64::MAX, "18446744074 s"),
        ] {
            assert_eq!(Human(ns).to_string(), text);
        }
    }

    #[test]
    fn duration_that_rounds_up_takes_the_next_unit() {
        for (ns, text) in [
            (9_999, "9.999 µs"),
            (99_994, "99.99 µs"),
            (99_995, "100.0 µs"),
            (999_949, "999.9 µs"),
            (999_950, "1.000 ms"),
            (9_999_500, "10.00 ms"),
            (999_950_000, "1.000 s"),
            (999_950_000_000, "1000 s"),
        ] {
            assert_eq!(Human(ns).to_string(), text);
        }
    }

    #[test]
    fn padding_counts_characters_not_bytes() {
        assert_eq!(format!("{:>9}|", Human(23_414)), " 23.41 µs|");
        assert_eq!(format!("{:<9}|", Human(5)), "5 ns     |");
    }
}
