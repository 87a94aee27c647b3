//! The scenarios in VMs: every kernel, every way to see accept().

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};

use super::{Args, steps::Steps, tally::Tally};
use crate::vm::{self, Job, Kernel, Programs};

/// A run takes about two minutes under emulation.
const PATIENCE: Duration = Duration::from_secs(900);

/// Runs the same scenario program in each VM, and tells the results again, a line each.
pub fn run(root: &Path, args: &Args, steps: &mut Steps) {
    let Some(programs) = steps.needed("static build for the VMs", || vm::scenarios(root)) else {
        return;
    };
    let all = args.kernels.iter().any(|kernel| kernel == "all");
    let kernels: Vec<&str> = match all {
        true => Kernel::all().collect(),
        false => args.kernels.iter().map(String::as_str).collect(),
    };
    let mut results = vec![];
    for series in kernels {
        let kernel = match Kernel::find(root, series) {
            Ok(kernel) => kernel,
            // Asked for by name it must be there; of all that exist, some may not be.
            Err(error) if all => {
                results.push(format!("{series:<5} SKIPPED: {error:#}"));
                continue;
            }
            Err(error) => {
                steps.needed(&format!("kernel {series}"), || Err::<(), _>(error));
                continue;
            }
        };
        for attach in &args.attach {
            let name = format!("Linux {series}, {attach}");
            let tally = steps.tallied(&name, || scenarios(root, &kernel, &programs, attach, args));
            let result = match tally {
                Some(tally) => tally.to_string(),
                None => "did not end".into(),
            };
            results.push(format!("{series:<5} {attach:<8} {result}"));
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
