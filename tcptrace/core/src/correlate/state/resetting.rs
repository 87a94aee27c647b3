//! Connections that the kernel sends a RST for after their end.

use std::collections::VecDeque;

use crate::event::Sk;
use crate::fields::{Cause, Subject};

/// Upper bound on the connections that a RST is waited for.
pub const RESETTING: usize = 32;

/// Connections that have ended in a way that a RST follows, which the kernel sends from the socket
/// when that is CLOSE.
#[derive(Default)]
pub struct Resetting {
    pub ended: VecDeque<(Sk, Subject)>,
}

impl Resetting {
    /// Whether the kernel may send a RST after a last change of state with this cause.
    pub fn is_followed_by_rst(cause: Option<Cause>) -> bool {
        matches!(
            cause,
            None | Some(Cause::Abort | Cause::Disconnect | Cause::DataReceived | Cause::AckOfFin)
        )
    }

    /// A connection has made its last change of state.
    pub fn add(&mut self, sk: Sk, subject: Subject) {
        if self.ended.len() == RESETTING {
            self.ended.pop_front();
        }
        self.ended.push_back((sk, subject));
    }

    /// The pointer has another life.
    pub fn forget(&mut self, sk: Sk) {
        if !self.ended.is_empty() {
            self.ended.retain(|(other, _)| *other != sk);
        }
    }

    /// The connection that a RST of this socket belongs to.
    pub fn take(&mut self, sk: Sk) -> Option<Subject> {
        let at = self.ended.iter().position(|(other, _)| *other == sk)?;
        Some(self.ended.remove(at)?.1)
    }
}
