//! Request sockets that have no child socket yet.

use rustc_hash::FxHashMap;

use super::half_open::HalfOpen;
use super::handshake::Handshake;
use super::listener::ListenerId;
use crate::event::{CloneOf, Request, Sk, Tuple};
use crate::fields::Cause;

/// The request socket or the SYN that a child socket was made from.
pub struct Origin {
    /// The request socket's connection number, if it had one.
    pub conn: Option<u64>,
    pub listener: Option<ListenerId>,
    pub handshake: Handshake,
    /// The segment that made the child socket.
    pub cause: Cause,
}

/// The request sockets of a trace that have no child socket yet.
#[derive(Default)]
pub struct Requests {
    pub half_open: FxHashMap<Sk, HalfOpen>,
    /// Kernel addresses of request sockets, by network namespace and tuple.
    pub at_tuple: FxHashMap<(u32, Tuple), Sk>,
    /// The last request socket that was about to get a child socket, by CPU.
    pub cloning: FxHashMap<u16, Cloning>,
}

/// A request socket whose child socket is the next socket to be born on its CPU.
pub struct Cloning {
    pub mono_ns: u64,
    pub request: Request,
    pub of: CloneOf,
    /// Number of event losses noticed so far. After a later loss, the birth of the child may be
    /// lost.
    pub losses: u64,
}

impl Requests {
    /// Returns the half-open connection of the request socket at this kernel address.
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

    /// Removes and returns the half-open connections of all request sockets.
    pub fn drain(&mut self) -> Vec<HalfOpen> {
        self.at_tuple.clear();
        self.half_open.drain().map(|(_, it)| it).collect()
    }
}
