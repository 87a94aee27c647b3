//! Sockets that are older than the trace.

use std::io;

use super::words::Who;
use super::{IN_STATE, PROCESS, Text};
use crate::fields::{Preexisting, Side};

impl Text {
    /// Writes `in LISTEN before … (2 queued)`. Connections are only shown with `-v`: there may be
    /// thousands, and each appears at its first event.
    pub(super) fn preexisting(&mut self, x: &Preexisting) -> io::Result<()> {
        if x.subject.side != Some(Side::Listener) && !self.style.verbose {
            return Ok(());
        }
        self.begin(x.mono_ns, &x.subject, x.subject.conn);
        self.row.plain(("in ", x.state, " before"));
        self.row
            .column(IN_STATE)
            .column(PROCESS)
            .plain(Who(&x.subject));
        if let Some(queued @ 1..) = x.backlog_len {
            self.detail((queued, " queued"));
        }
        if self.style.verbose {
            if let Some(limit) = x.backlog_max {
                self.detail(("queue limit ", limit));
            }
            self.identity(&x.subject);
        }
        self.end()
    }
}
