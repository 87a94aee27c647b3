//! The limit of a listener's queues.

use super::Text;
use crate::fields::Backlog;

impl Text {
    /// Shows a clipped limit: `(backlog 128, asked for 4096: clipped by net.core.somaxconn)`. An
    /// unclipped limit is only shown with `-v`. A negative argument asks for the maximum, so it
    /// does not count as clipped.
    pub(super) fn backlog(&mut self, x: &Backlog) {
        let Some(max) = x.backlog_max else { return };
        match clipped(x) {
            Some(clipped) => self.detail(("backlog ", max, ", ", clipped)),
            None if self.style.verbose => self.detail(("backlog ", max)),
            None => {}
        }
    }
}

/// Returns `asked for 4096: clipped by net.core.somaxconn`, or `None` if the limit is not clipped.
pub fn clipped(x: &Backlog) -> Option<String> {
    let asked = x.backlog_asked.filter(|&asked| asked >= 0)?;
    let is_clipped = x.backlog_clipped == Some(true);
    is_clipped.then(|| format!("asked for {asked}: clipped by net.core.somaxconn"))
}
