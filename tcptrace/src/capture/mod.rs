//! The interface to the kernel: loads and attaches the programs, and drains their records.

pub mod btf;
mod containers;
pub mod counters;
mod error;
mod filter;
pub mod holders;
pub mod hooks;
pub mod iterator;
pub mod kernels;
mod links;
mod load;
pub mod pids;
mod positions;
pub mod privilege;
mod refusal;
mod request;
pub mod ring;
pub mod statistics;
pub(crate) mod tracefs;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd, RawFd};

use aya::Ebpf;
use aya::maps::{MapData, PerCpuArray};
use aya_log::EbpfLogger;
use tcptrace_ebpf::abi;

use crate::balance::Counts;
use crate::cgroups;
use crate::clock::mono_now_ns;
use crate::event::Hook;
use crate::fields;
use crate::privileges::{self, Lookups};
use crate::stdio::say;

use containers::Followed;
use error::no_map;
pub use error::{CaptureError, os_error};
use hooks::{AttachMethod, HookRow};
use iterator::Snapshot;
use load::{Kernel, Loaded, load};
pub use pids::Numbers;
use refusal::Refusal;
pub use request::{RING_BYTES, Request};
use ring::Ring;

/// Limits on every kernel: no hook can show these.
const NEVER_SEEN: &[&str] = &[
    "a connect() that fails before its SYN is sent, as without a route or with a wrong source \
     address: no socket changes its state",
    "that two connections are the ends of one whose addresses are translated on the way (NAT)",
];

/// A hook with its attach method.
pub struct Attached {
    pub row: &'static HookRow,
    pub method: &'static AttachMethod,
    /// Better methods that this kernel refused, with short reasons. Empty if the method was forced.
    pub refused: Vec<fields::FailedMethod>,
    /// Events that the hook cannot show on this kernel, besides the method's `unseen`.
    pub unseen: Vec<&'static str>,
}

/// A hook that could not be attached.
pub struct Absent {
    pub row: &'static HookRow,
    pub refused: Vec<fields::FailedMethod>,
}

/// The attached programs. Detaches them on drop.
pub struct Capture {
    ebpf: Ebpf,
    /// The log of the diagnostics object. The ordinary object has none.
    log: Option<EbpfLogger<ToStderr>>,
    pub ring: Ring,
    pub hooks: Vec<Attached>,
    pub absent: Vec<Absent>,
    /// The values of this kernel's `enum sk_rst_reason`. Empty before Linux 6.10.
    pub reset_reasons: BTreeMap<u32, String>,
    /// When the last hook was attached (CLOCK_MONOTONIC, nanoseconds).
    pub attached_ns: u64,
    /// The links of kprobes with the names of their programs, see [`links`].
    probes: Vec<(&'static str, RawFd)>,
    /// The containers of the filter; `None` if it has none.
    followed: Option<Followed>,
}

impl Capture {
    /// Loads the programs and attaches all hooks. Requires a tokio runtime.
    ///
    /// # Errors
    /// Missing privileges, a kernel without a required feature, or any other failure.
    pub fn start(request: &Request) -> Result<Capture, CaptureError> {
        privilege::check()?;
        let (request, followed) = containers::resolve(request)?;
        let Loaded {
            mut ebpf,
            kernel,
            ring,
            positions,
        } = load(&request)?;
        let log = EbpfLogger::init_with_logger(&mut ebpf, ToStderr).ok();
        let ring = Ring::new(ring, positions).map_err(anyhow::Error::new)?;
        filter::fill(&mut ebpf, &request.filter)?;

        let (mut attached, mut absent) = (vec![], vec![]);
        for row in HookRow::wanted(&request) {
            let mut methods: Vec<_> = row.methods(request.mode.as_deref()).collect();
            if let Some(wanted) = &request.state_method
                && (row.hook == Hook::InetSockSetState
                    || methods.iter().any(|it| it.name == wanted))
            {
                methods.retain(|method| method.name == wanted);
            }
            match attach(row, &methods, &mut ebpf, &kernel) {
                Ok(hook) => attached.push(hook),
                // Running out of descriptors says nothing about the kernel, so the hook must not
                // count as missing.
                Err(mut refused) if refused.last().is_some_and(Refusal::is_out_of_descriptors) => {
                    let last = refused.pop().map(|it| it.error);
                    return Err(CaptureError::Failed(last.unwrap_or_else(no_map)));
                }
                Err(refused) if row.without.is_some() => absent.push(Absent {
                    row,
                    refused: refusal::for_session(&refused),
                }),
                Err(refused) => return Err(impossible(row, &refused)),
            }
        }
        let reset_reasons = kernel.own_btf.enumerators("sk_rst_reason");
        drop(kernel);
        give_back_memory();
        let probes = probes(&ebpf, &attached);
        Ok(Capture {
            ebpf,
            log,
            ring,
            hooks: attached,
            absent,
            reset_reasons,
            attached_ns: mono_now_ns(),
            probes,
            followed,
        })
    }

    /// Prints the log records of the diagnostics object.
    pub fn print_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.flush();
        }
    }

    /// Returns the name of the attach method of each hook; `None` if it is not attached.
    pub fn methods(&self) -> BTreeMap<Hook, Option<String>> {
        let attached = self.hooks.iter();
        let attached = attached.map(|it| (it.row.hook, Some(it.method.name.to_owned())));
        let absent = self.absent.iter().map(|it| (it.row.hook, None));
        attached.chain(absent).collect()
    }

    /// Returns the refused methods of each hook, with reasons.
    pub fn refused(&self) -> BTreeMap<Hook, Vec<fields::FailedMethod>> {
        let attached = self.hooks.iter().map(|it| (it.row.hook, &it.refused));
        let absent = self.absent.iter().map(|it| (it.row.hook, &it.refused));
        let all = attached.chain(absent);
        all.map(|(hook, refused)| (hook, refused.clone())).collect()
    }

    /// Returns descriptions of what this capture cannot show.
    pub fn unseen(&self) -> Vec<String> {
        let partly = self.hooks.iter();
        let partly = partly.flat_map(|hook| hook.method.unseen.iter().chain(&hook.unseen));
        let wholly = self.absent.iter().filter_map(|it| it.row.without.as_ref());
        let containers = cgroups::unseen();
        let privileges = privileges::unseen(privileges::effective());
        let all = partly.chain(wholly).chain(NEVER_SEEN);
        let all = all.chain(&containers).chain(&privileges);
        all.map(|&what| what.to_owned()).collect()
    }

    /// Returns the counters of the kernel programs, summed over all CPUs.
    pub fn counters(&self) -> anyhow::Result<Vec<(Hook, Counts)>> {
        let map = self.ebpf.map("COUNTERS").ok_or_else(no_map)?;
        let rows: PerCpuArray<&MapData, [u64; 5]> = PerCpuArray::try_from(map)?;
        let mut counts = vec![];
        for attached in &self.hooks {
            let mut count = Counts::default();
            // Read the skipped runs before the counter `recovered`: a backup program runs
            // immediately after a skipped run of the main program.
            let misses = self.recursion_misses(attached.method);
            let mut recovered = 0;
            for cpu in rows.get(&index_of(attached.row.hook), 0)?.iter() {
                let counters: abi::Counters = zerocopy::transmute!(*cpu);
                count.seen += counters.admitted + counters.filtered;
                count.filtered += counters.filtered;
                count.lost += counters.lost;
                count.lost_calls += counters.lost_calls;
                recovered += counters.recovered;
            }
            count.recursion_misses = misses.map(|misses| misses.saturating_sub(recovered));
            counts.push((attached.row.hook, count));
        }
        Ok(counts)
    }

    /// Returns the number of eBPF program runs that the kernel skipped because the program, or
    /// another kprobe, was already running on that CPU. The counts are in the program's fdinfo and
    /// in the probe's link.
    ///
    /// `None` if fdinfo does not have `recursion_misses`, or if no program is attached.
    fn recursion_misses(&self, method: &AttachMethod) -> Option<u64> {
        let mut total = None;
        // Backups are not counted: a backup is only skipped if the main program has run.
        for program in method.programs.iter().filter(|program| !program.is_backup) {
            use std::os::fd::AsRawFd;
            if !program.point.counts_misses() {
                return None;
            }
            let Ok(fd) = self.ebpf.program(program.name)?.fd() else {
                continue;
            };
            let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
            let info = std::fs::read_to_string(path).ok()?;
            let misses = info
                .lines()
                .find_map(|line| line.strip_prefix("recursion_misses:"))?;
            let probes = self.probes.iter().filter(|(name, _)| *name == program.name);
            let missed: u64 = probes.filter_map(|(_, link)| links::missed(*link)).sum();
            total = Some(total.unwrap_or(0) + missed + misses.trim().parse::<u64>().ok()?);
        }
        total
    }

    /// Adds the filter's containers that have started since the last search.
    pub fn follow_containers(&mut self, lookups: &Lookups) {
        if let Some(followed) = &mut self.followed {
            followed.follow(&mut self.ebpf, lookups);
        }
    }

    /// Reads the ids under which /proc shows processes.
    pub fn numbers(&mut self) -> Numbers {
        Numbers::read(|| self.numbers_here())
    }

    /// Returns the kernel's ids of the processes in this PID namespace, by their ids here.
    fn numbers_here(&mut self) -> Option<BTreeMap<u32, u32>> {
        let has_iterator = self.has(Hook::TaskFileIterator);
        has_iterator.then(|| holders::numbers(&mut self.ebpf).ok())?
    }

    /// Translates process ids of /proc to the kernel's ids.
    ///
    /// # Errors
    /// If an id cannot be translated in this PID namespace.
    pub fn kernels_pids(&mut self, pids: &[u32]) -> Result<Vec<u32>, CaptureError> {
        pids::translate(pids, || self.numbers_here())
    }

    fn has(&self, hook: Hook) -> bool {
        self.hooks.iter().any(|it| it.row.hook == hook)
    }

    /// Searches for the owners of sockets; `None` if the kernel has no task_file iterator.
    pub fn holders(&mut self) -> Option<holders::SocketOwners> {
        self.has(Hook::TaskFileIterator)
            .then(|| holders::find(&mut self.ebpf).ok())
            .flatten()
    }

    /// Takes snapshots of these network namespaces, or of all that can be found. Empty if the
    /// kernel has no socket iterator.
    pub fn snapshots(&self, only: Option<BTreeSet<u32>>, lookups: &Lookups) -> Vec<Snapshot> {
        let program = || {
            let program = self.ebpf.program(iterator::PROGRAM)?.fd().ok()?;
            program.as_fd().try_clone_to_owned().ok()
        };
        let program = self.has(Hook::SocketIterator).then(program).flatten();
        let look = |program: OwnedFd| {
            lookups.run(move || iterator::snapshots(program.as_fd(), only.as_ref()))
        };
        program.and_then(look).unwrap_or_default()
    }

    /// Detaches all programs, so that no more records are written. Returns the final counters.
    pub fn detach(&mut self) -> anyhow::Result<Vec<(Hook, Counts)>> {
        // The counts of skipped program runs disappear with the programs. The other counters are
        // only final after the programs have ended.
        let before = self.counters()?;
        hooks::detach_all(&mut self.ebpf);
        await_programs();
        let mut counts = self.counters()?;
        for ((_, count), (_, before)) in counts.iter_mut().zip(before) {
            count.recursion_misses = before.recursion_misses;
        }
        Ok(counts)
    }
}

/// Returns the links of these hooks' kprobes with the names of their programs. Kretprobes are
/// excluded: `security_sock_graft` sees the calls that the return probe of `inet_csk_accept`
/// misses.
fn probes(ebpf: &Ebpf, attached: &[Attached]) -> Vec<(&'static str, RawFd)> {
    let programs = attached.iter().flat_map(|it| it.method.programs);
    let names: BTreeMap<u32, &'static str> = programs
        .filter(|it| matches!(it.point, hooks::Point::Kprobe(_)))
        .filter_map(|it| Some((ebpf.program(it.name)?.info().ok()?.id(), it.name)))
        .collect();
    if names.is_empty() {
        return vec![];
    }
    let links = links::probes().into_iter();
    links
        .filter_map(|(program, link)| Some((*names.get(&program)?, link)))
        .collect()
}

/// Waits until no detached program is running. Programs run in RCU read-side critical sections
/// (kernel/bpf/trampoline.c, `__bpf_prog_enter`; kernel/trace/bpf_trace.c, `__bpf_trace_run`).
fn await_programs() {
    /// `MEMBARRIER_CMD_GLOBAL`, include/uapi/linux/membarrier.h: `synchronize_rcu()`.
    const GLOBAL: libc::c_int = 1;
    // SAFETY: the arguments are plain numbers.
    let refused = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) } != 0;
    if refused {
        // membarrier() fails with nohz_full=. A program run takes only microseconds, so a short
        // sleep is enough.
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Returns freed memory to the system. The kernel's types take tens of megabytes in small pieces,
/// which the allocator would keep.
fn give_back_memory() {
    // SAFETY: malloc_trim only affects free memory.
    unsafe { libc::malloc_trim(0) };
}

/// A logger for the diagnostics object.
struct ToStderr;

impl log::Log for ToStderr {
    fn enabled(&self, _: &log::Metadata) -> bool {
        true
    }

    fn log(&self, record: &log::Record) {
        say(format_args!("eBPF: {}", record.args()));
    }

    fn flush(&self) {}
}

fn index_of(hook: Hook) -> u32 {
    match hook {
        Hook::InetSockSetState => abi::hook::SET_STATE,
        Hook::InetCskAccept => abi::hook::ACCEPT,
        Hook::TcpRetransmitSkb => abi::hook::TCP_RETRANSMIT_SKB,
        Hook::TcpReset => abi::hook::TCP_RESET,
        Hook::RequestSock => abi::hook::REQUEST_SOCK,
        Hook::ListenOverflow => abi::hook::LISTEN_OVERFLOW,
        Hook::TcpRetransmitSynack => abi::hook::RETRANSMIT_SYNACK,
        Hook::TimewaitSock => abi::hook::TIMEWAIT_SOCK,
        Hook::SocketIterator => abi::hook::SOCKET_ITERATOR,
        Hook::SchedProcessExit => abi::hook::SCHED_PROCESS_EXIT,
        Hook::TaskFileIterator => abi::hook::TASK_FILE_ITERATOR,
        Hook::Segment => abi::hook::SEGMENT,
        Hook::SchedSwitch => abi::hook::SCHED_SWITCH,
        Hook::CpuSample => abi::hook::CPU_SAMPLE,
    }
}

/// Attaches a hook by the first method that works. Returns all refusals if none does.
fn attach(
    row: &'static HookRow,
    methods: &[&'static AttachMethod],
    ebpf: &mut Ebpf,
    kernel: &Kernel,
) -> Result<Attached, Vec<Refusal>> {
    let mut refused = vec![];
    for method in methods {
        match method.attach(ebpf, kernel) {
            Ok(unseen) => {
                let mut refused = refusal::for_session(&refused);
                refused.retain(|it| it.method != method.name);
                return Ok(Attached {
                    row,
                    method,
                    refused,
                    unseen,
                });
            }
            Err(error) => {
                refused.push(Refusal { method, error });
                if refused.last().is_some_and(Refusal::is_out_of_descriptors) {
                    break;
                }
            }
        }
    }
    Err(refused)
}

/// Returns the error for a required hook that cannot be attached.
fn impossible(row: &HookRow, refused: &[Refusal]) -> CaptureError {
    let hook = row.hook.name();
    if refused.iter().any(Refusal::is_not_permitted) {
        return privilege::refused(&format!("to attach to {hook}"));
    }
    let reasons: Vec<String> = refused
        .iter()
        .map(|it| format!("{}: {:#}", it.method.name, it.error))
        .collect();
    CaptureError::Unsupported(format!("attach to {hook} ({})", reasons.join("; ")))
}
