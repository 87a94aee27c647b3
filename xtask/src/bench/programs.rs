//! The kernel's statistics of each eBPF program under the load.

use std::{
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::load::{self, Load};
use crate::process::spawn;

/// One program in the output of `tcptrace doctor --stats -o json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Program {
    pub program: String,
    pub runs: u64,
    /// Nanoseconds of all runs together, including the cost of measuring.
    pub run_time_ns: u64,
    pub verified_instructions: Option<u32>,
    pub jitted_bytes: u32,
    pub memory_bytes: Option<u64>,
}

#[derive(Deserialize)]
struct Statistics {
    programs: Vec<Program>,
}

/// Measures the eBPF programs by the kernel's run-time statistics, under a load of its own. The
/// statistics cost time at each program run, so they are off while the rows are measured.
pub fn measure(tcptrace: &Path, connections: u32) -> Result<Vec<Program>> {
    let mut doctor = Command::new(tcptrace);
    doctor
        .args(["doctor", "-o", "json", "--stats=2s"])
        .stdout(Stdio::piped());
    let mut doctor = spawn(&mut doctor)?;
    while doctor.try_wait()?.is_none() {
        load::play(Load::Connections, connections / 10)?;
    }
    let mut said = String::new();
    if let Some(mut stdout) = doctor.stdout.take() {
        stdout.read_to_string(&mut said)?;
    }
    let statistics: Statistics = serde_json::from_str(&said)
        .context("cannot parse the output of tcptrace doctor --stats")?;
    Ok(statistics.programs)
}

impl Program {
    /// Nanoseconds per run; `None` if the program has not run.
    pub fn ns(&self) -> Option<f64> {
        (self.runs > 0).then(|| self.run_time_ns as f64 / self.runs as f64)
    }
}
