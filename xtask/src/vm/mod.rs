//! Other kernels, in QEMU under software emulation.
//!
//! A VM consists of a Debian kernel and an initramfs. The initramfs has an init of our own
//! (tests/src/bin/vm-init.rs), some kernel modules, the programs with their libraries, and the job,
//! one word per line. The init loads the modules, mounts the file systems, starts the job, prints
//! `vm-exit: N` on the serial console and powers off.
//!
//! There is no disk, no network and no shared folder. All output goes to that console. A boot takes
//! about three seconds.

mod apt;
mod arch;
mod build;
mod cross;
pub mod facts;
mod initramfs;
mod kernel;
mod known;
mod machine;
mod prototypes;

use std::{
    ffi::OsString,
    io::{self, IsTerminal as _},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Result, ensure};

use crate::cmd;

pub use self::arch::Arch;
pub use self::build::{Programs, scenarios, tcptrace as tcptrace_programs};
pub use self::kernel::Kernel;
pub use self::machine::{Job, run};

#[derive(clap::Args)]
pub struct Args {
    /// Processor: x86_64 or aarch64
    #[arg(long, value_enum, hide_possible_values = true, default_value_t = Arch::X86_64)]
    arch: Arch,
    /// Kernel series: 5.10, 6.1, 6.12, 6.18 or `newest`; on aarch64 also with `-16k`, for pages of
    /// 16 KiB
    #[arg(long, value_name = "VERSION", default_value = "6.12")]
    kernel: String,
    /// Give up after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
    /// tcptrace's command line
    #[arg(last = true, value_name = "ARGS")]
    args: Vec<OsString>,
}

/// Returns an error if a program is missing that starts a VM or unpacks its kernel. A check before the
/// kernel is downloaded saves the download.
pub fn ensure_programs(arch: Arch) -> Result<()> {
    let missing = |program: &&str| !cmd::is_installed(program);
    let programs = arch.programs().iter().copied();
    let missing: Vec<&str> = programs.filter(missing).collect();
    ensure!(
        missing.is_empty(),
        "a VM needs {}: sudo apt-get install {}",
        missing.join(" and "),
        arch.packages().join(" ")
    );
    Ok(())
}

/// Runs tcptrace in a VM. Returns tcptrace's exit code.
pub fn tcptrace(root: &Path, args: &Args) -> Result<ExitCode> {
    ensure_programs(args.arch)?;
    let kernel = Kernel::find(root, args.arch, &args.kernel)?;
    let programs = build::tcptrace(root, args.arch)?;
    let mut words = vec!["/bin/tcptrace".into()];
    words.extend_from_slice(&args.args);
    // For tcptrace the serial console is a terminal, wherever its output goes from there.
    let environment = match io::stdout().is_terminal() {
        true => vec![],
        false => vec!["NO_COLOR=1".into()],
    };
    let job = Job {
        words,
        environment,
        timeout: Duration::from_secs(args.timeout),
    };
    let code = run(root, &kernel, &programs, &job, |line| println!("{line}"))?;
    Ok(ExitCode::from(code))
}
