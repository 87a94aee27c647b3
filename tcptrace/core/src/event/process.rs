//! What happened to the processes that have, or had, a socket of the trace.

use serde::{Deserialize, Serialize};

use super::{Comm, Sk, Task};

/// A process that has had a socket of the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// The kernel's tgid.
    pub pid: u32,
    pub step: ProcessStep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessStep {
    /// Its last thread exits. Its descriptors are closed after this.
    Exited,
    /// Its first thread has a new name, by exec() as a rule.
    Renamed { comm: Comm },
}

/// A look through the descriptors of all processes: who has which listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holders {
    /// When it began, CLOCK_MONOTONIC in nanoseconds.
    pub began_ns: u64,
    /// In order of the processes' numbers. A listener may have many, and a process many descriptors of
    /// one.
    pub holders: Vec<Holder>,
}

/// A process that has a descriptor of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub sk: Sk,
    /// Its `tid` is 0: any of its threads may use the descriptor.
    pub task: Task,
}
