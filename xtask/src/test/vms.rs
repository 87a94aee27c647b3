//! The scenarios in VMs: every kernel, every way to see accept().

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{Args, steps::Steps, tally::Tally};
use crate::vm::{self, Job, Kernel, Programs};

/// A run takes about two minutes under emulation.
const PATIENCE: Duration = Duration::from_secs(900);

/// Runs the same scenario program in each VM, and tells the results again, a line each.
pub fn run(root: &Path, args: &Args, steps: &mut Steps) {
    steps.check("hooks against the kernels of the VMs", || {
        vm::facts::run(root, &args.kernels)
    });
    let prepare = || Ok((Kernel::choose(root, &args.kernels)?, vm::scenarios(root)?));
    let Some((kernels, programs)) = steps.needed("kernels, and a static build", prepare) else {
        return;
    };
    let mut results = vec![];
    for kernel in &kernels {
        for attach in &args.attach {
            let name = format!("Linux {}, {attach}", kernel.series);
            let tally = steps.tallied(&name, || scenarios(root, kernel, &programs, attach, args));
            let result = tally.map_or("did not end".into(), |tally| tally.to_string());
            results.push(format!("{:<5} {attach:<8} {result}", kernel.series));
        }
    }
    println!("\nScenarios in VMs:");
    for result in results {
        println!("  {result}");
    }
}

fn scenarios(
    root: &Path,
    kernel: &Kernel,
    programs: &Programs,
    attach: &str,
    args: &Args,
) -> Result<Tally> {
    let mut words = vec!["/bin/scenarios".into()];
    words.extend(args.filter.iter().map(Into::into));
    let job = Job {
        words,
        environment: vec![
            "TCPTRACE_BIN=/bin/tcptrace".into(),
            format!("TCPTRACE_TEST_ARGS=--attach {attach}"),
        ],
        timeout: PATIENCE,
    };
    let mut tally = Tally::default();
    let ended = vm::run(root, kernel, programs, &job, |line| {
        println!("{line}");
        tally.read(line);
    })
    .with_context(|| format!("in the VM, by {attach}"))?;
    println!("the VM ran for {:.0} s", ended.took.as_secs_f32());
    ensure!(
        ended.code == 0 || tally.failed > 0,
        "the scenarios ended early, with exit code {}",
        ended.code
    );
    ensure!(tally.passed + tally.failed > 0, "no test ran");
    Ok(tally)
}
