//! Counts tests by what Rust's test program prints.

use std::{fmt, ops::AddAssign};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: usize,
    pub failed: usize,
}

impl Tally {
    /// Takes in one line of output. An ignored test has failed, unless it says why it is ignored.
    pub fn read(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            self.passed += number_before(result, " passed");
            self.failed += number_before(result, " failed");
        } else if line.starts_with("test ") && line.ends_with(" ... ignored") {
            self.failed += 1;
        }
    }

    /// The result, when tests that have failed in it were played `again`.
    pub fn corrected(self, again: Tally) -> Tally {
        Tally {
            passed: self.passed + again.passed,
            failed: self.failed - again.passed,
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// 12 of `ok. 12 passed; 0 failed`, asked for ` passed`.
fn number_before(text: &str, unit: &str) -> usize {
    let before = text.find(unit).map_or("", |end| &text[..end]);
    let number = before.rsplit(' ').next().unwrap_or_default();
    number.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(output: &str) -> String {
        let mut tally = Tally::default();
        output.lines().for_each(|line| tally.read(line));
        tally.to_string()
    }

    #[test]
    fn results_add_up() {
        let output = "\
running 3 tests
test a ... ok
test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 10 filtered out; finished in 1s
";
        assert_eq!(tally(output), "15 passed, 2 failed");
    }

    #[test]
    fn ignoring_wants_a_reason() {
        let result = "test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out";
        let silent = format!("test a ... ignored\n{result}");
        assert_eq!(tally(&silent), "1 passed, 1 failed");
        let reasoned = format!("test a ... ignored, needs fentry\n{result}");
        assert_eq!(tally(&reasoned), "1 passed, 0 failed");
    }
}
