//! The kernel's own statistics of the programs: runs, their time, their size.

use std::fs;
use std::os::fd::OwnedFd;

use anyhow::Context;
use aya::sys::{Stats, enable_stats};
use serde::Serialize;

use super::Capture;

/// Turns them on for the whole machine, like bpf(BPF_ENABLE_STATS).
const SETTING: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Keeps the kernel counting runs and their time, of all eBPF programs of the machine. Each run
/// takes about 50 ns longer meanwhile.
pub struct Counting {
    /// `None` where an administrator has turned it on for good.
    _on: Option<OwnedFd>,
}

impl Counting {
    /// # Errors
    /// When the kernel does not allow it, which takes CAP_SYS_ADMIN.
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

/// What the kernel measured of one program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProgramStatistics {
    /// Its symbol in the eBPF object.
    pub program: &'static str,
    /// The hook that it belongs to.
    pub hook: &'static str,
    /// Runs while the kernel was [`Counting`].
    pub runs: u64,
    /// Time of all these runs together, in nanoseconds.
    pub run_time_ns: u64,
    /// Instructions that the verifier went through; null before Linux 5.16.
    pub verified_instructions: Option<u32>,
    /// Bytes of machine code.
    pub jitted_bytes: u32,
    /// Bytes of memory that the program is charged for, its maps not among them; null where the
    /// kernel does not say.
    pub memory_bytes: Option<u32>,
}

impl ProgramStatistics {
    /// Average time of a run, in nanoseconds; `None` for one that has not run.
    pub fn run_ns(&self) -> Option<u64> {
        self.run_time_ns.checked_div(self.runs)
    }
}

impl Capture {
    /// What the kernel has counted of each attached program.
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

    /// Takes the records away, unread, so that the programs go on as in a trace, until `until` is
    /// over.
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
