//! The scenarios in VMs: on every kernel, with every attach method for accept().

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{Args, counts::Counts, failed::Failed, steps::Steps};
use crate::vm::{self, Job, Kernel, Programs};

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

/// Runs the same scenario program in each VM, and prints the results again, one line each.
pub fn run(root: &Path, args: &Args, steps: &mut Steps) {
    steps.check("hooks against the kernels of the VMs", || {
        vm::facts::run(root, &args.kernels)
    });
    let prepare = || Ok((Kernel::choose(root, &args.kernels)?, vm::scenarios(root)?));
    let Some((kernels, programs)) = steps.needed("kernels, and programs for them", prepare) else {
        return;
    };
    let modes = |kernel| args.attach.iter().map(move |attach| (kernel, attach));
    let modes: Vec<(&Kernel, &String)> = kernels.iter().flat_map(modes).collect();
    let names: Vec<String> = modes
        .iter()
        .map(|(kernel, attach)| format!("Linux {} {attach}", kernel.series))
        .collect();
    let results = steps.side_by_side(&names, |n, failed| {
        let (kernel, attach) = modes[n];
        let mut filter = args.filter.clone();
        // A filter of the user replaces this selection.
        if filter.is_empty() && !args.thorough {
            filter.extend(ABOUT_ACCEPT.map(str::to_owned));
            if Some(attach) == args.attach.first() {
                filter.extend(ABOUT_THE_KERNEL.map(str::to_owned));
            }
        }
        let job = job(attach, filter);
        scenarios(root, &names[n], kernel, &programs, &job, failed)
    });
    println!("\nScenarios in VMs:");
    for (name, counts) in names.iter().zip(results) {
        let result = counts.map_or("did not end".into(), |counts| counts.to_string());
        println!("  {name:<20} {result}");
    }
}

fn job(attach: &str, filter: Vec<String>) -> Job {
    let mut words = vec!["/bin/scenarios".into()];
    words.extend(filter.into_iter().map(Into::into));
    let mut environment = vec![
        "TCPTRACE_BIN=/bin/tcptrace".into(),
        "TCPTRACE_TEST_EMULATED=1".into(),
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

fn scenarios(
    root: &Path,
    name: &str,
    kernel: &Kernel,
    programs: &Programs,
    job: &Job,
    failed: &mut Failed,
) -> Result<Counts> {
    let mut counts = Counts::default();
    let code = vm::run(root, kernel, programs, job, |line| {
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
