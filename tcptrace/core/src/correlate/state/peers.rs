//! The two ends of one connection, when both are on this host.

use std::net::IpAddr;

use hashlink::LinkedHashMap;
use rustc_hash::FxBuildHasher;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::socket::Socket;
use crate::event::{Sk, Tuple};

/// The other end, as far as it concerns this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// The number of the other end in the trace.
    pub conn: u64,
    /// The time at which its SYN was sent or received, if that is known.
    pub syn_ns: Option<u64>,
    /// The time at which it became ESTABLISHED: a client's connect() can return from then on.
    pub established_ns: u64,
}

/// Upper bound on ends that wait for their other end. An other end on this host comes soon; one on
/// another host never comes, so the ends that have waited for longest are forgotten first.
const MANY: usize = 1 << 15;

/// The ends that are ESTABLISHED and have not met their other end.
#[derive(Default)]
pub struct Peers {
    /// By own end and peer's. Network namespaces may use the same addresses.
    waiting: LinkedHashMap<Ends, SmallVec<[Waiting; 1]>, FxBuildHasher>,
}

type End = (IpAddr, u16);
type Ends = (End, End);

#[derive(Clone, Copy)]
struct Waiting {
    sk: Sk,
    netns: u32,
    /// Index of the device that its link-local addresses are of.
    scope: Option<u32>,
    peer: Peer,
}

impl Peers {
    /// An end has become ESTABLISHED. Gives the other one, and what it should know of this one.
    ///
    /// The mirrored addresses are the evidence. Loopback addresses mean the same namespace; others
    /// are looked for in the same one first, then in all, where only one may answer.
    pub fn meet(
        &mut self,
        sk: Sk,
        socket: &Socket,
        syn_ns: Option<u64>,
        now_ns: u64,
    ) -> Option<(Sk, Peer, Peer)> {
        let (own, other) = ends(&socket.tuple)?;
        let this = Peer {
            conn: socket.conn,
            syn_ns,
            established_ns: now_ns,
        };
        let (netns, scope) = (socket.netns, socket.scope);
        let Some(index) = self.position(netns, scope, own, other) else {
            let waiting = Waiting {
                sk,
                netns,
                scope,
                peer: this,
            };
            let all = self.waiting.entry((own, other));
            all.or_insert_with(SmallVec::new).push(waiting);
            if self.waiting.len() > MANY {
                self.waiting.pop_front();
            }
            return None;
        };
        let met = self.remove((other, own), index)?;
        // A socket that is connected to itself has both ends in one.
        (met.peer.conn != socket.conn).then_some((met.sk, met.peer, this))
    }

    /// Returns the index of the other end among those that wait with the mirrored addresses.
    ///
    /// On two links of a namespace the same link-local addresses may be used: the one at the same
    /// device is meant, or else the only one, at the other end of a cable.
    fn position(&self, netns: u32, scope: Option<u32>, own: End, other: End) -> Option<usize> {
        let waiting = self.waiting.get(&(other, own))?;
        let mut here = waiting
            .iter()
            .enumerate()
            .filter(|(_, it)| it.netns == netns);
        let here = match (here.next(), here.next()) {
            (Some((only, _)), None) => Some(only),
            _ => waiting
                .iter()
                .position(|it| (it.netns, it.scope) == (netns, scope)),
        };
        let elsewhere = (waiting.len() == 1 && !own.0.is_loopback()).then_some(0);
        here.or(elsewhere)
    }

    /// Returns an ESTABLISHED end that waits for one with these addresses, which is not ESTABLISHED yet.
    pub fn waiting_for(&self, netns: u32, tuple: &Tuple) -> Option<(Sk, Peer)> {
        let (own, other) = ends(tuple)?;
        let index = self.position(netns, None, own, other)?;
        let waiting = &self.waiting.get(&(other, own))?[index];
        Some((waiting.sk, waiting.peer))
    }

    /// An end is over.
    pub fn leave(&mut self, socket: &Socket) {
        let Some(key) = ends(&socket.tuple) else {
            return;
        };
        let waiting = self.waiting.get(&key);
        let index = waiting.and_then(|all| all.iter().position(|it| it.peer.conn == socket.conn));
        if let Some(index) = index {
            self.remove(key, index);
        }
    }

    fn remove(&mut self, key: Ends, index: usize) -> Option<Waiting> {
        let all = self.waiting.get_mut(&key)?;
        let removed = all.swap_remove(index);
        if all.is_empty() {
            self.waiting.remove(&key);
        }
        Some(removed)
    }
}

fn ends(tuple: &Tuple) -> Option<Ends> {
    let own = (tuple.laddr, tuple.lport?);
    Some((own, (tuple.raddr?, tuple.rport?)))
}
