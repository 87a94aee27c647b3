//! Backs up a program of which the kernel has skipped runs, see `hooks/inet_sock_set_state.rs` of the
//! eBPF programs. A second program at a tracepoint costs as much as the first, so it comes when it is
//! needed: what was skipped by then is counted, and told of as missed.

use aya::Ebpf;
use aya::maps::Array;
use tcptrace_ebpf::abi::backup;

use super::Capture;
use super::hooks::Program;
use super::load::no_map;
use crate::event::Hook;
use crate::fields::HookCount;

impl Capture {
    /// Takes the backups of a hook on by a stage, if the kernel has skipped runs of its programs. To be
    /// called at intervals much longer than a program runs.
    ///
    /// Where the kernel refuses, skipped runs go on to be counted.
    pub fn back_up(&mut self, hook: Hook, count: &HookCount) {
        if count.recursion_misses.unwrap_or(0) > 0 || self.backup != backup::NONE {
            let _ = self.next_stage(hook);
        }
    }

    /// All stages at once, for tests.
    pub(super) fn back_up_now(&mut self, hook: Hook) -> anyhow::Result<()> {
        while self.backup != backup::ACTS {
            self.next_stage(hook)?;
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Ok(())
    }

    fn next_stage(&mut self, hook: Hook) -> anyhow::Result<()> {
        self.backup = match self.backup {
            backup::NONE => {
                // Not kept from the start: the kernel's types take tens of megabytes.
                let btf = aya::Btf::from_sys_fs()?;
                for program in self.backups(hook) {
                    program.attach(&mut self.ebpf, &btf)?;
                }
                backup::WATCHES
            }
            _ => backup::ACTS,
        };
        set_stage(&mut self.ebpf, self.backup)
    }

    fn backups(&self, hook: Hook) -> impl Iterator<Item = &'static Program> + use<> {
        let carrier = self.hooks.iter().find(|it| it.row.hook == hook);
        let programs = carrier.map_or(&[][..], |it| it.carrier.programs);
        programs.iter().filter(|program| program.is_backup)
    }
}

fn set_stage(ebpf: &mut Ebpf, stage: u32) -> anyhow::Result<()> {
    let map = ebpf.map_mut("BACKUP").ok_or_else(no_map)?;
    Ok(Array::try_from(map)?.set(0, stage, 0)?)
}
