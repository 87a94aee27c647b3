//! The median and the range of several rounds.

use serde::Serialize;

/// The median of some measurements, with minimum and maximum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// Returns `None` without measurements. The median of an even number is the mean of the middle
    /// two.
    pub fn of(measured: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut sorted: Vec<f64> = measured.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let upper = sorted.len() / 2;
        let lower = (sorted.len() - 1) / 2;
        Some(Spread {
            median: (sorted[lower] + sorted[upper]) / 2.0,
            min,
            max,
        })
    }

    /// Formats `0.96 (0.94 … 0.98)` with this many decimals, or only the median if all values are
    /// equal.
    pub fn show(self, decimals: usize) -> String {
        let [median, min, max] =
            [self.median, self.min, self.max].map(|it| format!("{it:.decimals$}"));
        if min == max {
            return median;
        }
        format!("{median} ({min} … {max})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_the_middle() {
        let spread = |measured: &[f64]| Spread::of(measured.iter().copied());
        assert_eq!(spread(&[]), None);
        for (measured, median, min, max) in [
            (&[7.0][..], 7.0, 7.0, 7.0),
            (&[3.0, 1.0], 2.0, 1.0, 3.0),
            (&[9.0, 1.0, 2.0], 2.0, 1.0, 9.0),
            (&[4.0, 1.0, 2.0, 100.0], 3.0, 1.0, 100.0),
        ] {
            assert_eq!(spread(measured), Some(Spread { median, min, max }));
        }
    }

    #[test]
    fn a_constant_figure_is_shown_as_one_number() {
        let spread = |measured: [f64; 3]| Spread::of(measured).map(|it| it.show(2));
        assert_eq!(
            spread([0.951, 0.9, 0.99]).as_deref(),
            Some("0.95 (0.90 … 0.99)")
        );
        assert_eq!(spread([0.0; 3]).as_deref(), Some("0.00"));
        assert_eq!(spread([0.501, 0.502, 0.503]).as_deref(), Some("0.50"));
    }
}
