//! The scenarios in VMs: on every kernel, with every attach method for accept().

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{Args, counts::Counts, failed::Failed, steps::Steps};
use crate::vm::{self, Arch, Job, Kernel, Programs};

/// Timeout of the scenarios in one VM. They take some minutes under emulation.
const TIMEOUT: Duration = Duration::from_secs(1200);

/// Scenarios that depend on the attach method for accept(). Under emulation a trace takes seconds to
/// start and to end, so all others run in VMs only with --thorough.
const ABOUT_ACCEPT: [&str; 9] = [
    "accepting::",
    "accept_calls::",
    "before_attach::",
    "io_uring::",
    "kernel_threads::",
    "listeners::",
    "loss::",
    "many_connections::",
    "races::",
];

/// Scenarios that depend on the kernel: they run with its first attach method only.
const ABOUT_THE_KERNEL: [&str; 5] = [
    "attach_methods::",
    "mptcp::",
    "user_reports::doctor::",
    "user_reports::kernel_counters::",
    "user_reports::skipped_probes::",
];

/// Scenarios of another processor than this machine's, unless it is asked for. They show that each
/// attach method reads the right registers, that no record is lost or out of order, and that the
/// verdicts hold.
const ON_ANOTHER_PROCESSOR: [&str; 5] = [
    "accept_calls::",
    "accepting::",
    "loss::",
    "many_connections::",
    "the_demo_shows",
];

/// Scenarios that run in one VM.
struct Mode<'a> {
    kernel: &'a Kernel,
    programs: &'a Programs,
    attach: &'a str,
    filter: Vec<String>,
}

/// Runs the same scenario program in each VM, and prints the results again, one line each.
pub fn run(root: &Path, args: &Args, steps: &mut Steps) {
    let archs = match args.arch {
        Some(arch) => vec![arch],
        None if args.filter.is_empty() => vec![Arch::X86_64, Arch::Aarch64],
        None => vec![Arch::X86_64],
    };
    let mut vms = vec![];
    for arch in archs {
        steps.check(
            &format!("hooks against the kernels of the {} VMs", arch.debian()),
            || {
                let kernels = args.kernels.clone();
                let (update, install) = (false, false);
                vm::facts::run(
                    root,
                    &vm::facts::Args {
                        arch,
                        install,
                        update,
                        kernels,
                    },
                )
            },
        );
        let prepare = || {
            let kernels = Kernel::choose(root, arch, &args.kernels)?;
            Ok((kernels, vm::scenarios(root, arch)?))
        };
        let name = format!("{} kernels, and programs for them", arch.debian());
        vms.extend(steps.needed(&name, prepare));
    }
    let mut modes = vec![];
    for (kernels, programs) in &vms {
        for kernel in kernels {
            let attach = args
                .attach
                .iter()
                .filter(|it| vm::facts::can_attach(kernel, it));
            modes.extend(attach.enumerate().map(|(n, attach)| Mode {
                kernel,
                programs,
                attach,
                filter: filter(args, kernel.arch, n == 0),
            }));
        }
    }
    let names: Vec<String> = modes
        .iter()
        .map(|mode| format!("Linux {} {}", mode.kernel.name(), mode.attach))
        .collect();
    let results = steps.side_by_side(&names, |n, failed| {
        scenarios(root, &names[n], &modes[n], failed)
    });
    println!("\nScenarios in VMs:");
    for (name, counts) in names.iter().zip(results) {
        let result = counts.map_or("did not end".into(), |counts| counts.to_string());
        println!("  {name:<26} {result}");
    }
}

/// Returns the scenarios of a mode; `is_first`: with the kernel's first attach method.
fn filter(args: &Args, arch: Arch, is_first: bool) -> Vec<String> {
    // A filter of the user replaces the selection.
    if !args.filter.is_empty() || args.thorough {
        return args.filter.clone();
    }
    let mut filter: Vec<&str> = vec![];
    if arch != Arch::X86_64 && args.arch.is_none() {
        filter.extend(ON_ANOTHER_PROCESSOR);
    } else {
        filter.extend(ABOUT_ACCEPT);
        if is_first {
            filter.extend(ABOUT_THE_KERNEL);
        }
    }
    filter.into_iter().map(str::to_owned).collect()
}

fn job(attach: &str, filter: &[String]) -> Job {
    let mut words = vec!["/bin/scenarios".into()];
    words.extend(filter.iter().map(Into::into));
    let mut environment = vec![
        "TCPTRACE_BIN=/bin/tcptrace".into(),
        format!("TCPTRACE_TEST_ARGS=--attach {attach}"),
    ];
    if std::env::var_os("TCPTRACE_TEST_RECORD").is_some() {
        environment.push("TCPTRACE_TEST_RECORD=1".into());
    }
    Job {
        words,
        environment,
        timeout: TIMEOUT,
    }
}

fn scenarios(root: &Path, name: &str, mode: &Mode<'_>, failed: &mut Failed) -> Result<Counts> {
    let job = job(mode.attach, &mode.filter);
    let mut counts = Counts::default();
    let code = vm::run(root, mode.kernel, mode.programs, &job, |line| {
        println!("{name}: {line}");
        counts.read(line);
        failed.read(line);
    })
    .with_context(|| format!("in the VM of {name}"))?;
    ensure!(
        code == 0 || counts.failed > 0,
        "the scenarios ended early, with exit code {code}"
    );
    ensure!(counts.passed + counts.failed > 0, "no test ran");
    Ok(counts)
}
