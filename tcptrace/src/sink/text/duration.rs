//! Durations for people. Stand-in for `crate::duration`, until that is merged.

use std::fmt;

/// Nanoseconds with four digits and a unit: `23.10 µs`, `5.003 s`.
pub struct Human(pub u64);

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, scale) = match self.0 {
            0..1_000 => return write!(f, "{} ns", self.0),
            1_000..1_000_000 => ("µs", 1e3),
            1_000_000..1_000_000_000 => ("ms", 1e6),
            _ => ("s", 1e9),
        };
        let value = self.0 as f64 / scale;
        match value {
            ..10.0 => write!(f, "{value:.3} {unit}"),
            ..100.0 => write!(f, "{value:.2} {unit}"),
            _ => write!(f, "{value:.1} {unit}"),
        }
    }
}
