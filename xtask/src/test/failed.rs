//! Collects the output of failed tests from the output of Rust's test program.

/// The prefix of the line with evidence that the kernel hid something from tcptrace. A scenario
/// prints it (tests/src/known_gap.rs).
pub const MARKER: &str = "the kernel ran no program here: ";

/// Number of lines kept of a panic: its place, its message, and the beginning of its details.
const KEPT: usize = 10;
/// Number of characters kept of a line.
const WIDTH: usize = 300;

/// The tests that failed in one run, in the order of their output.
#[derive(Default)]
pub struct Failed {
    pub tests: Vec<Test>,
    section: Section,
}

pub struct Test {
    pub name: String,
    /// The lines from the panic on, at most [`KEPT`], each at most [`WIDTH`] characters long.
    pub panic: Vec<String>,
    /// Whether the test printed the marker.
    pub hidden: bool,
}

/// The part of the output that contains a line.
#[derive(Default, PartialEq, Eq)]
enum Section {
    #[default]
    Other,
    /// The output of failed tests.
    Failures,
    /// The output of one failed test, the last of [`Failed::tests`].
    Test,
}

impl Failed {
    /// Reads one line of output.
    pub fn read(&mut self, line: &str) {
        let begun = line
            .strip_prefix("---- ")
            .and_then(|rest| rest.strip_suffix(" stdout ----"));
        if ["successes:", "failures:"].contains(&line) {
            self.section = match line {
                "failures:" => Section::Failures,
                _ => Section::Other,
            };
        } else if self.section == Section::Other {
        } else if let Some(name) = begun {
            self.section = Section::Test;
            self.tests.push(Test {
                name: name.to_owned(),
                panic: vec![],
                hidden: false,
            });
        } else if self.section == Section::Test
            && let Some(test) = self.tests.last_mut()
        {
            test.read(line);
        }
    }
}

impl Test {
    fn read(&mut self, line: &str) {
        self.hidden |= line.starts_with(MARKER);
        let panics = line.starts_with("thread '") && line.contains(" panicked at ");
        let goes_on = !self.panic.is_empty() && self.panic.len() < KEPT && !line.is_empty();
        if goes_on || (self.panic.is_empty() && panics) {
            self.panic.push(line.chars().take(WIDTH).collect());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(output: &str) -> Vec<Test> {
        let mut failed = Failed::default();
        output.lines().for_each(|line| failed.read(line));
        failed.tests
    }

    #[test]
    fn the_panic_of_each_failed_test_is_kept_and_nothing_else() {
        let long = "x".repeat(400);
        let tests = read(&format!(
            "
successes:

---- fine stdout ----
thread 'fine' (1) panicked at src/lib.rs:1:1:
caught

successes:
    fine

failures:

---- first stdout ----
before

thread 'first' (2) panicked at src/lib.rs:2:1:
assertion `left == right` failed
  left: 1
 right: 2
{long}

---- second stdout ----
thread 'second' (3) panicked at src/lib.rs:3:1:
{}{MARKER}CLOSING→CLOSE

failures:
    first
    second

test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s
",
            "a line\n".repeat(20)
        ));
        let [first, second] = &tests[..] else {
            panic!("{} tests", tests.len())
        };
        assert_eq!(first.name, "first");
        assert_eq!(
            first.panic[0],
            "thread 'first' (2) panicked at src/lib.rs:2:1:"
        );
        assert_eq!(
            first.panic[1..4].join("|"),
            "assertion `left == right` failed|  left: 1| right: 2"
        );
        assert_eq!((first.panic.len(), first.panic[4].len()), (5, WIDTH));
        assert!(!first.hidden);
        assert_eq!((second.name.as_str(), second.panic.len()), ("second", KEPT));
        assert!(second.hidden);
    }
}
