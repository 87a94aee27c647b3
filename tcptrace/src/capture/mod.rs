//! Everything that touches the kernel: loads the programs, attaches them, drains their records.

pub mod btf;
pub mod counters;
mod error;
mod filter;
pub mod holders;
pub mod hooks;
pub mod iterator;
pub mod kernels;
mod links;
mod load;
mod pids;
mod positions;
pub mod privilege;
mod refusal;
mod request;
pub mod ring;
pub mod statistics;
mod tracefs;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::RawFd;

use aya::Ebpf;
use aya::maps::{MapData, PerCpuArray};
use aya_log::EbpfLogger;
use tcptrace_ebpf::abi;

use crate::balance::Counts;
use crate::cgroups;
use crate::clock::mono_now_ns;
use crate::event::Hook;
use crate::fields;
use crate::stdio::say;

use error::no_map;
pub use error::{CaptureError, os_error};
use hooks::{Carrier, HOOKS, HookRow};
use iterator::Look;
use load::{Kernel, Loaded, load};
use refusal::Refusal;
pub use request::{RING_BYTES, Request};
use ring::Ring;

/// Limits that hold on every kernel, because no hook can show these things.
const NEVER_SEEN: &[&str] = &[
    "a connect() that fails before its SYN is sent, as without a route or with a wrong source \
     address: no socket changes its state",
    "that two connections are the ends of one whose addresses are translated on the way (NAT)",
];

/// A hook and what became of it.
pub struct Attached {
    pub row: &'static HookRow,
    pub carrier: &'static Carrier,
    /// The better carriers that this kernel refused, and why in short; empty when one was asked
    /// for.
    pub refused: Vec<fields::Refusal>,
    /// What it cannot see on this kernel, besides [`Carrier::unseen`].
    pub unseen: Vec<&'static str>,
}

/// A hook that this kernel, or this mode, cannot carry.
pub struct Absent {
    pub row: &'static HookRow,
    pub refused: Vec<fields::Refusal>,
}

/// The programs at their hooks. Dropping it detaches them all.
pub struct Capture {
    ebpf: Ebpf,
    /// The log of the diagnostics object; the ordinary object has none.
    log: Option<EbpfLogger<ToStderr>>,
    pub ring: Ring,
    pub hooks: Vec<Attached>,
    pub absent: Vec<Absent>,
    /// This kernel's `enum sk_rst_reason`: why it sends a RST. Empty before Linux 6.10.
    pub reset_reasons: BTreeMap<u32, String>,
    /// When the last hook was attached, CLOCK_MONOTONIC in nanoseconds.
    pub attached_ns: u64,
    /// The links of kprobes by the names of their programs, see [`links`].
    probes: Vec<(&'static str, RawFd)>,
}

impl Capture {
    /// Loads the programs and attaches every hook of the table. Needs a tokio runtime.
    pub fn start(request: &Request) -> Result<Capture, CaptureError> {
        privilege::check()?;
        let Loaded {
            mut ebpf,
            kernel,
            ring,
            positions,
        } = load(request)?;
        let log = EbpfLogger::init_with_logger(&mut ebpf, ToStderr).ok();
        let ring = Ring::new(ring, positions).map_err(anyhow::Error::new)?;
        filter::fill(&mut ebpf, &request.filter)?;

        let (mut attached, mut absent) = (vec![], vec![]);
        for row in HOOKS.iter().filter(|row| row.is_wanted(request)) {
            let mut carriers: Vec<_> = row.carriers(request.mode.as_deref()).collect();
            if let Some(wanted) = &request.state_method
                && (row.hook == Hook::InetSockSetState
                    || carriers.iter().any(|it| it.name == wanted))
            {
                carriers.retain(|carrier| carrier.name == wanted);
            }
            match attach(row, &carriers, &mut ebpf, &kernel) {
                Ok(hook) => attached.push(hook),
                // Not the kernel's fault: this hook would be missing for nothing.
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
        })
    }

    /// Prints what the diagnostics object has logged.
    pub fn print_log(&mut self) {
        if let Some(log) = &mut self.log {
            log.flush();
        }
    }

    /// What carries each hook, by [`Carrier::name`]; `None`: nothing does.
    pub fn carriers(&self) -> BTreeMap<Hook, Option<String>> {
        let attached = self.hooks.iter();
        let attached = attached.map(|it| (it.row.hook, Some(it.carrier.name.to_owned())));
        let absent = self.absent.iter().map(|it| (it.row.hook, None));
        attached.chain(absent).collect()
    }

    /// The carriers that each hook was refused, and why.
    pub fn refused(&self) -> BTreeMap<Hook, Vec<fields::Refusal>> {
        let attached = self.hooks.iter().map(|it| (it.row.hook, &it.refused));
        let absent = self.absent.iter().map(|it| (it.row.hook, &it.refused));
        let all = attached.chain(absent);
        all.map(|(hook, refused)| (hook, refused.clone())).collect()
    }

    /// What this capture cannot see.
    pub fn unseen(&self) -> Vec<String> {
        let partly = self.hooks.iter();
        let partly = partly.flat_map(|hook| hook.carrier.unseen.iter().chain(&hook.unseen));
        let wholly = self.absent.iter().filter_map(|it| it.row.without.as_ref());
        let containers = cgroups::unseen();
        let all = partly.chain(wholly).chain(NEVER_SEEN).chain(&containers);
        all.map(|&what| what.to_owned()).collect()
    }

    /// The kernel side's counters, summed over CPUs.
    pub fn counters(&self) -> anyhow::Result<Vec<(Hook, Counts)>> {
        let map = self.ebpf.map("COUNTERS").ok_or_else(no_map)?;
        let rows: PerCpuArray<&MapData, [u64; 5]> = PerCpuArray::try_from(map)?;
        let mut counts = vec![];
        for attached in &self.hooks {
            let mut count = Counts::default();
            // Read before the runs that were made up for: those follow the miss at once.
            let misses = self.recursion_misses(attached.carrier);
            let mut made_up = 0;
            for cpu in rows.get(&index_of(attached.row.hook), 0)?.iter() {
                let counters: abi::Counters = zerocopy::transmute!(*cpu);
                count.seen += counters.seen;
                count.filtered += counters.filtered;
                count.lost += counters.lost;
                count.lost_calls += counters.lost_calls;
                made_up += counters.made_up;
            }
            count.recursion_misses = misses.map(|misses| misses.saturating_sub(made_up));
            counts.push((attached.row.hook, count));
        }
        Ok(counts)
    }

    /// Runs that the kernel skipped because the program was already running on that CPU, or another kprobe
    /// was. Only the program's fdinfo and the probe's link tell; `None` where the first does not, or when
    /// nothing is attached.
    fn recursion_misses(&self, carrier: &Carrier) -> Option<u64> {
        let mut total = None;
        // A backup is skipped only where the program that it backs up has run.
        for program in carrier.programs.iter().filter(|program| !program.is_backup) {
            use std::os::fd::{AsFd, AsRawFd};
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

    /// The kernel's numbers of these processes, which have those in /proc.
    ///
    /// # Errors
    /// When a process is in a PID namespace where its number cannot be told.
    pub fn kernels_pids(&mut self, pids: &[u32]) -> Result<Vec<u32>, CaptureError> {
        let has_iterator = self.has(Hook::TaskFileIterator);
        pids::translate(pids, || {
            has_iterator
                .then(|| holders::numbers(&mut self.ebpf).ok())
                .flatten()
        })
    }

    fn has(&self, hook: Hook) -> bool {
        self.hooks.iter().any(|it| it.row.hook == hook)
    }

    /// Looks through the descriptors of all processes; `None` where the kernel has no iterator.
    pub fn holders(&mut self) -> Option<holders::Found> {
        self.has(Hook::TaskFileIterator)
            .then(|| holders::find(&mut self.ebpf).ok())
            .flatten()
    }

    /// Looks through the sockets of these network namespaces, or of all that can be found; nothing
    /// where the kernel has no iterator.
    pub fn look(&mut self, only: Option<&BTreeSet<u32>>) -> Vec<Look> {
        let mut hooks = self.hooks.iter();
        match hooks.any(|hook| hook.row.hook == Hook::SocketIterator) {
            true => iterator::look(&mut self.ebpf, only),
            false => vec![],
        }
    }

    /// Detaches every program, so that nothing more is written, and gives the final counters.
    pub fn detach(&mut self) -> anyhow::Result<Vec<(Hook, Counts)>> {
        // The kernel's counts of skipped runs go away with the programs, the others are final
        // only without them.
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

/// The links of the kprobes of these hooks by the names of their programs. Those at returns are not among
/// them: what the return of `inet_csk_accept` misses, `security_sock_graft` sees.
fn probes(ebpf: &Ebpf, attached: &[Attached]) -> Vec<(&'static str, RawFd)> {
    let programs = attached.iter().flat_map(|it| it.carrier.programs);
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

/// Waits until no program of those that were detached is running any more: they run in RCU's read-side
/// critical sections (kernel/bpf/trampoline.c, `__bpf_prog_enter`; kernel/trace/bpf_trace.c,
/// `__bpf_trace_run`).
fn await_programs() {
    /// `MEMBARRIER_CMD_GLOBAL`, include/uapi/linux/membarrier.h: `synchronize_rcu()`.
    const GLOBAL: libc::c_int = 1;
    // SAFETY: plain numbers.
    let refused = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) } != 0;
    if refused {
        // With nohz_full=. A program takes microseconds.
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// The kernel's types take tens of megabytes in small pieces, which the allocator would keep.
fn give_back_memory() {
    // SAFETY: it takes only what nobody has.
    unsafe { libc::malloc_trim(0) };
}

/// Prints the diagnostics object's log records.
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
    }
}

/// Takes the first carrier that loads and attaches; the refusals when none does.
fn attach(
    row: &'static HookRow,
    carriers: &[&'static Carrier],
    ebpf: &mut Ebpf,
    kernel: &Kernel,
) -> Result<Attached, Vec<Refusal>> {
    let mut refused = vec![];
    for carrier in carriers {
        match carrier.attach(ebpf, kernel) {
            Ok(unseen) => {
                let mut refused = refusal::for_session(&refused);
                refused.retain(|it| it.method != carrier.name);
                return Ok(Attached {
                    row,
                    carrier,
                    refused,
                    unseen,
                });
            }
            Err(error) => {
                refused.push(Refusal { carrier, error });
                if refused.last().is_some_and(Refusal::is_out_of_descriptors) {
                    break;
                }
            }
        }
    }
    Err(refused)
}

/// The error when a hook that is required cannot be attached.
fn impossible(row: &HookRow, refused: &[Refusal]) -> CaptureError {
    let hook = row.hook.name();
    if refused.iter().any(Refusal::is_not_permitted) {
        return privilege::refused(&format!("to attach to {hook}"));
    }
    let reasons: Vec<String> = refused
        .iter()
        .map(|it| format!("{}: {:#}", it.carrier.name, it.error))
        .collect();
    CaptureError::Unsupported(format!("attach to {hook} ({})", reasons.join("; ")))
}
