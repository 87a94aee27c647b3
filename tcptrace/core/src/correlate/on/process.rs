//! Exits and renames of processes, and the processes that hold listeners.

use rustc_hash::FxHashMap;

use crate::correlate::state::Correlator;
use crate::correlate::state::connection::Connection;
use crate::correlate::state::listener::ListenerId;
use crate::correlate::state::processes::{current_owner, presumed};
use crate::correlate::state::socket::Owner;
use crate::event::{Comm, Event, Holders, Process, ProcessStep, Sk};
use crate::fields::PidSource;

/// Maximum age of the evidence that a process has a listener, in nanoseconds. No hook sees a
/// process close its descriptor. Therefore an older owner is searched for again before it is
/// presumed to accept.
const TRUSTED_NS: u64 = 10_000_000_000;

impl Correlator {
    /// Returns the owner of a connection.
    pub(super) fn current_owner(&self, connection: &Connection) -> Option<Owner> {
        let orphaned = connection.socket.was_orphaned;
        current_owner(&self.listeners, &self.processes, connection, orphaned)
    }

    /// Returns the process that will probably accept the connections of this listener.
    pub(super) fn presumed(&self, listener: Option<ListenerId>) -> Option<Owner> {
        presumed(&self.listeners, &self.processes, listener?)
    }

    /// Requests a search for a listener's owner before the owner is presumed to accept, unless a
    /// recent search found it.
    pub(super) fn check_presumed_owner(&mut self, listener: ListenerId, mono_ns: u64) {
        let owner = (self.listeners.get(listener)).and_then(|it| it.socket.owner);
        let searched_ns = self.processes.searched_ns;
        let is_sure = owner
            .and_then(|owner| self.processes.living(owner))
            .is_some_and(|owner| {
                owner.since_ns <= searched_ns && mono_ns.saturating_sub(searched_ns) < TRUSTED_NS
            });
        if !is_sure {
            self.processes.want(mono_ns);
        }
    }

    /// Returns whether a search through the descriptors of all processes can find an owner.
    pub fn wants_holders(&self) -> bool {
        let processes = &self.processes;
        (processes.wanted_ns).is_some_and(|wanted_ns| processes.searched_ns <= wanted_ns)
    }

    /// Handles the exit or the new name of a process.
    pub(super) fn process(&mut self, event: &Event, process: &Process) {
        let owns_listener = self.processes.listen.contains(&process.pid);
        match process.step {
            ProcessStep::Exited => {
                self.processes.exit(process.pid, event.mono_ns);
                self.processes.listen.remove(&process.pid);
            }
            ProcessStep::Renamed { comm } if owns_listener => {
                let owners = self.listeners.open_owners();
                owners
                    .filter(|owner| owner.task.pid == process.pid)
                    .for_each(|owner| rename(owner, comm));
            }
            ProcessStep::Renamed { .. } => {}
        }
        // exec() can close descriptors too.
        if owns_listener {
            self.processes.want(event.mono_ns);
        }
    }

    /// Handles the result of a search for the holders of listeners. A listener without a found
    /// holder keeps its living owner: io_uring has files without a descriptor, and other PID
    /// namespaces may be hidden.
    pub(super) fn holders(&mut self, event: &Event, holders: &Holders) {
        // A damaged recording may have a search that begins after its result.
        let began_ns = holders.began_ns.min(event.mono_ns);
        self.processes.searched_ns = self.processes.searched_ns.max(began_ns);
        let mut of_sk: FxHashMap<Sk, Vec<Owner>> = FxHashMap::default();
        for holder in &holders.holders {
            let owner = Owner {
                task: holder.task,
                source: PidSource::Holder,
                since_ns: began_ns,
            };
            if self.processes.living(owner).is_some() {
                of_sk.entry(holder.sk).or_default().push(owner);
            }
        }
        for (sk, found) in of_sk {
            let id = self.listeners.open_at(sk, began_ns);
            let Some(listener) = id.and_then(|id| self.listeners.get_mut(id)) else {
                continue;
            };
            let known = listener.socket.owner;
            let known = known.and_then(|owner| self.processes.living(owner));
            let still = known.and_then(|known| {
                let same = found.iter().find(|it| it.task.pid == known.task.pid)?;
                let mut known = known;
                known.since_ns = known.since_ns.max(same.since_ns);
                rename(&mut known, same.task.process);
                Some(known)
            });
            // An owner that got the listener after the search began is more recent than the search.
            let later = known.filter(|known| known.since_ns > began_ns);
            let owner = later.or(still).or(found.first().copied());
            listener.socket.owner = owner;
            self.processes.listens(owner);
        }
    }
}

/// Sets the new name of a process, and of its first thread.
fn rename(owner: &mut Owner, comm: Comm) {
    let task = &mut owner.task;
    if task.tid == task.pid || task.tid == 0 {
        task.comm = comm;
    }
    task.process = comm;
}
