//! The kernel's statistics of the eBPF programs: number of runs, run time and size.

use std::fs;
use std::os::fd::OwnedFd;

use anyhow::Context;
use aya::sys::{Stats, enable_stats};
use serde::Serialize;

use super::Capture;

/// The setting that enables the statistics for the whole machine, like bpf(BPF_ENABLE_STATS).
const SETTING: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// While this value exists, the kernel counts runs and run time of all eBPF programs of the
/// machine. Each program run takes about 50 ns longer.
pub struct Counting {
    /// `None` if an administrator has enabled the statistics permanently.
    _on: Option<OwnedFd>,
}

impl Counting {
    /// Enables the statistics.
    ///
    /// # Errors
    /// If the kernel refuses, for example without CAP_SYS_ADMIN.
    pub fn start() -> anyhow::Result<Counting> {
        let on = match enable_stats(Stats::RunTime) {
            Ok(on) => Some(on),
            Err(_) if fs::read_to_string(SETTING).is_ok_and(|it| it.trim() == "1") => None,
            Err(error) => {
                return Err(error).context("the kernel's run-time statistics cannot be turned on");
            }
        };
        Ok(Counting { _on: on })
    }
}

/// The kernel's statistics of one program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProgramStatistics {
    /// The program's symbol in the eBPF object.
    pub program: &'static str,
    /// The name of the program's hook.
    pub hook: &'static str,
    /// Number of runs while [`Counting`].
    pub runs: u64,
    /// Total time of these runs, in nanoseconds.
    pub run_time_ns: u64,
    /// Number of instructions that the verifier processed; null before Linux 5.16.
    pub verified_instructions: Option<u32>,
    /// Size of the machine code, in bytes.
    pub jitted_bytes: u32,
    /// Memory charged for the program without its maps, in bytes; null if the kernel does not
    /// report it.
    pub memory_bytes: Option<u32>,
}

impl ProgramStatistics {
    /// Returns the average time of a run in nanoseconds; `None` without a run.
    pub fn run_ns(&self) -> Option<u64> {
        self.run_time_ns.checked_div(self.runs)
    }
}

impl Capture {
    /// Returns the statistics of all attached programs.
    pub fn run_statistics(&self) -> anyhow::Result<Vec<ProgramStatistics>> {
        let programs = self.hooks.iter().flat_map(|hook| {
            let name = hook.row.hook.name();
            hook.method.programs.iter().map(move |it| (name, it.name))
        });
        programs
            .filter_map(|(hook, program)| {
                let loaded = self.ebpf.program(program)?;
                loaded.fd().ok()?;
                Some((hook, program, loaded))
            })
            .map(|(hook, program, loaded)| {
                let info = loaded.info()?;
                Ok(ProgramStatistics {
                    program,
                    hook,
                    runs: info.run_count(),
                    run_time_ns: info.run_time().as_nanos() as u64,
                    verified_instructions: info.verified_instruction_count(),
                    jitted_bytes: info.size_jitted(),
                    memory_bytes: info.memory_locked().ok(),
                })
            })
            .collect()
    }

    /// Drains and discards records until `until` completes, so that the programs run as in a trace.
    pub async fn drain_until<T>(&mut self, until: impl Future<Output = T>) -> T {
        tokio::pin!(until);
        loop {
            tokio::select! {
                over = &mut until => return over,
                () = self.ring.due() => while !self.ring.drain().1 {},
            }
        }
    }
}
