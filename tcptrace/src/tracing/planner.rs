//! Decides from the records alone when a snapshot of the kernel's sockets or counters is useful.
//!
//! A trace that is only recorded has no correlator to ask. The information kept here leads to at
//! least all snapshots that a correlator would request.

use std::collections::{BTreeMap, BTreeSet};

use crate::decode::Peek;
use crate::event::{Hook, State};
use crate::pipeline::SnapshotTargets;
use crate::trace::Begin;

const SYN_RECV: u8 = State::SynRecv as u8;
const FIN_WAIT2: u8 = State::FinWait2 as u8;
const CLOSE: u8 = State::Close as u8;
const LISTEN: u8 = State::Listen as u8;
const CLOSING: u8 = State::Closing as u8;

const SECOND_NS: u64 = 1_000_000_000;

/// Lifetime of a TIME_WAIT bucket (`TCP_TIMEWAIT_LEN`, include/net/tcp.h) with a margin. A bucket
/// in FIN_WAIT2 rarely lives longer (`net.ipv4.tcp_fin_timeout`).
const BUCKETS_NS: u64 = 62 * SECOND_NS;

/// Minimum time between two searches for the owners of listeners, while listeners receive
/// connections.
const HOLDERS_NS: u64 = 10 * SECOND_NS;

/// Time from a loss of records until open connections are compared with the kernel's sockets, and
/// the interval of this audit without a loss.
const AUDIT_AFTER_NS: u64 = 2 * SECOND_NS;
const AUDIT_EVERY_NS: u64 = 300 * SECOND_NS;

/// The facts from the records by which the planner decides.
pub struct SnapshotPlanner {
    /// No hook sees TIME_WAIT buckets.
    no_bucket_hook: bool,
    /// No hook sees the SYNs and ACKs that listeners drop.
    no_overflow_hook: bool,
    /// All network namespaces seen so far.
    namespaces: BTreeSet<u32>,
    /// Namespaces with listeners.
    listening: BTreeSet<u32>,
    /// Namespaces with TIME_WAIT buckets, and the time when the newest bucket was created.
    buckets: BTreeMap<u32, u64>,
    /// The namespace of the last record. The next record is nearly always in the same one.
    last: Option<u32>,
    /// Time of the last search for the owners of listeners.
    holders_ns: u64,
    wants_owners: bool,
    audit_ns: u64,
}

impl SnapshotPlanner {
    pub fn new(begin: &Begin) -> SnapshotPlanner {
        let sees = |hook| matches!(begin.hooks.get(&hook), Some(Some(_)));
        SnapshotPlanner {
            no_bucket_hook: !sees(Hook::TimewaitSock),
            no_overflow_hook: !sees(Hook::ListenOverflow),
            namespaces: BTreeSet::new(),
            listening: BTreeSet::new(),
            buckets: BTreeMap::new(),
            last: None,
            holders_ns: begin.mono_ns,
            wants_owners: false,
            audit_ns: begin.mono_ns + AUDIT_EVERY_NS,
        }
    }

    /// Updates the state from a record.
    #[inline]
    pub fn see(&mut self, peek: Peek) {
        match peek {
            Peek::State {
                mono_ns,
                netns,
                old,
                new,
                ..
            } => {
                self.in_namespace(netns);
                match (old, new) {
                    (_, LISTEN) => {
                        self.listening.insert(netns);
                        self.wants_owners = true;
                    }
                    (LISTEN, SYN_RECV) => {
                        self.wants_owners |= mono_ns > self.holders_ns + HOLDERS_NS;
                    }
                    (FIN_WAIT2 | CLOSING, CLOSE) => {
                        self.buckets.insert(netns, mono_ns);
                    }
                    _ => {}
                }
            }
            Peek::Socket { netns, state, .. } => {
                self.in_namespace(netns);
                if state == LISTEN {
                    self.listening.insert(netns);
                }
            }
            Peek::Process => self.wants_owners = true,
            Peek::Sched { .. } => {}
        }
    }

    fn in_namespace(&mut self, netns: u32) {
        if self.last != Some(netns) {
            self.last = Some(netns);
            self.namespaces.insert(netns);
        }
    }

    /// Schedules an audit of the open connections, because records were lost or program runs were
    /// skipped.
    pub fn lost(&mut self, mono_ns: u64) {
        self.audit_ns = self.audit_ns.min(mono_ns + AUDIT_AFTER_NS);
    }

    /// Returns the snapshots that are useful now, as a correlator would request them. See
    /// [`SnapshotTargets`].
    pub fn targets(&mut self, mono_ns: u64, is_last: bool) -> SnapshotTargets {
        self.buckets
            .retain(|_, since_ns| since_ns.saturating_add(BUCKETS_NS) > mono_ns);
        let audits = is_last || mono_ns >= self.audit_ns;
        if audits {
            self.audit_ns = mono_ns + AUDIT_EVERY_NS;
        }
        let buckets = self.buckets.keys().copied();
        SnapshotTargets {
            sockets: buckets.filter(|_| self.no_bucket_hook).collect(),
            counters: match self.no_overflow_hook {
                true => self.listening.clone(),
                false => BTreeSet::new(),
            },
            audit: match audits {
                true => self.namespaces.clone(),
                false => BTreeSet::new(),
            },
        }
    }

    /// Returns all network namespaces seen so far.
    pub fn namespaces(&self) -> BTreeSet<u32> {
        self.namespaces.clone()
    }

    /// Returns true once if the owners of listeners should be searched.
    pub fn wants_owners(&mut self) -> bool {
        std::mem::take(&mut self.wants_owners)
    }

    /// Notes that the owners of listeners have been searched.
    pub fn owners_searched(&mut self, mono_ns: u64) {
        self.holders_ns = mono_ns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_000 * SECOND_NS;

    /// Returns the planner of a trace without hooks for TIME_WAIT buckets and for listen overflows.
    fn planner() -> SnapshotPlanner {
        SnapshotPlanner::new(&Begin {
            mono_ns: START,
            ..Begin::default()
        })
    }

    fn state(seconds: u64, netns: u32, old: State, new: State) -> Peek {
        Peek::State {
            mono_ns: START + seconds * SECOND_NS,
            netns,
            cgroup: 0,
            old: old as u8,
            new: new as u8,
        }
    }

    fn worth(it: &mut SnapshotPlanner, seconds: u64) -> SnapshotTargets {
        it.targets(START + seconds * SECOND_NS, false)
    }

    #[test]
    fn namespaces_with_buckets_get_snapshots_until_the_buckets_expire() {
        let mut it = planner();
        it.see(state(1, 4, State::FinWait2, State::Close));
        it.see(state(1, 5, State::Established, State::Close));
        assert_eq!(worth(&mut it, 2).sockets, [4].into());
        assert_eq!(worth(&mut it, 62).sockets, [4].into());
        assert!(worth(&mut it, 64).sockets.is_empty());

        let hooks = [(Hook::TimewaitSock, Some("fentry".to_owned()))].into();
        let mut it = SnapshotPlanner::new(&Begin {
            hooks,
            ..Begin::default()
        });
        it.see(state(1, 4, State::FinWait2, State::Close));
        assert!(worth(&mut it, 2).sockets.is_empty());
    }

    #[test]
    fn counters_are_read_in_namespaces_with_listeners() {
        let mut it = planner();
        it.see(state(1, 4, State::Close, State::Listen));
        it.see(state(1, 5, State::Close, State::SynSent));
        it.see(Peek::Socket {
            netns: 6,
            cgroup: 0,
            state: State::Listen as u8,
        });
        assert_eq!(worth(&mut it, 2).counters, [4, 6].into());
        assert_eq!(it.namespaces(), [4, 5, 6].into());
    }

    #[test]
    fn an_audit_is_due_after_lost_records_and_every_five_minutes_and_at_the_end() {
        let mut it = planner();
        it.see(state(1, 4, State::Close, State::SynSent));
        assert!(worth(&mut it, 299).audit.is_empty());
        assert_eq!(worth(&mut it, 300).audit, [4].into());
        assert!(worth(&mut it, 301).audit.is_empty());
        it.lost(START + 310 * SECOND_NS);
        assert!(worth(&mut it, 311).audit.is_empty());
        assert_eq!(worth(&mut it, 312).audit, [4].into());
        let last = it.targets(START + 313 * SECOND_NS, true);
        assert_eq!(last.audit, [4].into());
    }

    #[test]
    fn owners_are_searched_when_they_may_have_changed() {
        let mut it = planner();
        assert!(!it.wants_owners());
        it.see(state(1, 4, State::Close, State::Listen));
        assert!(it.wants_owners());
        assert!(!it.wants_owners(), "only once");
        it.owners_searched(START + 2 * SECOND_NS);
        it.see(state(11, 4, State::Listen, State::SynRecv));
        assert!(!it.wants_owners());
        it.see(state(13, 4, State::Listen, State::SynRecv));
        assert!(it.wants_owners());
        it.see(Peek::Process);
        assert!(it.wants_owners());
    }
}
