//! `tcptrace doctor`: reports what this kernel offers, what tracing costs, and what stays unknown.

mod privileges;
mod stats;
mod text;

use std::io;
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use aya::util::KernelVersion;
use serde::Serialize;

use self::privileges::Privileges;
use crate::capture::hooks::HOOKS;
use crate::capture::statistics::{Counting, ProgramStatistics};
use crate::capture::{Capture, CaptureError, Request, kernels, privilege};
use crate::cli::{Doctor, ReportForm};
use crate::event::Hook;
use crate::fields::FailedMethod;
use crate::stdio;
use crate::symbols;
use crate::tracing::kernel_release;

/// Number of loopback connections for measuring the programs.
const CONNECTIONS: u32 = 300;
/// Number of system calls a round, for measuring the cost to unrelated processes.
const SYSCALLS: u32 = 10_000;
const ROUNDS: u32 = 10;

/// Prints the report. Fails as a trace would, with the same exit codes.
pub async fn run(options: &Doctor) -> anyhow::Result<u8> {
    let report = match (options.stats, options.output) {
        (Some(time), form) => stats::report(time, form).await?,
        (None, ReportForm::Text) => examine(options.verbose).await?,
        (None, ReportForm::Json) => serde_json::to_string(&Examined::of(&attach()?))? + "\n",
    };
    Ok(stdio::code_of(stdio::print(report)))
}

/// Attaches the hooks of a trace with the same code, including those of `--segments` and `--why`.
fn attach() -> Result<Capture, CaptureError> {
    Capture::start(&Request {
        segments: true,
        why_ns: Some(0),
        ..Request::default()
    })
}

/// The features of this kernel; one object in JSON.
#[derive(Serialize)]
struct Examined {
    version: &'static str,
    kernel: String,
    hooks: Vec<Examination>,
    /// Events that a trace cannot show on this kernel.
    unseen: Vec<String>,
    privileges: Privileges,
    /// Capabilities of root that the process does not have, and that attaching may need.
    #[serde(skip)]
    lacking_capabilities: Vec<&'static str>,
}

/// A hook and how it is attached.
#[derive(Serialize)]
struct Examination {
    hook: Hook,
    /// The events that the hook shows.
    shows: &'static str,
    /// The attach method, as in `hooks` of the session line; null if the hook is not attached.
    method: Option<&'static str>,
    /// How the method attaches, if its name covers several ways; else empty.
    via: &'static str,
    /// Better attach methods that this kernel refused, as in `failed_methods` of the session line.
    failed_methods: Vec<FailedMethod>,
    /// The information that is unknown without the hook; null if it is attached.
    without: Option<&'static str>,
}

impl Examined {
    fn of(capture: &Capture) -> Examined {
        let attached = capture.hooks.iter().map(|it| Examination {
            hook: it.row.hook,
            shows: it.row.shows,
            method: Some(it.method.name),
            via: it.method.via,
            failed_methods: it.refused.clone(),
            without: None,
        });
        let absent = capture.absent.iter().map(|it| Examination {
            hook: it.row.hook,
            shows: it.row.shows,
            method: None,
            via: "",
            failed_methods: it.refused.clone(),
            without: it.row.without,
        });
        let mut hooks: Vec<Examination> = attached.chain(absent).collect();
        let place = |hook| HOOKS.iter().position(|row| row.hook == hook);
        hooks.sort_by_key(|it| place(it.hook));
        Examined {
            version: env!("CARGO_PKG_VERSION"),
            kernel: kernel_release(),
            hooks,
            unseen: [capture.unseen(), symbols::unseen()].concat(),
            privileges: Privileges::here(),
            lacking_capabilities: privilege::lacking(),
        }
    }
}

async fn examine(verbose: bool) -> anyhow::Result<String> {
    let before_ns = system_call_ns();
    let mut capture = attach()?;
    let after_ns = system_call_ns();
    let lacking: Vec<_> = kernels::lacking(KernelVersion::current().ok()).collect();
    let examined = Examined::of(&capture);
    let mut report = text::report(&examined, &lacking, verbose);
    report += &examined.privileges.text(verbose);
    if !verbose {
        return Ok(report);
    }
    report += "\nCost, by the kernel's own run-time statistics (which add about 50 ns a run)\n";
    match measure(&mut capture).await {
        Ok(costs) => {
            report += &stats::rows(&costs);
            report += "  Those of sched_switch and cpu_sample run for the whole machine, but only with \
                       --why.\n";
            report += match costs.iter().any(|it| it.program.starts_with("sys_")) {
                true => {
                    "  sys_enter and sys_exit run at every system call of the machine, the \
                     others only for TCP.\n"
                }
                false => "  The others run only for TCP and at accept().\n",
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

/// Returns the time of a system call that is unrelated to TCP, in nanoseconds. The minimum of
/// several rounds excludes disturbances.
fn system_call_ns() -> u128 {
    let rounds = (0..ROUNDS).map(|_| {
        let began = Instant::now();
        for _ in 0..SYSCALLS {
            // SAFETY: getppid takes no arguments and cannot fail.
            unsafe { libc::getppid() };
        }
        began.elapsed().as_nanos() / u128::from(SYSCALLS)
    });
    rounds.min().unwrap_or(0)
}

/// Opens and closes connections while the kernel counts the run time of the programs.
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
