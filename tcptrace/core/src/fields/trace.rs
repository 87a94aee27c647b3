//! Lines about the trace as a whole: session, lost and summary.

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Backlog, LateTimes, NetnsCounters, SCHEMA, Verdict};
use crate::depth::Depth;
use crate::event::Hook;
pub use crate::event::Why;

/// An attach method that failed on this kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FailedMethod {
    /// The program type of the attach method.
    pub method: String,
    /// The error, such as EPERM; `tcptrace doctor` explains it.
    pub error: String,
}

/// The first line: the kernel, the hooks and the filters of the trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Session {
    /// When all hooks were attached, in CLOCK_MONOTONIC nanoseconds.
    pub mono_ns: u64,
    /// Version of this schema.
    #[schemars(extend("const" = SCHEMA))]
    pub schema: u32,
    /// Version of tcptrace.
    pub version: String,
    /// Kernel release, as `uname -r`.
    pub kernel: String,
    /// How detailed the trace is, see --depth.
    pub depth: Depth,
    /// For each hook, the program type that it is attached with; null when it is not attached.
    pub hooks: BTreeMap<Hook, Option<String>>,
    /// For each hook, the better program types that failed on this kernel, best first. Empty when
    /// the best type was attached, or the user chose one.
    pub failed_methods: BTreeMap<Hook, Vec<FailedMethod>>,
    /// The filters as given; empty when everything is traced.
    pub filters: BTreeMap<String, String>,
    /// The events that this trace cannot see, each as a sentence.
    pub unseen: Vec<String>,
    /// Waits in the accept queue that are longer than this are explained, in nanoseconds; absent
    /// without `--why`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why_ns: Option<u64>,
}

/// Events were lost: the ring buffer was full, more accept() calls were in flight than fit in the
/// table, or the counts of a hook do not add up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Lost {
    /// When tcptrace noticed that events were lost, in CLOCK_MONOTONIC nanoseconds.
    pub mono_ns: u64,
    /// The hook whose events were lost.
    pub hook: Hook,
    /// Why the events were lost.
    pub why: Why,
    /// Number of events of this hook lost for this reason since the `lost` line before.
    pub count: u64,
}

/// The balance of a hook's events: seen = filtered + emitted + lost. An accept() counts as one
/// event, its return. An accept() call that does not fit in the table of calls counts as another,
/// lost event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HookCount {
    /// TCP events that reached the hook.
    pub seen: u64,
    /// Events that the filter left out in the kernel.
    pub filtered: u64,
    /// Events that tcptrace received and decoded.
    pub emitted: u64,
    /// Events that were lost, `lost_calls` and `unaccounted` included. The ring buffer was full, or
    /// more accept() calls were in flight than the table holds (16384). The time of an accept()
    /// call that did not fit is unknown, and its failure is not reported.
    pub lost: u64,
    /// The part of `lost` that are accept() calls that did not fit in the table.
    pub lost_calls: u64,
    /// The part of `lost` that the hook saw and that is in no other count; 0 unless tcptrace has a
    /// bug.
    pub unaccounted: u64,
    /// Runs of the hook's eBPF programs that the kernel skipped because the program, or another
    /// kprobe, was already running on that CPU. Not counted if a backup program saw the event.
    /// Skipped runs are not in `seen`. Null when the kernel does not report them.
    pub recursion_misses: Option<u64>,
}

/// The listener summary: counts of one listener, or of several closed ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListenerSummary {
    /// The listener's `conn`. Null when the listener of the connections is not known, and for
    /// listeners counted together (see `folded`).
    pub conn: Option<u64>,
    /// The listener's address, or the connections' local address when the listener is not known.
    pub laddr: IpAddr,
    /// The listener's port; null when unknown, and for listeners on several ports counted together.
    pub lport: Option<u16>,
    /// Index of the network device that a link-local IPv6 address belongs to.
    pub scope_id: Option<u32>,
    /// Inode of the network namespace; 0 for listeners of several namespaces counted together.
    pub netns: u32,
    /// Number of closed listeners that are counted together in this row. The last 1024 listeners
    /// that closed have a row each. 0 for the row of one listener.
    pub folded: u64,
    /// Connections whose handshake finished at this listener, or that accept() returned earlier, as
    /// TCP Fast Open allows.
    pub connections: u64,
    /// Connections that accept() returned.
    pub accepted: u64,
    /// Connections that no accept() returned.
    pub never_accepted: u64,
    /// accept() calls that failed, EAGAIN included.
    pub failed_accepts: u64,
    /// Half-open connections whose handshake never finished; null when no hook sees them.
    pub half_open_failed: Option<u64>,
    /// Segments that met a full queue of the listener; null when no hook sees them.
    pub overflows: Option<u64>,
    #[serde(flatten)]
    pub backlog: Backlog,
    /// Median wait in the accept queue, in nanoseconds (to 0.1 %); null when nothing was accepted.
    pub accept_queue_p50_ns: Option<u64>,
    /// 99th percentile of the wait in the accept queue, in nanoseconds (to 0.1 %).
    pub accept_queue_p99_ns: Option<u64>,
    /// The longest wait in the accept queue, in nanoseconds, exact.
    pub accept_queue_max_ns: Option<u64>,
    /// The long waits in the accept queue by reason; absent without `--why`.
    #[serde(flatten)]
    pub late: Option<LateTimes>,
}

/// The last line: the counts of the whole trace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// When the trace ended, in CLOCK_MONOTONIC nanoseconds.
    pub mono_ns: u64,
    /// Length of the trace, in nanoseconds.
    pub duration_ns: u64,
    /// For each hook, the balance of its events.
    pub hook_counts: BTreeMap<Hook, HookCount>,
    /// For each verdict, the number of connections.
    pub verdicts: BTreeMap<Verdict, u64>,
    /// Server-side connections.
    pub servers: u64,
    /// Client-side connections.
    pub clients: u64,
    /// Connections that are not `complete`.
    pub incomplete: u64,
    /// Connections that the trace gave up while they were open, because too many were open
    /// (`evicted`).
    pub evicted_connections: u64,
    /// Records that could not be decoded; 0 unless the loader and the eBPF object disagree.
    pub undecodable: u64,
    /// Events that arrived too late to be sorted; 0 unless the machine stalls for milliseconds inside
    /// the kernel.
    pub late: u64,
    /// Segments left out because another device of the same namespace had already reported them.
    pub repeated_segments: u64,
    /// Lines discarded, oldest first, because too many were held back until --pid, --comm or --side
    /// could be decided.
    pub dropped_lines: u64,
    /// The counts of each listener.
    pub listeners: Vec<ListenerSummary>,
    /// The kernel's own counters of full queues, by network namespace.
    pub netns_counters: Vec<NetnsCounters>,
}
