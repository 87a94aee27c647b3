//! Processes that have exited, and the owners of connections. A process that has exited owns
//! nothing.
//!
//! An owner that an event proves (connect, accept, close) stays with the socket while that process
//! lives. The process that will probably accept a connection is not stored with it, because the
//! listener's owner may change while the connection waits.

use std::collections::VecDeque;

use rustc_hash::{FxHashMap, FxHashSet};

use super::connection::Connection;
use super::listener::{ListenerId, Listeners};
use super::socket::Owner;
use crate::fields::PidSource;

/// Upper bound on remembered exits, by which owners are found to be gone. The oldest exit is
/// forgotten first.
pub const REMEMBERED: usize = 1 << 16;

/// Processes that have exited, and processes that own listeners.
#[derive(Default)]
pub struct Processes {
    /// The time of each exit, by process id. The kernel reuses process ids.
    pub exited: FxHashMap<u32, u64>,
    /// The exits in order of time.
    pub order: VecDeque<(u32, u64)>,
    /// Processes that own a listener.
    pub listen: FxHashSet<u32>,
    /// Set if the owners of listeners are in doubt. Only a search that begins after this time
    /// settles it.
    pub wanted_ns: Option<u64>,
    /// When the last search through the descriptors of all processes began; 0 before the first.
    pub searched_ns: u64,
}

impl Processes {
    /// Returns the owner, unless that process has exited since it was known to have the socket.
    #[inline]
    pub fn living(&self, owner: Owner) -> Option<Owner> {
        let is_gone = !self.exited.is_empty()
            && self
                .exited
                .get(&owner.task.pid)
                .is_some_and(|&exited_ns| exited_ns > owner.since_ns);
        (!is_gone).then_some(owner)
    }

    /// Notes that a process owns a listener.
    pub fn listens(&mut self, owner: Option<Owner>) {
        if let Some(owner) = owner {
            self.listen.insert(owner.task.pid);
        }
    }

    pub fn exit(&mut self, pid: u32, mono_ns: u64) {
        self.exited.insert(pid, mono_ns);
        self.order.push_back((pid, mono_ns));
        while self.order.len() > REMEMBERED
            && let Some((pid, mono_ns)) = self.order.pop_front()
        {
            if self.exited.get(&pid) == Some(&mono_ns) {
                self.exited.remove(&pid);
            }
        }
    }

    /// Requests a search through the descriptors of all processes that begins after `mono_ns`.
    pub fn want(&mut self, mono_ns: u64) {
        self.wanted_ns = Some(self.wanted_ns.unwrap_or(0).max(mono_ns));
    }
}

/// Returns the owner of a connection. That is the stored owner while its process lives. Before
/// accept() it is the listener's owner. An orphaned connection keeps its last known owner.
#[inline]
pub fn current_owner(
    listeners: &Listeners,
    processes: &Processes,
    connection: &Connection,
    orphaned: bool,
) -> Option<Owner> {
    match connection.socket.owner {
        Some(owner) if orphaned => Some(owner),
        Some(owner) => processes.living(owner),
        None => connection
            .waits_at()
            .and_then(|id| presumed(listeners, processes, id)),
    }
}

/// Returns the process that will probably accept the queued connections of a listener.
pub fn presumed(
    listeners: &Listeners,
    processes: &Processes,
    listener: ListenerId,
) -> Option<Owner> {
    let owner = processes.living(listeners.get(listener)?.socket.owner?)?;
    Some(Owner {
        source: PidSource::Presumed,
        ..owner
    })
}
