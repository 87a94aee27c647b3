//! What the tracer notes itself: no record of a hook tells it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Holders, Hook, Looked, NetnsCounters};

/// Something that the tracer has read, counted or noticed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    /// The end of a socket snapshot. Its sockets came before, as records.
    Looked(Looked),
    /// The processes that hold each listener.
    Holders(Holders),
    /// A reading of a namespace's counters.
    Counters(NetnsCounters),
    /// Another second has passed: `--depth histogram` writes what it has counted.
    Tick,
    /// Events were lost since the last such note.
    Lost(Loss),
    /// The kernel skipped runs of a program, and nothing made up for them.
    Missed,
}

/// Lost events of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    pub hook: Hook,
    pub why: Why,
    pub count: u64,
}

/// Why events were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The ring buffer was full.
    RingBufferFull,
    /// More accept() calls were in flight than can be remembered: when such a call began is
    /// unknown, and it is not told if it fails.
    TooManyCalls,
    /// The hook saw more events than were filtered, received and counted as lost: tcptrace has a fault.
    Unaccounted,
}
