//! Reruns scenarios that failed because the kernel hid something from tcptrace.
//!
//! A kernel may run no BPF program while its CPU runs a thread of init (ARCHITECTURE.md, "The
//! kernel skips programs"). A scenario that fails and has evidence of this prints a line that
//! begins with [`super::failed::MARKER`]. It is run once more, and its second result counts. No
//! other scenario is rerun.

use anyhow::Result;

use super::{counts::Counts, failed::Failed};

/// Upper bound on the scenarios that are rerun. One scenario in a few runs of all scenarios meets
/// the known gap, so more failures have another reason.
const MOST: usize = 3;

/// Runs the tests that `words` choose, and reruns those with evidence of the known gap. Adds a
/// sentence about them to `said`, and the final failures to `failed`.
pub fn run_with_rerun(
    words: &[String],
    run: impl Fn(&[String], &mut Failed) -> Result<Counts>,
    said: &mut Vec<String>,
    failed: &mut Failed,
) -> Result<Counts> {
    let first = run(words, failed)?;
    let hidden = failed.tests.iter().filter(|test| test.hidden);
    let names: Vec<String> = hidden.map(|test| test.name.clone()).collect();
    if names.is_empty() || names.len() > MOST {
        return Ok(first);
    }
    let sentence = format!(
        "run again, because this kernel ran no program while it was at init: {}",
        names.join(", ")
    );
    println!("\n{sentence}");
    said.push(sentence);
    let exactly = [&["--exact".to_owned()], &names[..]].concat();
    let mut failed_again = Failed::default();
    match run(&exactly, &mut failed_again) {
        Ok(second) if second.passed + second.failed == names.len() => {
            failed.tests.retain(|test| !test.hidden);
            failed.tests.append(&mut failed_again.tests);
            return Ok(first.corrected(second));
        }
        // The rerun did not run exactly these tests, so the first result counts.
        Ok(_) => {}
        Err(error) => println!("{error:#}"),
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::{super::failed::MARKER, *};

    const A: &str = "
---- closing::simultaneous stdout ----

thread 'closing::simultaneous' (24623) panicked at tests/src/witness.rs:288:9:
assertion `left == right` failed: tcptrace (left) differs from ftrace (right)
The trace (netns 7):
{\"event\":\"session\"}
the kernel ran no program here: CLOSING→CLOSE of [127.0.0.1]:7878 [127.0.0.1]:40001 came on top of init
";
    const B: &str = "
---- closing::refused stdout ----

thread 'closing::refused' (24625) panicked at tests/src/run.rs:205:13:
timed out waiting for connections to end; 2 lines, the last: None
note: it is not said that the kernel ran no program here: or so
";

    /// Builds the output of Rust's test program with --show-output. The marker in the output of a
    /// passed test is no evidence.
    fn output(failures: &[&str]) -> String {
        let names: Vec<&str> = failures
            .iter()
            .map(|it| it.split_whitespace().nth(1).unwrap())
            .collect();
        format!(
            "
running {total} tests
test trace_end::quoting ... ok
test {first} ... FAILED

successes:

---- trace_end::quoting stdout ----
{MARKER}quoted


successes:
    trace_end::quoting

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

    fn read(output: &str, failed: &mut Failed) -> Counts {
        let mut counts = Counts::default();
        for line in output.lines() {
            failed.read(line);
            counts.read(line);
        }
        counts
    }

    fn hidden(output: &str) -> Vec<String> {
        let mut failed = Failed::default();
        read(output, &mut failed);
        let hidden = failed.tests.into_iter().filter(|test| test.hidden);
        hidden.map(|test| test.name).collect()
    }

    /// The result of a first and a second output.
    struct Played {
        runs: Vec<String>,
        counts: Counts,
        said: Vec<String>,
        failed: Vec<String>,
    }

    fn played(first: &str, second: &str) -> Played {
        let runs = RefCell::new(vec![]);
        let run = |words: &[String], failed: &mut Failed| {
            runs.borrow_mut().push(words.join(" "));
            let output = [first, second][runs.borrow().len() - 1];
            Ok(read(output, failed))
        };
        let (mut said, mut failed) = (vec![], Failed::default());
        let counts = run_with_rerun(&["clos".to_owned()], run, &mut said, &mut failed).unwrap();
        Played {
            runs: runs.into_inner(),
            counts,
            said,
            failed: failed.tests.into_iter().map(|test| test.name).collect(),
        }
    }

    const PASSED: &str = "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured";
    const NOTHING: &str = "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured";

    #[test]
    fn only_failures_with_the_marker_are_selected() {
        assert_eq!(hidden(&output(&[A])), ["closing::simultaneous"]);
        assert!(hidden(&output(&[B])).is_empty());
        assert_eq!(hidden(&output(&[A, B])), ["closing::simultaneous"]);
        assert_eq!(hidden(&output(&[B, A])), ["closing::simultaneous"]);
    }

    #[test]
    fn the_second_result_of_a_rerun_test_counts() {
        // The package's other test programs have no test to run.
        let second = format!("{NOTHING}\n{PASSED}\n{NOTHING}");
        let played = played(&output(&[A, B]), &second);
        let runs = ["clos", "--exact closing::simultaneous"];
        assert_eq!(played.runs, runs);
        assert_eq!(played.counts.to_string(), "2 passed, 1 failed");
        let sentence = "run again, because this kernel ran no program while it was at init: \
                        closing::simultaneous";
        assert_eq!(played.said, [sentence]);
        assert_eq!(played.failed, ["closing::refused"]);
    }

    #[test]
    fn a_test_that_fails_twice_has_failed() {
        let second = output(&[A]).replace("1 passed; 1 failed", "0 passed; 1 failed");
        let played = played(&output(&[A]), &second);
        assert_eq!(played.runs.len(), 2);
        assert_eq!(played.counts.to_string(), "1 passed, 1 failed");
        assert_eq!(played.failed, ["closing::simultaneous"]);
    }

    #[test]
    fn a_test_that_was_not_rerun_has_failed() {
        for second in [NOTHING, &PASSED.replace("1 passed", "2 passed")] {
            let played = played(&output(&[A]), second);
            assert_eq!(played.counts.to_string(), "1 passed, 1 failed");
            assert_eq!(played.failed, ["closing::simultaneous"]);
        }
    }

    #[test]
    fn nothing_is_rerun_without_the_marker_or_with_too_many_failures() {
        let once = played(&output(&[B]), PASSED);
        assert_eq!(once.runs.len(), 1);
        assert_eq!(once.counts.to_string(), "1 passed, 1 failed");
        assert!(once.said.is_empty());
        let many: Vec<String> = (0..=MOST)
            .map(|n| A.replace("closing::", &format!("e{n}::")))
            .collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(played(&output(&many), PASSED).runs.len(), 1);
        assert_eq!(played(&output(&many[1..]), PASSED).runs.len(), 2);
    }

    #[test]
    fn the_scenarios_print_this_marker() {
        let source = include_str!("../../../tests/src/known_gap.rs");
        assert!(source.contains(&format!("const MARKER: &str = {MARKER:?};")));
    }
}
