//! The hook table: what each hook shows, how it can be attached, and what is unknown without it.
//!
//! Kernel versions do not decide. The methods of a hook are tried in order, and the first whose
//! programs load and attach is used. Loading is more reliable than feature probes.

mod inet_csk_accept;
mod inet_sock_set_state;
mod listen_overflow;
mod request_sock;
mod sched_process_exit;
mod sched_switch;
mod segment;
mod socket_iterator;
mod task_file_iterator;
mod tcp_reset;
mod tcp_retransmit;
mod timewait_sock;

#[cfg(test)]
mod tests;

use std::sync::{Mutex, PoisonError};

use anyhow::bail;
use aya::Ebpf;
use aya::programs::perf_event::{PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent};
use aya::programs::{
    BtfTracePoint, FEntry, FExit, Iter, KProbe, PerfEvent, ProgramError, RawTracePoint, TracePoint,
};
use aya::util::{KernelVersion, online_cpus};

use super::kernels;
use super::load::Kernel;
use super::request::Request;
use crate::event::Hook;

/// A hook of the table.
pub struct HookRow {
    pub hook: Hook,
    /// The events that the hook shows, for `doctor`.
    pub shows: &'static str,
    /// The information that is unknown without the hook, for `doctor` and the session line. `None`:
    /// tracing requires the hook.
    pub without: Option<&'static str>,
    /// The attach methods, in order of preference.
    pub methods: &'static [AttachMethod],
}

/// A way to attach the programs of a hook.
pub struct AttachMethod {
    /// The name in `--attach`, in `doctor` and in the session line.
    pub name: &'static str,
    /// How the method attaches, if its name covers several ways; else empty.
    pub via: &'static str,
    /// The prototype that the programs are written for: a function and its number of parameters, or
    /// a BTF tracepoint and its number of arguments.
    pub parameters: Option<(&'static str, usize)>,
    /// The programs in the order of attaching.
    pub programs: &'static [Program],
    /// Events that this method cannot show, for `doctor` and the session line.
    pub unseen: &'static [&'static str],
}

/// A program of the eBPF object with its attach point.
pub struct Program {
    /// The symbol in the object.
    pub name: &'static str,
    pub point: Point,
    /// If the kernel skips a run of the previous program in the list, this program does its work.
    /// Otherwise this program finds nothing to do.
    pub is_backup: bool,
    /// Events that are not seen if the program cannot be attached. `None`: the method requires the
    /// program.
    pub without: Option<&'static str>,
}

impl Program {
    const fn new(name: &'static str, point: Point) -> Program {
        Program {
            name,
            point,
            is_backup: false,
            without: None,
        }
    }

    const fn optional(name: &'static str, point: Point, without: &'static str) -> Program {
        Program {
            without: Some(without),
            ..Program::new(name, point)
        }
    }

    const fn backup(name: &'static str, point: Point) -> Program {
        Program {
            is_backup: true,
            ..Program::new(name, point)
        }
    }
}

pub enum Point {
    BtfTracepoint(&'static str),
    RawTracepoint(&'static str),
    /// A category and its tracepoints.
    Tracepoint(&'static str, &'static [&'static str]),
    Fentry(&'static str),
    Fexit(&'static str),
    /// A kprobe or a kretprobe, depending on the program.
    Kprobe(&'static str),
    /// The program runs when `capture/iterator.rs` reads it.
    Iterator(&'static str),
    /// A timer on each CPU, which runs [`SAMPLES_PER_SECOND`] times a second.
    CpuClock,
}

/// An odd number, so that the samples do not fall into step with work at a round frequency.
const SAMPLES_PER_SECOND: u64 = 199;

/// The kernel's function has a different number of parameters.
#[derive(Debug, thiserror::Error)]
#[error("{function} has {found} parameters here, not {expected}")]
pub struct OtherPrototype {
    pub function: &'static str,
    pub found: usize,
    pub expected: usize,
}

/// All hooks, in the order of `doctor`. They are attached in this order too, except for
/// [`Hook::SchedSwitch`]. The accept() hook comes before all hooks of sockets. An accept() whose
/// beginning it did not see is therefore older than every state change of the trace.
pub const HOOKS: &[HookRow] = &[
    inet_csk_accept::ROW,
    inet_sock_set_state::ROW,
    tcp_retransmit::SOCKETS,
    tcp_reset::ROW,
    tcp_retransmit::SYNACKS,
    request_sock::ROW,
    listen_overflow::ROW,
    segment::ROW,
    timewait_sock::ROW,
    sched_process_exit::ROW,
    socket_iterator::ROW,
    task_file_iterator::ROW,
    sched_switch::ROW,
    sched_switch::SAMPLES,
];

impl HookRow {
    /// Returns the option without which a trace does not attach this hook.
    pub fn option(hook: Hook) -> Option<&'static str> {
        match hook {
            Hook::Segment => Some("--segments"),
            Hook::SchedSwitch | Hook::CpuSample => Some("--why"),
            _ => None,
        }
    }

    /// Returns the hooks that a trace attaches, in the order of attaching. The accept() hook makes
    /// threads acceptors, so the hook of their scheduling comes before it.
    pub fn wanted(request: &Request) -> Vec<&'static HookRow> {
        let is_wanted = |row: &&HookRow| match HookRow::option(row.hook) {
            Some("--segments") => request.segments,
            Some(_) => request.why_ns.is_some(),
            None => true,
        };
        let mut rows: Vec<_> = HOOKS.iter().filter(is_wanted).collect();
        rows.sort_by_key(|row| row.hook != Hook::SchedSwitch);
        rows
    }

    /// Returns the attach methods to try under `--attach MODE`, or all without a mode.
    ///
    /// The mode names the method of the accept hook. It also excludes methods of the other hooks:
    /// `syscall` stands for a kernel without probes, and `kprobe` for one without BTF trampolines.
    /// With `fentry`, kprobes remain allowed for functions that have no trampoline.
    pub fn methods(&self, mode: Option<&str>) -> impl Iterator<Item = &'static AttachMethod> {
        let is_accept = self.hook == Hook::InetCskAccept;
        self.methods.iter().filter(move |method| {
            mode.is_none_or(|mode| match method.name {
                name if name == mode => true,
                "kprobe" => mode == "fentry" && !is_accept,
                "fentry" | "syscall" => false,
                _ => !is_accept,
            })
        })
    }
}

impl Point {
    /// Returns true if the kernel counts skipped runs of programs at this point.
    pub fn counts_misses(&self) -> bool {
        match self {
            Point::Kprobe(_) | Point::Tracepoint(..) => {
                kernels::KPROBE_MISSES.is_in(KernelVersion::current().ok())
            }
            // `bpf_overflow_handler`, kernel/events/core.c
            Point::CpuClock => false,
            _ => true,
        }
    }
}

impl AttachMethod {
    /// Loads and attaches all programs, or none. Returns what is not seen because an optional
    /// program could not be attached.
    ///
    /// # Errors
    /// The kernel's refusal of a required program.
    pub fn attach(&self, ebpf: &mut Ebpf, kernel: &Kernel) -> anyhow::Result<Vec<&'static str>> {
        if let Some((function, expected)) = self.parameters {
            let found = match self.name {
                "tp_btf" => kernel.own_btf.tracepoint_arguments(function),
                _ => kernel.own_btf.parameters(function),
            };
            match found {
                Some(found) if found == expected => {}
                Some(found) => bail!(OtherPrototype {
                    function,
                    found,
                    expected,
                }),
                None => bail!("this kernel has no {function}"),
            }
        }
        let is_fexit = |program: &Program| matches!(program.point, Point::Fexit(_));
        let mut needed = self.programs.iter().filter(|it| it.without.is_none());
        if needed.any(is_fexit) && !kernel.own_btf.has_struct("bpf_tramp_image") {
            bail!("this kernel frees the trampoline under a call that sleeps");
        }
        let mut unseen = vec![];
        for program in self.programs {
            match (program.attach(ebpf, &kernel.btf), program.without) {
                (Ok(()), _) => {}
                (Err(_), Some(without)) if unseen.contains(&without) => {}
                (Err(_), Some(without)) => unseen.push(without),
                (Err(error), None) => {
                    self.detach(ebpf);
                    return Err(error.into());
                }
            }
        }
        Ok(unseen)
    }

    /// Detaches and unloads the programs of this method.
    pub fn detach(&self, ebpf: &mut Ebpf) {
        for program in self.programs {
            if let Some(program) = ebpf.program_mut(program.name) {
                unload(program);
            }
        }
    }
}

impl Program {
    fn attach(&self, ebpf: &mut Ebpf, btf: &aya::Btf) -> Result<(), ProgramError> {
        let program = ebpf
            .program_mut(self.name)
            .ok_or(ProgramError::InvalidName {
                name: self.name.into(),
            })?;
        match self.point {
            Point::BtfTracepoint(name) => {
                let program: &mut BtfTracePoint = program.try_into()?;
                program.load(name, btf)?;
                program.attach()?;
            }
            Point::RawTracepoint(name) => {
                let program: &mut RawTracePoint = program.try_into()?;
                program.load()?;
                program.attach(name)?;
            }
            Point::Tracepoint(category, names) => {
                let program: &mut TracePoint = program.try_into()?;
                program.load()?;
                for name in names {
                    program.attach(category, name)?;
                }
            }
            Point::Fentry(function) => {
                let program: &mut FEntry = program.try_into()?;
                program.load(function, btf)?;
                program.attach()?;
            }
            Point::Fexit(function) => {
                let program: &mut FExit = program.try_into()?;
                program.load(function, btf)?;
                program.attach()?;
            }
            Point::Kprobe(function) => {
                let program: &mut KProbe = program.try_into()?;
                program.load()?;
                program.attach(function, 0)?;
            }
            Point::Iterator(kind) => {
                let program: &mut Iter = program.try_into()?;
                program.load(kind, btf)?;
            }
            Point::CpuClock => {
                let program: &mut PerfEvent = program.try_into()?;
                program.load()?;
                let cpus = online_cpus().map_err(|(_, error)| ProgramError::IOError(error))?;
                for cpu in cpus {
                    let scope = PerfEventScope::AllProcessesOneCpu { cpu };
                    let rate = SamplePolicy::Frequency(SAMPLES_PER_SECOND);
                    let event = PerfEventConfig::Software(SoftwareEvent::CpuClock);
                    program.attach(event, scope, rate, false)?;
                }
            }
        }
        Ok(())
    }
}

/// Detaches and unloads all programs in parallel. To detach one takes about a tenth of a second
/// without CPU time, until no CPU and no task can be running the program.
pub fn detach_all(ebpf: &mut Ebpf) {
    let loaded = ebpf.programs_mut().filter(|(_, it)| it.fd().is_ok());
    let loaded: Vec<_> = loaded.map(|(_, program)| program).collect();
    let threads = loaded.len().saturating_sub(1);
    let left = Mutex::new(loaded);
    let work = || {
        let next = || left.lock().unwrap_or_else(PoisonError::into_inner).pop();
        while let Some(program) = next() {
            unload(program);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            // If a thread cannot be started, this thread and the started ones do its work.
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
}

fn unload(program: &mut aya::programs::Program) {
    use aya::programs::Program;
    // The only possible error is "not loaded".
    let _ = match program {
        Program::BtfTracePoint(program) => program.unload(),
        Program::RawTracePoint(program) => program.unload(),
        Program::TracePoint(program) => program.unload(),
        Program::FEntry(program) => program.unload(),
        Program::FExit(program) => program.unload(),
        Program::KProbe(program) => program.unload(),
        Program::Iter(program) => program.unload(),
        Program::PerfEvent(program) => program.unload(),
        _ => Ok(()),
    };
}
