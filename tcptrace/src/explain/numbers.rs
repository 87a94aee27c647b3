//! A set of connection numbers, displayed as ranges: `2-5, 7`.

use std::collections::BTreeMap;
use std::fmt;

/// Upper bound on displayed ranges.
const MOST: usize = 20;

/// A set of numbers stored as ranges. It stays small, because connections are numbered
/// consecutively.
#[derive(Default)]
pub struct Numbers {
    /// The first and the last number of each range.
    ranges: BTreeMap<u64, u64>,
}

impl Numbers {
    pub fn add(&mut self, n: u64) {
        if self.has(n) {
            return;
        }
        let mut last = n;
        if let Some(next) = n.checked_add(1)
            && let Some(end) = self.ranges.remove(&next)
        {
            last = end;
        }
        match self.ranges.range_mut(..n).next_back() {
            Some((_, end)) if end.checked_add(1) == Some(n) => *end = last,
            _ => {
                self.ranges.insert(n, last);
            }
        }
    }

    pub fn has(&self, n: u64) -> bool {
        let range = self.ranges.range(..=n).next_back();
        range.is_some_and(|(_, &last)| n <= last)
    }

    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            if index == MOST {
                let more = self.ranges.values().next_back().unwrap_or(last);
                return write!(f, "{comma}… up to {more}");
            }
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_numbers_are_displayed_as_a_range() {
        let mut numbers = Numbers::default();
        for n in [7, 2, 4, 3, 3, 9] {
            numbers.add(n);
        }
        assert_eq!(numbers.to_string(), "2-4, 7, 9");
        assert!(numbers.has(3) && !numbers.has(5) && !numbers.has(10));
    }

    #[test]
    fn a_long_list_of_ranges_is_shortened() {
        let mut numbers = Numbers::default();
        (0..1000).for_each(|n| numbers.add(2 * n));
        let text = numbers.to_string();
        assert!(text.ends_with("38, … up to 1998"), "{text}");
    }
}
