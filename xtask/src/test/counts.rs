//! Counts tests from the output of Rust's test program.

use std::{fmt, ops::AddAssign};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: usize,
    pub failed: usize,
}

impl Counts {
    /// Reads one line of output. An ignored test without a reason counts as failed.
    pub fn read(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.passed += number_before(result, " passed");
            self.failed += number_before(result, " failed");
        } else if line.starts_with("test ") && line.ends_with(" ... ignored") {
            self.failed += 1;
        }
    }

    /// Returns the result after failed tests were rerun with the result `again`.
    pub fn corrected(self, again: Counts) -> Counts {
        Counts {
            passed: self.passed + again.passed,
            failed: self.failed - again.passed,
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// Returns 12 for `ok. 12 passed; 0 failed` and the unit ` passed`.
fn number_before(text: &str, unit: &str) -> usize {
    let before = text.find(unit).map_or("", |end| &text[..end]);
    let number = before.rsplit(' ').next().unwrap_or_default();
    number.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(output: &str) -> String {
        let mut counts = Counts::default();
        output.lines().for_each(|line| counts.read(line));
        counts.to_string()
    }

    #[test]
    fn the_counts_of_all_test_programs_are_summed() {
        let output = "\
running 3 tests
test a ... ok
test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 10 filtered out; finished in 1s
";
        assert_eq!(counts(output), "15 passed, 2 failed");
    }

    #[test]
    fn an_ignored_test_without_a_reason_counts_as_failed() {
        let result = "test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out";
        let silent = format!("test a ... ignored\n{result}");
        assert_eq!(counts(&silent), "1 passed, 1 failed");
        let reasoned = format!("test a ... ignored, needs fentry\n{result}");
        assert_eq!(counts(&reasoned), "1 passed, 0 failed");
    }
}
