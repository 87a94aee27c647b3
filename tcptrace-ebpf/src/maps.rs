//! The maps, and the counters in them.

use core::intrinsics::{AtomicOrdering, atomic_xadd};
use core::ops::AddAssign;

use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::LpmTrie;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf};
use tcptrace_ebpf::abi::{self, Counters, InSet, hook, ports, tally};

/// Records on their way to the loader, which sets the size.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// Per hook: admitted, filtered, lost.
#[map]
pub static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(hook::COUNT, 0);

/// A firing of the tracepoint that a state program has told, and its backup has not seen yet.
#[repr(C)]
#[derive(Clone, Copy)]
struct Firing {
    /// Where its arguments are, on the kernel's stack: firings that are under way at the same
    /// time have them at different places. 0: none.
    args: u64,
    sk: u64,
}

/// Two a CPU: a process's firing, and that of a softirq on top of it.
#[map]
static TOLD: PerCpuArray<[Firing; 2]> = PerCpuArray::with_max_entries(1, 0);

/// Totals over all CPUs of what should not happen, see `abi::tally`.
#[map]
static TALLY: Array<u64> = Array::with_max_entries(tally::COUNT, 0);

/// Three bit sets of ports, see `abi::ports`.
#[map]
pub static PORTS: Array<u64> = Array::with_max_entries(ports::WORDS, 0);

/// Networks that are asked for, see `abi::addresses`: as many as there are, because a lookup takes
/// as long as a prefix is, not as the list. The loader sets the size of this map and the next three.
#[map]
pub static ADDRESSES: LpmTrie<InSet, u32> = LpmTrie::with_max_entries(1, 0);

/// Network namespaces that are asked for, by inode.
#[map]
pub static NETNS: HashMap<u32, u32> = HashMap::with_max_entries(1, 0);

/// Users that are asked for.
#[map]
pub static UIDS: HashMap<u32, u32> = HashMap::with_max_entries(1, 0);

/// Cgroups that are asked for, by id.
#[map]
pub static CGROUPS: HashMap<u64, u32> = HashMap::with_max_entries(1, 0);

/// An accept() that has been entered and has not returned.
///
/// Members that begin as 0 do not lie side by side: the compiler would call a loop to fill them.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Call {
    /// Where the kernel will store the error, 0 when the result tells it.
    pub error: u64,
    pub called_ns: u64,
    /// The accepted sock whose record has been written, 0 before.
    pub told: u64,
    pub listener: u64,
    /// The flags that `inet_csk_accept` was called with, 0 where the system call is seen.
    pub flags: u64,
}

/// The accept() calls in flight, by `bpf_get_current_pid_tgid()`; the loader may set the size. A
/// task that is killed in accept() still returns from it, so entries do not leak.
#[map]
pub static CALLS: HashMap<u64, Call> = HashMap::with_max_entries(abi::CALLS, 0);

/// The processes that have, or had, a socket of the trace, by tgid. One that finds no room is told of
/// all the same, with all others.
#[map]
static PROCESSES: HashMap<u32, u32> = HashMap::with_max_entries(8192, 0);

/// The segments from one end to the other, in one network namespace.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Flow {
    /// Address of the `struct net`.
    pub net: u64,
    pub source: [u64; 2],
    pub destination: [u64; 2],
    /// Ports in network order.
    pub sport: u16,
    pub dport: u16,
    pub reserved: u32,
}

/// An ACK that matters, and has not come yet.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Awaited {
    /// The acknowledgment number that it will have at least.
    pub ack: u32,
    /// 1 once it has been sent over lo, where it will be received in the same namespace.
    pub sent: u32,
}

/// The ACKs of SYN-ACKs and FINs to come, by the flow that they will be part of. The loader sets
/// the size, which is next to nothing unless segments are asked for.
#[map]
pub static AWAITED: LruHashMap<Flow, Awaited> = LruHashMap::with_max_entries(65536, 0);

/// Remembers a process: its end and its names are to be told.
///
/// A subprogram of its own: the state programs' frames are full.
#[inline(never)]
pub fn remember_process(pid: u32) {
    if PROCESSES.get_ptr(pid).is_none() && PROCESSES.insert(pid, 0, 0).is_err() {
        add_to_tally(tally::MISSED_PROCESSES);
    }
}

/// Whether a process has, or had, a socket of the trace, as far as that is known.
#[inline(always)]
pub fn is_remembered(pid: u32) -> bool {
    PROCESSES.get_ptr(pid).is_some() || tally(tally::MISSED_PROCESSES) > 0
}

/// A process is over: its number may become another one's.
#[inline(always)]
pub fn forget_process(pid: u32) {
    let _ = PROCESSES.remove(pid);
}

/// A counter that is only added to, at once: a softirq's program may come on top of one that counts the
/// same hook's events on this CPU.
#[repr(transparent)]
pub struct Adder(u64);

impl AddAssign<u64> for Adder {
    #[inline(always)]
    fn add_assign(&mut self, n: u64) {
        // SAFETY: an aligned value of a map.
        unsafe { add(&raw mut self.0, n) };
    }
}

/// [`Counters`] for adding.
#[repr(C)]
pub struct Adders {
    pub admitted: Adder,
    pub filtered: Adder,
    pub lost: Adder,
    pub lost_calls: Adder,
    pub made_up: Adder,
}

const _: () = assert!(size_of::<Adders>() == size_of::<Counters>());

/// This CPU's counters of a hook. `None` only for a hook that there is not.
#[inline(always)]
pub fn counters(hook: u32) -> Option<&'static mut Adders> {
    let counters = COUNTERS.get_ptr_mut(hook)?;
    // SAFETY: the same members in the same order, which are only added to.
    Some(unsafe { &mut *counters.cast::<Adders>() })
}

/// Adds to this CPU's counters of a hook.
#[inline(always)]
pub fn count(hook: u32, change: impl FnOnce(&mut Adders)) {
    if let Some(counters) = counters(hook) {
        change(counters);
    }
}

/// Counts an event of a hook as lost.
#[inline(always)]
pub fn count_lost(hook: u32) {
    add_to_tally(tally::LOST);
    count(hook, |counters| counters.lost += 1);
}

/// Remembers that a firing has been told. `args` is the program's context.
#[inline(always)]
pub fn remember_told(args: *const u8, sk: *const u8) {
    let Some(slots) = TOLD.get_ptr_mut(0) else {
        return;
    };
    let firing = Firing {
        args: args as u64,
        sk: sk as u64,
    };
    // SAFETY: this CPU's own slots. Volatile, because a softirq may work on them in between.
    unsafe {
        let first = (&raw const (*slots)[0].args).read_volatile();
        // A firing at the same place is over, whoever left it there.
        let free = first == 0 || first == firing.args;
        let slot = if free {
            &raw mut (*slots)[0]
        } else {
            &raw mut (*slots)[1]
        };
        slot.write_volatile(firing);
    }
}

/// Forgets a firing; whether it had been told.
#[inline(always)]
pub fn forget_told(args: *const u8, sk: *const u8) -> bool {
    let Some(slots) = TOLD.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: as above.
    unsafe {
        for slot in [&raw mut (*slots)[0], &raw mut (*slots)[1]] {
            let told = slot.read_volatile();
            if told.args == args as u64 && told.sk == sk as u64 {
                (&raw mut (*slot).args).write_volatile(0);
                return true;
            }
        }
    }
    false
}

/// Adds one to a row of `TALLY`.
#[inline(always)]
pub fn add_to_tally(row: u32) {
    if let Some(total) = TALLY.get_ptr_mut(row) {
        // SAFETY: the map's value is an aligned u64 that is only ever written here.
        unsafe { add(total, 1) };
    }
}

/// Adds to what another program may be adding to as well.
///
/// # Safety
/// `total` must be an aligned value of a map.
#[inline(always)]
unsafe fn add(total: *mut u64, n: u64) {
    // The target has no compare-and-swap, so core gives AtomicU64 no fetch_add; the intrinsic is
    // the BPF instruction itself.
    // SAFETY: the caller's promise.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(total, n) };
}

/// Reads a row of `TALLY`.
#[inline(always)]
pub fn tally(row: u32) -> u64 {
    TALLY.get_ptr(row).map_or(0, |total| {
        // SAFETY: as above; a torn read cannot happen on a 64-bit machine.
        unsafe { core::ptr::read_volatile(total) }
    })
}
