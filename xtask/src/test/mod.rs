//! All checks and tests, and one line with the number that passed.
//!
//! A failed step does not hide later ones. Each step runs, and all failures are printed again at
//! the end.

mod counts;
mod failed;
mod rerun;
mod steps;
mod vms;

use std::{path::Path, process::Command, thread};

use anyhow::Result;
use clap::ValueEnum;

use self::steps::Steps;
use crate::{bench, cmd, dist, ebpf, packages, tcptrace, tidy, vm::Arch};

#[derive(clap::Args)]
pub struct Args {
    /// Install the packages that the tests need, Debian's and Python's
    #[arg(long)]
    install: bool,
    /// Run only one group of checks or tests
    #[arg(long, value_name = "GROUP")]
    only: Option<Group>,
    /// Run the scenarios in VMs with this processor only: x86_64 or aarch64
    #[arg(long, value_enum, hide_possible_values = true)]
    arch: Option<Arch>,
    /// Kernels of the VMs: 5.10, 6.1, 6.12, 6.18, `newest`, or `all`
    #[arg(long, value_name = "SERIES", value_delimiter = ',', default_values = ["6.1", "6.12"])]
    kernels: Vec<String>,
    /// Run all scenarios in the VMs, not only those about accept() (three quarters of an hour)
    #[arg(long)]
    thorough: bool,
    /// Attach methods for accept() in the VMs
    #[arg(
        long,
        value_name = "METHODS",
        value_delimiter = ',',
        default_values = ["fentry", "kprobe", "syscall"]
    )]
    attach: Vec<String>,
    /// Passed to the scenario tests: a part of their names, or an option of Rust's test program
    #[arg(last = true, value_name = "FILTER")]
    filter: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Group {
    /// Format, lints, the project's rules, the eBPF object against its source
    Checks,
    /// Tests of the pure parts
    Unit,
    /// tcptrace against the kernel of this machine, as root
    Scenarios,
    /// The scenarios in VMs with the kernels of --kernels
    Vms,
    /// The packages, each in a root directory of its own, as root
    Packages,
}

/// Returns whether everything passed.
pub fn run(root: &Path, args: &Args) -> Result<bool> {
    // A processor is emulated, so only the VMs have it.
    let only = args.only.or(args.arch.map(|_| Group::Vms));
    let wanted = |group| only.is_none_or(|only| only == group);
    // Unit tests run on any machine that can build this program.
    if args.only != Some(Group::Unit) {
        packages::ensure(root, args.install)?;
    }
    let mut steps = Steps::new();
    if wanted(Group::Checks) {
        checks(root, &mut steps);
    }
    if wanted(Group::Unit) {
        steps.tests(
            "unit tests",
            cmd::cargo(root).args(["test", "--no-fail-fast"]),
        );
    }
    if wanted(Group::Scenarios) {
        scenarios(root, &args.filter, &mut steps);
        if args.filter.is_empty() {
            steps.check("the benchmark in short", || bench::smoke(root));
        }
    }
    if wanted(Group::Vms) {
        vms::run(root, args, &mut steps);
    }
    if wanted(Group::Packages) && args.filter.is_empty() {
        steps.check("the Debian package in a fresh Debian 12", || {
            dist::proof::deb(root)
        });
        steps.check("the RPM", || dist::proof::rpm(root));
        steps.check("the static binary in an empty root", || {
            dist::proof::static_binary(root)
        });
    }
    Ok(steps.close())
}

fn checks(root: &Path, steps: &mut Steps) {
    steps.check("format", || {
        cmd::run(cmd::cargo(root).args(["fmt", "--all", "--check"]))
    });
    steps.check("clippy", || {
        let lints = ["--workspace", "--all-targets", "--", "-D", "warnings"];
        cmd::run(cmd::cargo(root).arg("clippy").args(lints))
    });
    steps.check("documentation of tcptrace-core", || {
        let mut doc = cmd::cargo(root);
        doc.args(["doc", "--package=tcptrace-core", "--no-deps"]);
        cmd::run(doc.env("RUSTDOCFLAGS", "-D warnings"))
    });
    steps.check("tidy", || tidy::run(root));
    steps.check("eBPF object against its source", || ebpf::prove(root));
}

/// Runs the scenarios on the kernel of this machine.
fn scenarios(root: &Path, filter: &[String], steps: &mut Steps) {
    let prepare = || Ok((tcptrace::build(root)?, cmd::sudo()?));
    let Some((tcptrace, sudo)) = steps.needed("release build", prepare) else {
        return;
    };
    // One scenario waits for a minute without using the CPU, hence one more thread than CPUs.
    let threads = 1 + thread::available_parallelism().map_or(1, Into::into);
    let tests = |words: &[String]| -> Command {
        let mut tests = cmd::cargo(root);
        tests
            .args([
                "test",
                "--no-fail-fast",
                "--release",
                "--package",
                "tests",
                "--",
            ])
            .args(words)
            .env("TCPTRACE_BIN", &tcptrace)
            .env("RUST_TEST_THREADS", threads.to_string());
        // cargo builds the tests as the user, and starts them as root.
        if let Some(sudo) = sudo {
            let runner = "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER";
            tests.env(runner, format!("{sudo} --preserve-env --"));
        }
        tests
    };
    steps.tests_with_rerun("scenarios on this kernel", filter, tests);
}
