//! The privileges that a trace keeps while it runs.

use std::io;
use std::path::PathBuf;

use anyhow::Context;
use rustix::thread::CapabilitySet;

use super::Tracing;
use crate::pipeline::priority;
use crate::privileges;
use crate::privileges::paths::Needs;

/// The privileges that the caller of a trace needs while it runs.
pub struct Needed {
    pub capabilities: CapabilitySet,
    /// Creates files in these folders.
    pub folders: Vec<PathBuf>,
    /// Connects by TCP.
    pub connects: bool,
}

impl Needed {
    pub const NOTHING: Needed = Needed {
        capabilities: CapabilitySet::empty(),
        folders: vec![],
        connects: false,
    };
}

impl Tracing {
    /// Gives up the privileges that the trace does not need any more. `needed` are those that the
    /// caller needs. Threads that are started later have no more.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn confine(&self, needed: Needed) -> anyhow::Result<()> {
        let keep = self.still_needed().context("cannot give up privileges")?;
        let needs = Needs {
            folders: self
                .handover
                .folder()
                .into_iter()
                .chain(needed.folders)
                .collect(),
            connects: needed.connects,
        };
        privileges::confine(keep | needed.capabilities, &needs)
    }

    /// Tries without capabilities what the trace does later.
    fn still_needed(&self) -> io::Result<CapabilitySet> {
        let counts = || self.capture.counters().is_ok();
        let trials = privileges::without(|| {
            [
                // Before Linux 5.19, bpf() with any command, see kernel.unprivileged_bpf_disabled.
                (CapabilitySet::BPF, counts()),
                // The priority of the pipeline.
                (CapabilitySet::SYS_NICE, priority::may_leave_idle()),
                // The next files of a recording.
                (CapabilitySet::DAC_OVERRIDE, self.handover.may_create()),
                (CapabilitySet::CHOWN, !self.handover.gives_files()),
            ]
        });
        let failed = trials?.into_iter().filter(|(_, works)| !works);
        Ok(failed.map(|(capability, _)| capability).collect())
    }
}
