//! The maps, and the functions that update them.

use core::intrinsics::{AtomicOrdering, atomic_xadd};
use core::ops::AddAssign;

use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::LpmTrie;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf};
use tcptrace_ebpf::abi::{self, AddressKey, Counters, hook, ports, total};

/// Records for the loader, which sets the size.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// The counters of each hook, indexed by `abi::hook`.
#[map]
pub static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(hook::COUNT, 0);

/// One hit of the state tracepoint whose record is written and whose backup program has not run.
#[repr(C)]
#[derive(Clone, Copy)]
struct TracepointHit {
    /// Address of the arguments, on the kernel's stack. Hits that overlap in time have different
    /// addresses. 0 marks a free slot.
    args: u64,
    sk: u64,
}

/// Two slots per CPU: one for a process's hit, one for a softirq's hit that interrupts it.
#[map]
static EMITTED: PerCpuArray<[TracepointHit; 2]> = PerCpuArray::with_max_entries(1, 0);

/// Totals over all CPUs of rare errors, see `abi::total`.
#[map]
static TOTALS: Array<u64> = Array::with_max_entries(total::COUNT, 0);

/// Three bit sets of ports, see `abi::ports`.
#[map]
pub static PORTS: Array<u64> = Array::with_max_entries(ports::WORDS, 0);

/// Networks of the filter, see `abi::addresses`. The cost of a lookup depends on the prefix length,
/// not on the number of networks. The loader sets the size of this map and the next three.
#[map]
pub static ADDRESSES: LpmTrie<AddressKey, u32> = LpmTrie::with_max_entries(1, 0);

/// Network namespaces of the filter, by inode.
#[map]
pub static NETNS: HashMap<u32, u32> = HashMap::with_max_entries(1, 0);

/// Users of the filter.
#[map]
pub static UIDS: HashMap<u32, u32> = HashMap::with_max_entries(1, 0);

/// Cgroups of the filter, by id.
#[map]
pub static CGROUPS: HashMap<u64, u32> = HashMap::with_max_entries(1, 0);

/// An accept() call that has not returned.
///
/// Members that begin as 0 are not adjacent, because the compiler would call `memset` to fill them.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Call {
    /// Address at which the kernel will store the error; 0 if the result contains it.
    pub error: u64,
    pub called_ns: u64,
    /// The accepted sock whose record is written; 0 before.
    pub emitted: u64,
    pub listener: u64,
    /// The flags argument of `inet_csk_accept`; 0 for a call seen at the system call.
    pub flags: u64,
}

/// The accept() calls in flight, by `bpf_get_current_pid_tgid()`. The loader may set the size. A
/// task that is killed in accept() still returns from it, so entries do not leak.
#[map]
pub static CALLS: HashMap<u64, Call> = HashMap::with_max_entries(abi::CALLS, 0);

/// The processes that have, or had, a socket of the trace, by tgid. If one does not fit, the
/// programs emit the exits of all processes.
#[map]
static PROCESSES: HashMap<u32, u32> = HashMap::with_max_entries(8192, 0);

/// One direction of a connection, in one network namespace.
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

/// An ACK that the segment hook will emit and that has not arrived.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct AwaitedAck {
    /// The lowest acknowledgment number that counts.
    pub ack: u32,
    /// 1 after the ACK was sent over lo, where the same namespace will receive it.
    pub sent: u32,
}

/// The awaited ACKs of SYN-ACKs and FINs, by the flow that they will belong to. The loader sets the
/// size to 1 unless segments are traced.
#[map]
pub static AWAITED_ACKS: LruHashMap<Flow, AwaitedAck> = LruHashMap::with_max_entries(65536, 0);

/// Adds a process, so that its exit and its new names are emitted.
///
/// A separate subprogram, because the state programs' stack frames are full.
#[inline(never)]
pub fn remember_process(pid: u32) {
    if PROCESSES.get_ptr(pid).is_none() && PROCESSES.insert(pid, 0, 0).is_err() {
        add_to_total(total::MISSED_PROCESSES);
    }
}

/// Returns whether a process has, or had, a socket of the trace. True for every process once
/// `PROCESSES` has overflowed.
#[inline(always)]
pub fn is_remembered(pid: u32) -> bool {
    PROCESSES.get_ptr(pid).is_some() || total(total::MISSED_PROCESSES) > 0
}

/// Removes a process that has exited, because the kernel may reuse its number.
#[inline(always)]
pub fn forget_process(pid: u32) {
    let _ = PROCESSES.remove(pid);
}

/// A counter with atomic addition. A softirq's program can interrupt one that updates the same
/// hook's counters on this CPU.
#[repr(transparent)]
pub struct Adder(u64);

impl AddAssign<u64> for Adder {
    #[inline(always)]
    fn add_assign(&mut self, n: u64) {
        // SAFETY: an aligned value of a map.
        unsafe { add(&raw mut self.0, n) };
    }
}

/// [`Counters`] with atomic members.
#[repr(C)]
pub struct Adders {
    pub admitted: Adder,
    pub filtered: Adder,
    pub lost: Adder,
    pub lost_calls: Adder,
    pub recovered: Adder,
}

const _: () = assert!(size_of::<Adders>() == size_of::<Counters>());

/// Returns this CPU's counters of a hook. `None` only if the index is no hook's.
#[inline(always)]
pub fn counters(hook: u32) -> Option<&'static mut Adders> {
    let counters = COUNTERS.get_ptr_mut(hook)?;
    // SAFETY: the layout is that of `Counters`, and the members are only added to.
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
    add_to_total(total::LOST);
    count(hook, |counters| counters.lost += 1);
}

/// Records that the current hit's record is written. `args` is the program's context.
#[inline(always)]
pub fn mark_emitted(args: *const u8, sk: *const u8) {
    let Some(slots) = EMITTED.get_ptr_mut(0) else {
        return;
    };
    let hit = TracepointHit {
        args: args as u64,
        sk: sk as u64,
    };
    // SAFETY: these are this CPU's slots. Accesses are volatile, because a softirq's program may
    // change the slots in between.
    unsafe {
        let first = (&raw const (*slots)[0].args).read_volatile();
        // An entry with the same address belongs to an earlier hit that has ended.
        let free = first == 0 || first == hit.args;
        let slot = if free {
            &raw mut (*slots)[0]
        } else {
            &raw mut (*slots)[1]
        };
        slot.write_volatile(hit);
    }
}

/// Removes the mark of the current hit. Returns whether there was one.
#[inline(always)]
pub fn take_emitted(args: *const u8, sk: *const u8) -> bool {
    let Some(slots) = EMITTED.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: as above.
    unsafe {
        for slot in [&raw mut (*slots)[0], &raw mut (*slots)[1]] {
            let hit = slot.read_volatile();
            if hit.args == args as u64 && hit.sk == sk as u64 {
                (&raw mut (*slot).args).write_volatile(0);
                return true;
            }
        }
    }
    false
}

/// Adds one to a row of `TOTALS`.
#[inline(always)]
pub fn add_to_total(row: u32) {
    if let Some(total) = TOTALS.get_ptr_mut(row) {
        // SAFETY: the map's value is an aligned u64, and all writers go through here.
        unsafe { add(total, 1) };
    }
}

/// Atomically adds `n` to a value that other programs may be adding to.
///
/// # Safety
/// `total` must be an aligned value of a map.
#[inline(always)]
pub unsafe fn add(total: *mut u64, n: u64) {
    // The target has no compare-and-swap, so core gives AtomicU64 no fetch_add. The intrinsic
    // compiles to the BPF instruction.
    // SAFETY: the caller's promise.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(total, n) };
}

/// Returns a row of `TOTALS`.
#[inline(always)]
pub fn total(row: u32) -> u64 {
    TOTALS.get_ptr(row).map_or(0, |total| {
        // SAFETY: the value is aligned, and a 64-bit machine reads it in one access.
        unsafe { core::ptr::read_volatile(total) }
    })
}
