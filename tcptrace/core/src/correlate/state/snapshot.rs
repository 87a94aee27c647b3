//! State of snapshots of the kernel's sockets.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use crate::event::{Sk, SnapshotEntry, State, Task, Tuple};

/// Only connections without an event for this long (in nanoseconds) are compared with a snapshot.
/// The kernel stores a state shortly after the tracepoint, and hashes a connecting socket shortly
/// after that.
pub const IDLE_NS: u64 = 1_000_000_000;

/// The interval between comparisons when no event loss was noticed, in nanoseconds. A snapshot of a
/// million sockets takes about a second.
pub const EVERY_NS: u64 = 300_000_000_000;

/// Schedules comparisons of open connections with socket snapshots, and keeps the current snapshot.
#[derive(Default)]
pub struct Audit {
    /// True if an event loss was noticed since the last comparison.
    pub wanted: bool,
    /// The time at which the next comparison is due.
    pub due_ns: Option<u64>,
    /// The time of the next comparison if no event is lost.
    pub routine_ns: Option<u64>,
    /// The sockets of the current snapshot.
    pub entries: FxHashMap<Sk, (State, Tuple)>,
}

impl Audit {
    pub fn add(&mut self, entry: &SnapshotEntry) {
        self.entries.insert(entry.sk, (entry.state, entry.tuple));
    }

    /// Returns whether a comparison is due: some time after an event loss, and at regular
    /// intervals. By then, the connections that were open at the loss have been quiet.
    pub fn is_due(&mut self, mono_ns: u64) -> bool {
        let routine_ns = *self.routine_ns.get_or_insert(mono_ns + EVERY_NS);
        if std::mem::take(&mut self.wanted) {
            self.due_ns.get_or_insert(mono_ns + 2 * IDLE_NS);
        }
        let due = self.due_ns.is_some_and(|ns| ns <= mono_ns) || routine_ns <= mono_ns;
        if due {
            self.due_ns = None;
            self.routine_ns = Some(mono_ns + EVERY_NS);
        }
        due
    }
}

/// The snapshot at the start of the trace.
#[derive(Default)]
pub struct Import {
    /// The owners of sockets, by the inodes of their descriptors.
    pub owners: BTreeMap<u64, Task>,
    /// When the snapshot ended.
    pub until_ns: u64,
}
