//! `tcptrace doctor`: what this kernel offers, what it costs, and what stays unseen.

mod stats;

use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use aya::util::KernelVersion;

use crate::capture::hooks::HOOKS;
use crate::capture::statistics::{Counting, ProgramStatistics};
use crate::capture::{Capture, Request, kernels, privilege, survey};
use crate::cli::Doctor;
use crate::exit;
use crate::run::kernel_release;

/// Loopback connections made to measure the programs.
const CONNECTIONS: u32 = 300;
/// System calls made to measure what bystanders pay: so many, so often.
const SYSCALLS: u32 = 10_000;
const ROUNDS: u32 = 10;

/// Prints the report; fails as a trace would fail, with the same exit codes.
pub async fn run(options: &Doctor) -> anyhow::Result<u8> {
    let report = match options.stats {
        Some(time) => stats::report(time, options.output).await?,
        None => examine().await?,
    };
    match io::stdout().write_all(report.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(exit::DONE),
    }
}

async fn examine() -> anyhow::Result<String> {
    let mut report = String::new();
    report += &format!(
        "tcptrace {} on Linux {}\n",
        env!("CARGO_PKG_VERSION"),
        kernel_release()
    );
    privilege::check()?;
    report += "\nHooks\n";
    for finding in survey()? {
        let refusal = finding
            .refusal
            .as_deref()
            .and_then(|text| text.lines().next());
        report += &format!(
            "  {:<20} {:<11} {} {}\n",
            finding.row.hook.name(),
            finding.carrier.name,
            match (refusal, finding.taken) {
                (None, true) => "taken    ",
                (None, false) => "works    ",
                (Some(_), _) => "refused: ",
            },
            refusal.unwrap_or(finding.carrier.via),
        );
    }
    for row in HOOKS {
        report += &format!("  {} shows {}\n", row.hook.name(), row.shows);
    }

    let mut lacking = kernels::lacking(KernelVersion::current().ok()).peekable();
    if lacking.peek().is_some() {
        report += "\nWhat newer kernels have\n";
    }
    for change in lacking {
        let (major, minor) = change.since;
        let (what, before) = (change.what, change.before);
        report += &format!("  {:<5} {what}; {before}\n", format!("{major}.{minor}"));
    }

    let before_ns = system_call_ns();
    let mut capture = Capture::start(&Request::default())?;
    let after_ns = system_call_ns();
    report += "\nNot seen on this kernel\n";
    for what in capture.unseen() {
        report += &format!("  - {what}\n");
    }
    report += "\nCost, by the kernel's own run-time statistics (which add about 50 ns a run)\n";
    match measure(&mut capture).await {
        Ok(costs) => {
            report += &stats::rows(&costs);
            report += match costs.iter().any(|it| it.program.starts_with("sys_")) {
                true => {
                    "  sys_enter and sys_exit run at every system call of the machine, the \
                     others only for TCP.\n"
                }
                false => "  All of them run only for TCP and at accept().\n",
            };
        }
        Err(error) => report += &format!("  not measured: {error:#}\n"),
    }
    report += &format!(
        "  Another system call, getppid(), took {before_ns} ns before the hooks were attached, and \
         {after_ns} ns with them.\n"
    );
    Ok(report)
}

/// How long a system call takes that has nothing to do with TCP, in nanoseconds: the quickest of
/// some rounds, which nothing else has disturbed.
fn system_call_ns() -> u128 {
    let rounds = (0..ROUNDS).map(|_| {
        let began = Instant::now();
        for _ in 0..SYSCALLS {
            // SAFETY: takes nothing and cannot fail.
            unsafe { libc::getppid() };
        }
        began.elapsed().as_nanos() / u128::from(SYSCALLS)
    });
    rounds.min().unwrap_or(0)
}

/// Runs connections under the kernel's statistics.
async fn measure(capture: &mut Capture) -> anyhow::Result<Vec<ProgramStatistics>> {
    let _counting = Counting::start()?;
    let load = tokio::task::spawn_blocking(load);
    capture.drain_until(load).await??;
    capture.run_statistics()
}

fn load() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    for _ in 0..CONNECTIONS {
        let client = TcpStream::connect(addr)?;
        let (server, _) = listener.accept()?;
        drop((client, server));
    }
    Ok(())
}
