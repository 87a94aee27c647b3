//! Runs steps in sequence, and collects their results.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::{
    counts::Counts,
    failed::{Failed, Test},
    rerun,
};
use crate::cmd;

pub struct Steps {
    total: Counts,
    /// The failed steps, printed again at the end.
    failures: Vec<String>,
    /// Each failed test with the beginning of its panic, printed again at the end.
    tests: Vec<Test>,
    /// The rerun tests with the reason, printed again at the end.
    reruns: Vec<String>,
}

impl Steps {
    pub fn new() -> Steps {
        Steps {
            total: Counts::default(),
            failures: Vec::new(),
            tests: Vec::new(),
            reruns: Vec::new(),
        }
    }

    /// Runs a step that counts as one test.
    pub fn check(&mut self, name: &str, check: impl FnOnce() -> Result<()>) {
        if self.timed(name, check).is_some() {
            self.total.passed += 1;
        }
    }

    /// Runs a step on which later ones depend. It counts only when it fails.
    pub fn needed<T>(&mut self, name: &str, make: impl FnOnce() -> Result<T>) -> Option<T> {
        self.timed(name, make)
    }

    /// Runs `cargo test`; each of its tests counts.
    pub fn tests(&mut self, name: &str, command: &mut Command) -> Option<Counts> {
        let mut failed = Failed::default();
        let counts = self.counted(name, || cargo_test(command, &mut failed));
        self.tests.append(&mut failed.tests);
        counts
    }

    /// Like [`tests`](Self::tests), for tests that the kernel may disturb, see [`rerun`]. `command`
    /// runs the tests that the words choose.
    pub fn tests_with_rerun(
        &mut self,
        name: &str,
        words: &[String],
        command: impl Fn(&[String]) -> Command,
    ) -> Option<Counts> {
        let run = |words: &[String], failed: &mut Failed| cargo_test(&mut command(words), failed);
        let (mut said, mut failed) = (Vec::new(), Failed::default());
        let counts = self.counted(name, || {
            rerun::run_with_rerun(words, run, &mut said, &mut failed)
        });
        self.reruns.append(&mut said);
        self.tests.append(&mut failed.tests);
        counts
    }

    /// Runs several groups of tests that mostly wait: at a time one more than there are CPUs. The
    /// results are in the order of the names. `run` gets the index of its group, and adds the
    /// failures.
    pub fn side_by_side(
        &mut self,
        names: &[String],
        run: impl Fn(usize, &mut Failed) -> Result<Counts> + Sync,
    ) -> Vec<Option<Counts>> {
        let next = AtomicUsize::new(0);
        let ended = Mutex::new(vec![]);
        thread::scope(|scope| {
            for _ in 0..=thread::available_parallelism().map_or(1, Into::into) {
                scope.spawn(|| {
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        let Some(name) = names.get(n) else { break };
                        println!("\n== {name}");
                        let start = Instant::now();
                        let mut failed = Failed::default();
                        let result = run(n, &mut failed);
                        let mut ended = ended.lock().expect("no panic");
                        ended.push((n, result, failed, start.elapsed()));
                    }
                });
            }
        });
        let mut ended = ended.into_inner().expect("no panic");
        ended.sort_by_key(|(n, ..)| *n);
        let ended = ended.into_iter().map(|(n, result, failed, took)| {
            self.tests.extend(failed.tests.into_iter().map(|mut test| {
                test.name = format!("{} ({})", test.name, names[n]);
                test
            }));
            let counts = self.report(&names[n], result, took);
            self.count(&names[n], counts);
            counts
        });
        ended.collect()
    }

    /// Runs a function that runs and counts tests.
    fn counted(&mut self, name: &str, run: impl FnOnce() -> Result<Counts>) -> Option<Counts> {
        let counts = self.timed(name, run);
        self.count(name, counts);
        counts
    }

    fn count(&mut self, name: &str, counts: Option<Counts>) {
        let Some(counts) = counts else { return };
        if counts.failed > 0 {
            self.failures
                .push(format!("{name}: {} failed", counts.failed));
        }
        self.total += counts;
    }

    /// Prints all failures, and the line with the counts. Returns whether all passed.
    pub fn close(self) -> bool {
        println!();
        for sentence in &self.reruns {
            println!("{sentence}");
        }
        for test in &self.tests {
            println!("FAILED test {}", test.name);
            for line in &test.panic {
                println!("    {line}");
            }
        }
        for failure in &self.failures {
            println!("FAILED {failure}");
        }
        println!("{}", self.total);
        self.total.failed == 0
    }

    fn timed<T>(&mut self, name: &str, step: impl FnOnce() -> Result<T>) -> Option<T> {
        println!("\n== {name}");
        let start = Instant::now();
        let result = step();
        self.report(name, result, start.elapsed())
    }

    fn report<T>(&mut self, name: &str, result: Result<T>, took: Duration) -> Option<T> {
        println!("-- {name}: {:.1} s", took.as_secs_f32());
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                println!("FAILED {name}: {error:#}");
                self.failures.push(format!("{name}: {error:#}"));
                self.total.failed += 1;
                None
            }
        }
    }
}

/// Prints the output of `cargo test` as it comes, and counts its tests. `failed` gets the tests that
/// fail. A run without any test is an error. A run that fails without a failed test, such as one
/// that does not compile, is an error as well.
fn cargo_test(command: &mut Command, failed: &mut Failed) -> Result<Counts> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", cmd::line(command)))?;
    let stdout = child.stdout.take().context("no pipe to cargo")?;
    let mut counts = Counts::default();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        counts.read(&line);
        failed.read(&line);
    }
    let status = child.wait()?;
    ensure!(
        status.success() || counts.failed > 0,
        "`{}` ended early: {status}",
        cmd::line(command)
    );
    ensure!(
        counts.passed + counts.failed > 0,
        "`{}` ran no test",
        cmd::line(command)
    );
    Ok(counts)
}
