//! Request sockets that have no child yet.

use rustc_hash::FxHashMap;

use super::half_open::HalfOpen;
use super::handshake::Handshake;
use super::listener::ListenerId;
use crate::event::{CloneOf, Request, Sk, Tuple};
use crate::fields::Cause;

/// The request or the SYN that a child was made from.
pub struct Origin {
    /// The request's number, if it had one.
    pub conn: Option<u64>,
    pub listener: Option<ListenerId>,
    pub handshake: Handshake,
    /// The segment that made the child.
    pub cause: Cause,
}

/// The requests of a trace that have no child yet.
#[derive(Default)]
pub struct Requests {
    pub half_open: FxHashMap<Sk, HalfOpen>,
    /// Addresses of requests by network namespace and tuple.
    pub at_tuple: FxHashMap<(u32, Tuple), Sk>,
    /// The last request that was about to get a child, by CPU.
    pub cloning: FxHashMap<u16, Cloning>,
}

/// A request whose child is the next socket to be born on its CPU.
pub struct Cloning {
    pub mono_ns: u64,
    pub request: Request,
    pub of: CloneOf,
    /// Number of losses noticed so far. A later loss may be that of the birth.
    pub losses: u64,
}

impl Requests {
    /// Returns the half-open request at this address.
    pub fn half_open(&mut self, req: Sk) -> Option<&mut HalfOpen> {
        self.half_open.get_mut(&req)
    }

    pub fn insert(&mut self, req: Sk, half_open: HalfOpen) {
        self.at_tuple.insert(half_open.key(), req);
        self.half_open.insert(req, half_open);
    }

    pub fn take(&mut self, req: Sk) -> Option<HalfOpen> {
        let half_open = self.half_open.remove(&req)?;
        self.at_tuple.remove(&half_open.key());
        Some(half_open)
    }

    pub fn take_at(&mut self, netns: u32, tuple: Tuple) -> Option<HalfOpen> {
        let req = self.at_tuple.get(&(netns, tuple)).copied()?;
        self.take(req)
    }

    /// Removes and returns all requests.
    pub fn drain(&mut self) -> Vec<HalfOpen> {
        self.at_tuple.clear();
        self.half_open.drain().map(|(_, it)| it).collect()
    }
}
