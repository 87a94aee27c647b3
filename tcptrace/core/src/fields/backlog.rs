//! The limit of a listener's queues.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a listener was asked for, and what is in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Backlog {
    /// The limit in force of a listener's queues, which hold one more than this: the smaller of
    /// what listen() asked for and net.core.somaxconn; null when not known.
    pub backlog_max: Option<u32>,
    /// The `backlog` of the listen() that made it a listener, as the program gave it: the kernel
    /// takes one below 0 for a very large one. Null when not known, as of a listener that is older than the
    /// trace, whose limit has changed since, or that io_uring or the kernel itself made.
    pub backlog_asked: Option<i32>,
    /// net.core.somaxconn of its network namespace at that time; null when not known.
    pub somaxconn: Option<u32>,
    /// Whether somaxconn was the smaller one; null when backlog_asked is.
    pub backlog_clipped: Option<bool>,
}
