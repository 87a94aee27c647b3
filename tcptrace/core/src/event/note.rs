//! Notes: inputs of a trace that do not come from a hook.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Holders, Hook, NetnsCounters, SnapshotEnd};

/// An input that the tracer itself has read or counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    /// The end of a socket snapshot. Its sockets came before this note, as records.
    #[serde(rename = "looked")]
    SnapshotEnd(SnapshotEnd),
    /// The processes that hold each listener.
    Holders(Holders),
    /// A reading of a namespace's counters.
    Counters(NetnsCounters),
    /// The tick of each second, at which `--depth histogram` writes its counts.
    Tick,
    /// Events were lost since the last note of this kind.
    Lost(Loss),
    /// The kernel skipped runs of an eBPF program, and no backup program saw their events.
    Missed,
}

/// Lost events of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// The hook whose events were lost.
    pub hook: Hook,
    /// Why the events were lost.
    pub why: Why,
    /// Number of lost events.
    pub count: u64,
}

/// Why events were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The ring buffer was full.
    RingBufferFull,
    /// More accept() calls were in flight than the table holds. The time of a call that did not fit
    /// is unknown, and its failure is not reported.
    TooManyCalls,
    /// The hook saw more events than were filtered, received and counted as lost: a bug in tcptrace.
    Unaccounted,
}
