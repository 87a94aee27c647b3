//! Connections that the kernel sends a RST for after their end.

use std::collections::VecDeque;

use crate::event::Sk;
use crate::fields::{Cause, Subject};

/// Upper bound on connections that are remembered for a RST after their end.
pub const RESETTING: usize = 32;

/// Connections that ended in a way that the kernel follows with a RST. It sends the RST when the
/// socket is already CLOSE.
#[derive(Default)]
pub struct Resetting {
    pub ended: VecDeque<(Sk, Subject)>,
}

impl Resetting {
    /// Returns whether the kernel may send a RST after a change to CLOSE with this cause.
    pub fn is_followed_by_rst(cause: Option<Cause>) -> bool {
        matches!(
            cause,
            None | Some(Cause::Abort | Cause::Disconnect | Cause::DataReceived | Cause::AckOfFin)
        )
    }

    /// Adds a connection that has entered CLOSE.
    pub fn add(&mut self, sk: Sk, subject: Subject) {
        if self.ended.len() == RESETTING {
            self.ended.pop_front();
        }
        self.ended.push_back((sk, subject));
    }

    /// Forgets the connection whose kernel address another socket uses now.
    pub fn forget(&mut self, sk: Sk) {
        if !self.ended.is_empty() {
            self.ended.retain(|(other, _)| *other != sk);
        }
    }

    /// Takes the connection that a RST sent from this socket belongs to.
    pub fn take(&mut self, sk: Sk) -> Option<Subject> {
        let at = self.ended.iter().position(|(other, _)| *other == sk)?;
        Some(self.ended.remove(at)?.1)
    }
}
