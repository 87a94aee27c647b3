//! The two sockets of one connection, when both are on this host.

use std::net::IpAddr;

use hashlink::LinkedHashMap;
use rustc_hash::FxBuildHasher;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::socket::Socket;
use crate::event::{Sk, Tuple};

/// Facts about the peer's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// The peer's connection number in the trace.
    pub conn: u64,
    /// When the SYN of that socket was sent or received, if known.
    pub syn_ns: Option<u64>,
    /// When that socket became ESTABLISHED. A client's connect() can return from then on.
    pub established_ns: u64,
}

/// Upper bound on ESTABLISHED sockets that wait for their peer's socket. A peer on this host comes
/// soon; one on another host never comes. Therefore the sockets that have waited longest are
/// forgotten first.
const MANY: usize = 1 << 15;

/// The sockets that are ESTABLISHED and whose peer is not known.
#[derive(Default)]
pub struct Peers {
    /// By local and remote address. Network namespaces may use the same addresses.
    waiting: LinkedHashMap<Pair, SmallVec<[Waiting; 1]>, FxBuildHasher>,
}

type Endpoint = (IpAddr, u16);
type Pair = (Endpoint, Endpoint);

#[derive(Clone, Copy)]
struct Waiting {
    sk: Sk,
    netns: u32,
    /// Index of the device that link-local addresses belong to.
    scope: Option<u32>,
    peer: Peer,
}

impl Peers {
    /// Notes that a socket became ESTABLISHED. Returns its peer, if known, and the facts that each
    /// side learns about the other.
    ///
    /// Mirrored addresses are the evidence. Loopback addresses imply the same namespace. For other
    /// addresses, a peer is searched for in the same namespace first, then in all namespaces.
    /// There, only one socket may match.
    pub fn meet(
        &mut self,
        sk: Sk,
        socket: &Socket,
        syn_ns: Option<u64>,
        now_ns: u64,
    ) -> Option<(Sk, Peer, Peer)> {
        let (own, other) = pair(&socket.tuple)?;
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
        let peer_waiting = self.remove((other, own), index)?;
        // A socket that is connected to itself is its own peer.
        (peer_waiting.peer.conn != socket.conn).then_some((
            peer_waiting.sk,
            peer_waiting.peer,
            this,
        ))
    }

    /// Returns the index of the peer among the waiting sockets with the mirrored addresses.
    ///
    /// Two links of a namespace may use the same link-local addresses. A single waiting socket
    /// matches on any device, because a cable may join two links. Of several, the one on the same
    /// device matches.
    fn position(
        &self,
        netns: u32,
        scope: Option<u32>,
        own: Endpoint,
        other: Endpoint,
    ) -> Option<usize> {
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

    /// Returns the ESTABLISHED socket whose peer would have these addresses. The peer is not
    /// ESTABLISHED yet.
    pub fn waiting_for(&self, netns: u32, tuple: &Tuple) -> Option<(Sk, Peer)> {
        let (own, other) = pair(tuple)?;
        let index = self.position(netns, None, own, other)?;
        let waiting = &self.waiting.get(&(other, own))?[index];
        Some((waiting.sk, waiting.peer))
    }

    /// Removes a socket that has ended.
    pub fn leave(&mut self, socket: &Socket) {
        let Some(key) = pair(&socket.tuple) else {
            return;
        };
        let waiting = self.waiting.get(&key);
        let index = waiting.and_then(|all| all.iter().position(|it| it.peer.conn == socket.conn));
        if let Some(index) = index {
            self.remove(key, index);
        }
    }

    fn remove(&mut self, key: Pair, index: usize) -> Option<Waiting> {
        let all = self.waiting.get_mut(&key)?;
        let removed = all.swap_remove(index);
        if all.is_empty() {
            self.waiting.remove(&key);
        }
        Some(removed)
    }
}

fn pair(tuple: &Tuple) -> Option<Pair> {
    let own = (tuple.laddr, tuple.lport?);
    Some((own, (tuple.raddr?, tuple.rport?)))
}
