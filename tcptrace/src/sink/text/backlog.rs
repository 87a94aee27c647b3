//! The limit of a listener's queues.

use super::Text;
use crate::fields::Backlog;

impl Text {
    /// `(backlog 128, asked for 4096: clipped by net.core.somaxconn)`. A limit that is as it was
    /// asked for is no news, nor is one below 0, which asks for as much as there is.
    pub(super) fn backlog(&mut self, x: &Backlog) {
        let Some(max) = x.backlog_max else { return };
        match clipped(x) {
            Some(clipped) => self.detail(("backlog ", max, ", ", clipped)),
            None if self.style.verbose => self.detail(("backlog ", max)),
            None => {}
        }
    }
}

/// `asked for 4096: clipped by net.core.somaxconn`; `None` when it is not.
pub fn clipped(x: &Backlog) -> Option<String> {
    let asked = x.backlog_asked.filter(|&asked| asked >= 0)?;
    let is_clipped = x.backlog_clipped == Some(true);
    is_clipped.then(|| format!("asked for {asked}: clipped by net.core.somaxconn"))
}
