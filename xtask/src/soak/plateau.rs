//! Judges whether memory has reached a plateau.

/// Maximum slope, in KiB an hour.
const SLOPE: f64 = 1024.0;

/// Growth in KiB that a short run cannot tell from noise: an allocator gets and returns memory by
/// tens of pages.
const RESOLUTION: f64 = 512.0;

/// A measurement of memory.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub hours: f64,
    pub kib: f64,
}

/// The line through the last half of the samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trend {
    /// KiB an hour.
    pub slope: f64,
    /// Hours from its first to its last sample.
    pub hours: f64,
}

impl Trend {
    /// Returns the trend by least squares; `None` for fewer than two moments.
    pub fn of_last_half(samples: &[Sample]) -> Option<Trend> {
        let end = samples.last()?.hours;
        let begin = samples.first()?.hours;
        let half: Vec<_> = samples
            .iter()
            .filter(|it| it.hours >= f64::midpoint(begin, end))
            .collect();
        let mean = |figure: fn(&Sample) -> f64| {
            half.iter().map(|it| figure(it)).sum::<f64>() / half.len() as f64
        };
        let (hours, kib) = (mean(|it| it.hours), mean(|it| it.kib));
        let sum = |product: &dyn Fn(&Sample) -> f64| half.iter().map(|it| product(it)).sum::<f64>();
        let spread = sum(&|it| (it.hours - hours).powi(2));
        let slope = sum(&|it| (it.hours - hours) * (it.kib - kib)) / spread;
        let hours = end - half.first()?.hours;
        (spread > 0.0).then_some(Trend { slope, hours })
    }

    /// Returns the maximum slope for a run of this length.
    pub fn limit(&self) -> f64 {
        SLOPE.max(RESOLUTION / self.hours)
    }

    pub fn is_flat(&self) -> bool {
        self.slope <= self.limit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trend(hours: f64, kib: impl Fn(f64) -> f64) -> Trend {
        let samples: Vec<Sample> = (0..=200)
            .map(|n| hours * f64::from(n) / 200.0)
            .map(|hours| Sample {
                hours,
                kib: kib(hours),
            })
            .collect();
        Trend::of_last_half(&samples).unwrap()
    }

    #[test]
    fn only_the_last_half_counts() {
        let grown = trend(2.0, |hours| 20_000.0 + 40_000.0 * hours.min(0.9));
        assert!(grown.slope.abs() < 1e-6 && grown.hours == 1.0, "{grown:?}");
        assert!(grown.is_flat());
        let falling = trend(2.0, |hours| 20_000.0 - 5_000.0 * hours);
        assert!(falling.is_flat());
    }

    #[test]
    fn a_megabyte_an_hour_is_the_most() {
        assert!(trend(2.0, |hours| 1000.0 * hours).is_flat());
        let leak = trend(2.0, |hours| 1100.0 * hours);
        assert!((leak.slope - 1100.0).abs() < 1e-6, "{leak:?}");
        assert!(!leak.is_flat());
    }

    #[test]
    fn a_short_run_allows_only_what_it_cannot_resolve() {
        let minutes = |slope: f64| trend(1.0 / 6.0, |hours| slope * hours);
        assert!(minutes(6_000.0).is_flat(), "half a MiB in five minutes");
        assert!(!minutes(6_300.0).is_flat());
    }

    #[test]
    fn too_few_samples_have_no_trend() {
        assert_eq!(Trend::of_last_half(&[]), None);
        let one = Sample {
            hours: 1.0,
            kib: 1.0,
        };
        assert_eq!(Trend::of_last_half(&[one]), None);
        assert_eq!(Trend::of_last_half(&[one, one]), None);
    }
}
