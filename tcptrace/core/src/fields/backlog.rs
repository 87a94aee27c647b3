//! The limit of a listener's queues.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The requested and the effective limit of a listener's queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Backlog {
    /// The effective limit of a listener's queues: the smaller of the backlog passed to listen()
    /// and net.core.somaxconn. The queues hold one entry more than this. Null when not known.
    pub backlog_max: Option<u32>,
    /// The `backlog` argument of listen() as the program passed it. The kernel takes a negative
    /// value for a very large one. Null when not known: for a listener older than the trace, one
    /// whose limit has changed since, and one made by io_uring or the kernel.
    pub backlog_asked: Option<i32>,
    /// net.core.somaxconn of the listener's network namespace at listen(); null when not known.
    pub somaxconn: Option<u32>,
    /// Whether somaxconn was smaller than `backlog_asked`; null when `backlog_asked` is null.
    pub backlog_clipped: Option<bool>,
}
