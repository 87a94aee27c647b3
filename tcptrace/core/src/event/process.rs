//! Exits and renames of processes that have, or had, a socket of the trace.

use serde::{Deserialize, Serialize};

use super::{Comm, Sk, Task};

/// An event of a process that has, or had, a socket of the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// The kernel's tgid.
    pub pid: u32,
    pub step: ProcessStep,
}

/// The kind of a process event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessStep {
    /// The last thread exits. The descriptors are closed after this.
    Exited,
    /// The first thread has a new name, usually after exec().
    Renamed { comm: Comm },
}

/// The processes that have a descriptor of a listener, found in the descriptors of all processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holders {
    /// When the search began, CLOCK_MONOTONIC in nanoseconds.
    pub began_ns: u64,
    /// Sorted by process id. A listener may have several holders, and a process several descriptors
    /// of one listener.
    pub holders: Vec<Holder>,
}

/// A process that has a descriptor of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Address of the socket.
    pub sk: Sk,
    /// The process. `tid` is 0, because any thread may use the descriptor.
    pub task: Task,
}
