//! Scenarios that are played again, because the kernel hid something from tcptrace.
//!
//! This machine's kernel may run no program while its CPU is at a thread of init (ARCHITECTURE.md,
//! "The kernel skips programs"). A scenario that fails and has evidence of that says so, in a line
//! that begins with [`MARKER`]. It is played once more, and its second result counts. No other is.

use anyhow::Result;

use super::tally::Tally;

/// The same as in tests/src/hole.rs.
const MARKER: &str = "the kernel ran no program here: ";

/// The hole is met by one scenario in a few runs of them all. More than these have another reason.
const MOST: usize = 3;

/// The failed tests that have the marker in their output.
#[derive(Default)]
pub struct Hidden {
    /// In the section where Rust's test program shows what failed tests printed.
    in_failures: bool,
    /// The test whose output it is, until the marker is found.
    test: Option<String>,
    names: Vec<String>,
}

impl Hidden {
    /// Takes in one line of output.
    pub fn read(&mut self, line: &str) {
        let begun = line
            .strip_prefix("---- ")
            .and_then(|rest| rest.strip_suffix(" stdout ----"));
        if let Some(name) = begun {
            self.test = self.in_failures.then(|| name.to_owned());
        } else if line.starts_with(MARKER) {
            self.names.extend(self.test.take());
        } else if ["successes:", "failures:"].contains(&line) {
            self.in_failures = line == "failures:";
            self.test = None;
        }
    }
}

/// Runs the tests that `words` choose, and plays again what the kernel was in the way of. `said`
/// gets a sentence about that.
pub fn play(
    words: &[String],
    run: impl Fn(&[String], &mut Hidden) -> Result<Tally>,
    said: &mut Vec<String>,
) -> Result<Tally> {
    let mut hidden = Hidden::default();
    let first = run(words, &mut hidden)?;
    let names = hidden.names;
    if names.is_empty() || names.len() > MOST {
        return Ok(first);
    }
    let sentence = format!(
        "played again, because this kernel ran no program while it was at init: {}",
        names.join(", ")
    );
    println!("\n{sentence}");
    said.push(sentence);
    let exactly = [&["--exact".to_owned()], &names[..]].concat();
    let second = run(&exactly, &mut Hidden::default());
    Ok(match second {
        Ok(second) if second.passed + second.failed == names.len() => first.corrected(second),
        // It did not play just these: then it excuses nothing.
        Ok(_) => first,
        Err(error) => {
            println!("{error:#}");
            first
        }
    })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    const A: &str = "
---- ended::closed_by_both_at_once stdout ----

thread 'ended::closed_by_both_at_once' (24623) panicked at tests/src/witness.rs:288:9:
assertion `left == right` failed: tcptrace (left) differs from ftrace (right)
The trace (netns 7):
{\"event\":\"session\"}
the kernel ran no program here: CLOSING→CLOSE of [127.0.0.1]:7878 [127.0.0.1]:40001 came on top of init
";
    const B: &str = "
---- ended::refused stdout ----

thread 'ended::refused' (24625) panicked at tests/src/run.rs:205:13:
waited in vain for connections to end; 2 lines, the last: None
note: it is not said that the kernel ran no program here: or so
";

    /// As Rust's test program prints it with --show-output: what a test that passed has printed is
    /// no evidence.
    fn output(failures: &[&str]) -> String {
        let names: Vec<&str> = failures
            .iter()
            .map(|it| it.split_whitespace().nth(1).unwrap())
            .collect();
        format!(
            "
running {total} tests
test ending::quoting ... ok
test {first} ... FAILED

successes:

---- ending::quoting stdout ----
{MARKER}quoted


successes:
    ending::quoting

failures:
{shown}

failures:
    {list}

test result: FAILED. 1 passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.20s
",
            total = 1 + names.len(),
            first = names[0],
            shown = failures.concat(),
            list = names.join("\n    "),
            failed = names.len(),
        )
    }

    fn read(output: &str, hidden: &mut Hidden) -> Tally {
        let mut tally = Tally::default();
        for line in output.lines() {
            hidden.read(line);
            tally.read(line);
        }
        tally
    }

    fn hidden(output: &str) -> Vec<String> {
        let mut hidden = Hidden::default();
        read(output, &mut hidden);
        hidden.names
    }

    /// Plays with this first output and this second one; gives the runs and the result.
    fn played(first: &str, second: &str) -> (Vec<String>, Tally, Vec<String>) {
        let runs = RefCell::new(vec![]);
        let run = |words: &[String], hidden: &mut Hidden| {
            runs.borrow_mut().push(words.join(" "));
            let output = [first, second][runs.borrow().len() - 1];
            Ok(read(output, hidden))
        };
        let mut said = vec![];
        let tally = play(&["ende".to_owned()], run, &mut said).unwrap();
        (runs.into_inner(), tally, said)
    }

    const PASSED: &str = "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured";
    const NOTHING: &str = "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured";

    #[test]
    fn a_failure_with_the_marker_is_found_and_no_other() {
        assert_eq!(hidden(&output(&[A])), ["ended::closed_by_both_at_once"]);
        assert!(hidden(&output(&[B])).is_empty());
        assert_eq!(hidden(&output(&[A, B])), ["ended::closed_by_both_at_once"]);
        assert_eq!(hidden(&output(&[B, A])), ["ended::closed_by_both_at_once"]);
    }

    #[test]
    fn it_is_played_again_and_the_second_result_counts() {
        // The package's other test programs have nothing to play.
        let second = format!("{NOTHING}\n{PASSED}\n{NOTHING}");
        let (runs, tally, said) = played(&output(&[A, B]), &second);
        assert_eq!(runs, ["ende", "--exact ended::closed_by_both_at_once"]);
        assert_eq!(tally.to_string(), "2 passed, 1 failed");
        let sentence = "played again, because this kernel ran no program while it was at init: \
                        ended::closed_by_both_at_once";
        assert_eq!(said, [sentence]);
    }

    #[test]
    fn what_fails_again_has_failed() {
        let second = PASSED.replace("1 passed; 0 failed", "0 passed; 1 failed");
        let (runs, tally, _) = played(&output(&[A]), &second);
        assert_eq!(
            (runs.len(), tally.to_string()),
            (2, "1 passed, 1 failed".into())
        );
    }

    #[test]
    fn what_was_not_played_again_has_failed() {
        for second in [NOTHING, &PASSED.replace("1 passed", "2 passed")] {
            let (_, tally, _) = played(&output(&[A]), second);
            assert_eq!(tally.to_string(), "1 passed, 1 failed");
        }
    }

    #[test]
    fn nothing_is_played_again_without_the_marker_or_when_too_many_have_it() {
        let (runs, tally, said) = played(&output(&[B]), PASSED);
        assert_eq!(
            (runs.len(), tally.to_string()),
            (1, "1 passed, 1 failed".into())
        );
        assert!(said.is_empty());
        let many: Vec<String> = (0..=MOST)
            .map(|n| A.replace("ended::", &format!("e{n}::")))
            .collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(played(&output(&many), PASSED).0.len(), 1);
        assert_eq!(played(&output(&many[1..]), PASSED).0.len(), 2);
    }

    #[test]
    fn the_scenarios_print_this_marker() {
        let source = include_str!("../../../tests/src/hole.rs");
        assert!(source.contains(&format!("const MARKER: &str = {MARKER:?};")));
    }
}
