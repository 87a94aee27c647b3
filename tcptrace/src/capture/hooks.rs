//! The hook table: what each hook shows, what can carry it, and what is unknown without it.
//!
//! A plan is not computed from kernel versions: carriers are tried in order, and the first whose
//! programs load and attach is taken (feature probes lie, loading does not).

mod inet_csk_accept;
mod inet_sock_set_state;
mod listen_overflow;
mod request_sock;
mod sched_process_exit;
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
use aya::programs::{
    BtfTracePoint, FEntry, FExit, Iter, KProbe, ProgramError, RawTracePoint, TracePoint,
};
use aya::util::KernelVersion;

use super::kernels;
use super::load::Kernel;
use super::request::Request;
use crate::event::Hook;

/// One hook.
pub struct HookRow {
    pub hook: Hook,
    /// What it shows, for `doctor`.
    pub shows: &'static str,
    /// What is unknown without it, for `doctor` and the session line; `None`: nothing works
    /// without it.
    pub without: Option<&'static str>,
    /// In order of preference.
    pub carriers: &'static [Carrier],
}

/// A way to run programs at a hook.
pub struct Carrier {
    /// As named by `--attach`, in `doctor` and in the session line.
    pub name: &'static str,
    /// How it attaches, where one name has several ways; else empty.
    pub via: &'static str,
    /// The prototype its programs are written for: a function and its number of parameters, or a
    /// BTF tracepoint's and its number of arguments.
    pub parameters: Option<(&'static str, usize)>,
    /// Attached in this order.
    pub programs: &'static [Program],
    /// What it cannot see, for `doctor` and the session line.
    pub unseen: &'static [&'static str],
}

/// A program of the eBPF object and where it goes.
pub struct Program {
    /// Its symbol in the object.
    pub name: &'static str,
    pub point: Point,
    /// Makes up for runs of the program before it that the kernel skips. Where the kernel skips
    /// none it finds nothing to do.
    pub is_backup: bool,
    /// The hook does without it where it cannot be attached; this is what is not seen then.
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
    /// A category, and its tracepoints.
    Tracepoint(&'static str, &'static [&'static str]),
    Fentry(&'static str),
    Fexit(&'static str),
    /// Entry or return, as the program was built.
    Kprobe(&'static str),
    /// Runs when `capture/iterator.rs` reads it.
    Iterator(&'static str),
}

/// The carrier's programs are written for another prototype than this kernel's.
#[derive(Debug, thiserror::Error)]
#[error("{function} has {found} parameters here, not {expected}")]
pub struct OtherPrototype {
    pub function: &'static str,
    pub found: usize,
    pub expected: usize,
}

/// Accept comes first: every accept() that has begun when the last hook is attached is then known
/// to be older than any transition of the trace.
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
];

impl HookRow {
    /// Whether a trace attaches it: segments only when they are asked for.
    pub fn is_wanted(&self, request: &Request) -> bool {
        self.hook != Hook::Segment || request.segments
    }

    /// The carriers to try under `--attach MODE`; all of them when the choice is free.
    ///
    /// The mode names the accept hook's carrier. Of the other hooks it takes the probes that it
    /// excludes: `syscall` is how a kernel without probes is traced, and `kprobe` one without BTF
    /// trampolines. One with trampolines has not got them for each function, and kprobes do then.
    pub fn carriers(&self, mode: Option<&str>) -> impl Iterator<Item = &'static Carrier> {
        let is_accept = self.hook == Hook::InetCskAccept;
        self.carriers.iter().filter(move |carrier| {
            mode.is_none_or(|mode| match carrier.name {
                name if name == mode => true,
                "kprobe" => mode == "fentry" && !is_accept,
                "fentry" | "syscall" => false,
                _ => !is_accept,
            })
        })
    }
}

impl Point {
    /// Whether the kernel counts the runs that it skips.
    pub fn counts_misses(&self) -> bool {
        match self {
            Point::Kprobe(_) | Point::Tracepoint(..) => {
                kernels::KPROBE_MISSES.is_in(KernelVersion::current().ok())
            }
            _ => true,
        }
    }
}

impl Carrier {
    /// Loads and attaches all programs, or none. Gives what is not seen because a program that the
    /// hook can do without cannot be attached.
    ///
    /// # Errors
    /// What the kernel says against it.
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

    /// Detaches what is attached and unloads what is loaded.
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
        }
        Ok(())
    }
}

/// Detaches and unloads every program, all at the same time: each waits for the kernel until no
/// CPU and no task can be in it any more, which takes a tenth of a second and costs nothing.
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
            // Where there can be no more threads, the others do it.
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
}

fn unload(program: &mut aya::programs::Program) {
    use aya::programs::Program;
    // The only error is "not loaded".
    let _ = match program {
        Program::BtfTracePoint(program) => program.unload(),
        Program::RawTracePoint(program) => program.unload(),
        Program::TracePoint(program) => program.unload(),
        Program::FEntry(program) => program.unload(),
        Program::FExit(program) => program.unload(),
        Program::KProbe(program) => program.unload(),
        Program::Iter(program) => program.unload(),
        _ => Ok(()),
    };
}
