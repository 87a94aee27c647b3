//! Facts about a handshake besides its states, and the parts that the attached hooks can show.

use serde::{Deserialize, Serialize};

use super::dropped_syns::Drops;
use super::suspected::Suspected;
use crate::event::{Hook, Request};
use crate::fields::Source;

/// A round-trip time in whole milliseconds may come from a TCP timestamp (RFC 7323), which has that
/// resolution.
pub const TIMESTAMP_NS: u64 = 1_000_000;

/// The parts of a handshake that the attached hooks show.
#[derive(Clone, Copy, Default)]
pub struct Visibility {
    pub requests: bool,
    pub overflows: bool,
    pub synack_retransmits: bool,
    /// True if every accept() is seen, not only those by its system call.
    pub all_accepts: bool,
    /// True if long waits in the accept queue are explained.
    pub explains: bool,
}

impl Visibility {
    pub fn of(hooks: impl IntoIterator<Item = Hook>) -> Visibility {
        let mut visibility = Visibility::default();
        for hook in hooks {
            match hook {
                Hook::RequestSock => visibility.requests = true,
                Hook::ListenOverflow => visibility.overflows = true,
                Hook::TcpRetransmitSynack => visibility.synack_retransmits = true,
                _ => {}
            }
        }
        visibility
    }
}

/// Facts about one connection's handshake besides its states.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub struct Handshake {
    /// When the SYN was sent or received, and the evidence for it.
    pub syn: Option<(u64, Source)>,
    pub synack_retransmits: Option<u32>,
    pub syncookie: Option<bool>,
    pub defer_accept: Option<bool>,
    /// Number of the listener's other request sockets when this one began.
    pub syn_queue_ahead: Option<u32>,
    /// Drops of the handshake's segments at a full queue.
    pub drops: Drops,
    /// Suspected drops of the handshake's segments, where no hook sees drops.
    pub suspected: Suspected,
}

impl Handshake {
    /// Takes the facts from a request socket.
    pub fn of(request: &Request, drops: Drops) -> Handshake {
        Handshake {
            syn: request.synack_ns.map(|ns| (ns, Source::RequestSock)),
            synack_retransmits: Some(request.synack_retransmits),
            syncookie: Some(false),
            defer_accept: Some(request.defer_accept),
            syn_queue_ahead: None,
            drops,
            suspected: Suspected::default(),
        }
    }
}
