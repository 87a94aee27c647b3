//! The trace as a whole: its first line, its last, and what it lost.

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Backlog, NetnsCounters, SCHEMA, Verdict};
use crate::depth::Depth;
use crate::event::Hook;
pub use crate::event::Why;

/// A way to attach to a hook that the kernel refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refusal {
    /// The program type.
    pub method: String,
    /// Why, in short, such as EPERM; `tcptrace doctor` tells more.
    pub refusal: String,
}

/// The first line: what this trace is.
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
    /// How much is told of each connection, see --depth.
    pub depth: Depth,
    /// Hook to the program type that it is attached by, null when it is not attached.
    pub hooks: BTreeMap<Hook, Option<String>>,
    /// Hook to the program types that would have been better and that the kernel refused, best
    /// first; empty when the best was taken, or one was asked for.
    pub refused: BTreeMap<Hook, Vec<Refusal>>,
    /// The filters in force, as given; empty when everything is traced.
    pub filters: BTreeMap<String, String>,
    /// What this trace cannot see.
    pub unseen: Vec<String>,
}

/// Events were lost: the ring buffer was full, there were more accept() calls in flight than can be
/// remembered, or the counts of a hook do not add up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Lost {
    /// When tcptrace noticed, in CLOCK_MONOTONIC nanoseconds.
    pub mono_ns: u64,
    /// The hook whose events were lost.
    pub hook: Hook,
    /// Why.
    pub why: Why,
    /// How many, for this reason, since the last such line.
    pub count: u64,
}

/// A hook's balance: seen = filtered + emitted + lost. An accept() is one event, its return; a call
/// that could not be remembered is another, lost one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HookCount {
    /// TCP events that reached the hook.
    pub seen: u64,
    /// Left out by the filter, in the kernel.
    pub filtered: u64,
    /// Received by tcptrace and decoded.
    pub emitted: u64,
    /// Lost because the ring buffer was full, or because more accept() calls were in flight than
    /// can be remembered (16384): such a call's time is unknown, and it is not told if it fails. And
    /// `unaccounted`.
    pub lost: u64,
    /// Of `lost`: accept() calls that could not be remembered.
    pub lost_calls: u64,
    /// Of `lost`: events that the hook saw and that are in no other count; 0 unless tcptrace has a
    /// fault.
    pub unaccounted: u64,
    /// Runs of the hook's programs that the kernel skipped because the program, or another kprobe, was
    /// running on that CPU already, and that nothing made up for; not in `seen`. Null when the kernel
    /// does not say.
    pub recursion_misses: Option<u64>,
}

/// What happened at one listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListenerSummary {
    /// The listener's `conn`; null where the connections' listener is not known, and for listeners
    /// that are counted together, see `folded`.
    pub conn: Option<u64>,
    /// Its address; of connections whose listener is not known their own.
    pub laddr: IpAddr,
    /// Its port; null when unknown, and for listeners of several ports that are counted together.
    pub lport: Option<u16>,
    /// Index of the network device that its link-local IPv6 address is of.
    pub scope_id: Option<u32>,
    /// Inode of its network namespace; 0 for listeners of several that are counted together.
    pub netns: u32,
    /// How many closed listeners are counted together in this row: of those that closed, the last
    /// 1024 have one each. 0 for the row of one listener.
    pub folded: u64,
    /// Connections whose handshake finished here, or that accept() returned before it did, as TCP
    /// Fast Open allows.
    pub connections: u64,
    /// Those that an accept() returned.
    pub accepted: u64,
    /// Those that no accept() returned.
    pub never_accepted: u64,
    /// accept() calls that failed, EAGAIN among them.
    pub failed_accepts: u64,
    /// Half-open connections that ended unfinished; null when no hook sees them.
    pub half_open_failed: Option<u64>,
    /// Segments that met a full queue; null when no hook sees them.
    pub overflows: Option<u64>,
    #[serde(flatten)]
    pub backlog: Backlog,
    /// Median wait in the accept queue, in nanoseconds (to 0.1 %); null when nothing was accepted.
    pub accept_queue_p50_ns: Option<u64>,
    /// 99th percentile of the same, in nanoseconds (to 0.1 %).
    pub accept_queue_p99_ns: Option<u64>,
    /// The longest wait, in nanoseconds, exact.
    pub accept_queue_max_ns: Option<u64>,
}

/// The last line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// When the trace ended, in CLOCK_MONOTONIC nanoseconds.
    pub mono_ns: u64,
    /// From the first to the last moment of the trace, in nanoseconds.
    pub duration_ns: u64,
    /// Hook to its balance.
    pub hook_counts: BTreeMap<Hook, HookCount>,
    /// Verdict to the number of connections.
    pub verdicts: BTreeMap<Verdict, u64>,
    /// Server-side connections.
    pub servers: u64,
    /// Client-side connections.
    pub clients: u64,
    /// Connections that are not `complete`.
    pub incomplete: u64,
    /// Connections given up while they were open, because too many were.
    pub evicted_connections: u64,
    /// Records that could not be decoded; 0 unless loader and object disagree.
    pub undecodable: u64,
    /// Events that came too late to be put in order; 0 unless the machine stalls for milliseconds
    /// inside the kernel.
    pub late: u64,
    /// Segments left out because they had been told at another device of the same namespace.
    pub repeated_segments: u64,
    /// Lines given up, oldest first, while it was not known yet whether --pid, --comm or --side lets
    /// them through: too many were held back.
    pub dropped_lines: u64,
    /// What happened at each listener.
    pub listeners: Vec<ListenerSummary>,
    /// What the kernel's own counters say of full queues, by network namespace.
    pub netns_counters: Vec<NetnsCounters>,
}
