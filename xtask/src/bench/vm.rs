//! The benchmark in a VM, on kernels that this machine does not have.

use std::{env, path::Path, time::Duration};

use anyhow::{Result, ensure};

use super::{
    Args,
    load::Load,
    rows::{ROWS, Row, Watcher, find},
};
use crate::vm::{Arch, Job, Kernel, run as run_vm, tcptrace_programs};

/// Runs the same command in a VM, with tcptrace and the other tools that are installed here.
pub fn run(root: &Path, series: &str, args: &Args) -> Result<()> {
    let kernel = Kernel::find(root, Arch::X86_64, series)?;
    let mut programs = tcptrace_programs(root, Arch::X86_64)?;
    programs.insert("xtask".into(), env::current_exe()?);
    let wanted = |row: &&Row| match args.only.is_empty() {
        true => !row.has_empty_programs(),
        false => args.only.iter().any(|it| it == row.name),
    };
    let mut only = vec![];
    for row in ROWS.iter().filter(wanted) {
        if let Watcher::Peer { program, .. } = row.watcher {
            let Some(path) = find(program) else { continue };
            programs.insert(program.into(), path);
        }
        only.push(row.name);
    }
    let loads = match args.load.is_empty() {
        true => vec![Load::Connections.name()],
        false => args.load.iter().map(|load| load.name()).collect(),
    };
    let words = [
        "/bin/xtask".to_owned(),
        "bench".into(),
        "--built=/bin".into(),
        format!("--rounds={}", args.rounds),
        format!("--connections={}", args.connections),
        format!("--only={}", only.join(",")),
        format!("--load={}", loads.join(",")),
    ];
    let job = Job {
        words: words.map(Into::into).to_vec(),
        environment: vec!["CARGO_MANIFEST_DIR=/tmp/xtask".into()],
        timeout: Duration::from_secs(1800),
    };
    let code = run_vm(root, &kernel, &programs, &job, |line| println!("{line}"))?;
    ensure!(
        code == 0,
        "the benchmark failed in the VM, with exit code {code}"
    );
    Ok(())
}
