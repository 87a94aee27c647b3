//! The cause of a change of state, and the facts it is concluded from.

use crate::fields::{Cause, Ended};

/// A cause, the kernel function that acts on it (Linux 6.12), and the section of RFC 9293 on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Why {
    pub cause: Cause,
    pub function: &'static str,
    /// Section of RFC 9293; empty if it has no section on this cause.
    pub rfc: &'static str,
}

/// Facts about a change of state that the event itself does not contain.
#[derive(Clone, Copy, Default)]
pub struct Clues {
    /// At the socket's previous change of state, no process had the socket.
    pub was_orphaned: bool,
    /// The kernel sends a RST from this socket right after the change.
    pub reset_follows: bool,
    /// Data may have arrived after the process shut down reading, which the kernel answers with a
    /// RST.
    pub data_may_be_late: bool,
}

/// The judgement on a change of state.
#[derive(Clone, Copy, Default)]
pub struct Judged {
    /// The cause of the change.
    pub why: Option<Why>,
    /// The way in which it ended the connection.
    pub ended: Option<Ended>,
}

impl Why {
    /// Returns the section of RFC 9293, if there is one.
    pub fn rfc(self) -> Option<&'static str> {
        Some(self.rfc).filter(|rfc| !rfc.is_empty())
    }
}
