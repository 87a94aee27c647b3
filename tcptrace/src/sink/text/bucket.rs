//! TIME_WAIT and FIN_WAIT2 buckets, which the kernel keeps after the socket.

use std::io;

use super::Text;
use crate::duration::Human;
use crate::fields::{BucketEnd, Source, TimeWait, Transition};

impl Text {
    /// Adds a note to a CLOSE line if a bucket continues without the socket. Adds a note to a
    /// change that a snapshot found, because it happened earlier.
    pub(super) fn bucket(&mut self, x: &Transition) {
        if let Some(state) = x.bucket {
            self.detail(("the socket is gone, ", state, " goes on without it"));
        }
        if x.source == Source::SocketIterator {
            self.detail("found by a snapshot, it happened earlier");
        }
    }

    /// Writes `TIME_WAIT expired: FIN_WAIT2 for 500.0 ms, TIME_WAIT for 60.01 s`.
    pub(super) fn time_wait(&mut self, x: &TimeWait) -> io::Result<()> {
        self.begin(x.mono_ns, &x.subject, x.subject.conn);
        let end = match x.bucket_end {
            Some(BucketEnd::Expired) => "expired",
            Some(BucketEnd::Reused) => "was reused",
            Some(BucketEnd::Reset) => "was reset",
            Some(BucketEnd::Purged) => "ended with its namespace",
            Some(BucketEnd::Gone) => "is over",
            None => "not seen to end",
        };
        self.row.plain((x.state, " ", end));
        let times = [("FIN_WAIT2", x.fin_wait2_ns), ("TIME_WAIT", x.time_wait_ns)];
        let mut before = ": ";
        for (state, ns) in times {
            if let Some(ns) = ns {
                self.row.plain((before, state, " for ", Human(ns)));
                before = ", ";
            }
        }
        self.end()
    }
}
