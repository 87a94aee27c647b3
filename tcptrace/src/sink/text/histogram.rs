//! Histogram lines of `--depth histogram`.

use std::io;

use super::paint::STRONG;
use super::piece::Said;
use super::words::{Count, waited_long};
use super::{CONN, TUPLE, Text};
use crate::duration::Human;
use crate::fields::{Histogram, Side, Times};

impl Text {
    /// Writes `server :7878  4021 connections, handshake p50 20.48 µs p99 …, in the accept queue
    /// p50 …`.
    pub(super) fn histogram(&mut self, x: &Histogram) -> io::Result<()> {
        self.time(x.mono_ns);
        let (side, arrow) = match x.side {
            Side::Client => ("client", "→ "),
            _ => ("server", ""),
        };
        self.row.column(CONN).plain(side).column(TUPLE + 2);
        self.row
            .put(STRONG, (arrow, ":", x.port))
            .column(TUPLE + 10)
            .plain(format_args!("{}", Count(x.went_well, "connection")));
        self.times("handshake", x.handshake.as_ref());
        self.times("in the accept queue", x.accept_queue.as_ref());
        if let (Some(queued), Some(awaited)) = (x.queued, x.awaited) {
            self.row
                .plain((", ", queued, " queued, ", (awaited, " awaited")));
        }
        if let Some(late) = waited_long(x.late.as_ref()) {
            self.row.plain(("; ", Said(&late)));
        }
        if self.style.verbose {
            self.detail(("net:[", x.netns, "]"));
        }
        self.end()
    }

    fn times(&mut self, what: &'static str, times: Option<&Times>) {
        if let Some(times) = times {
            let [p50, p99, max] = [times.p50_ns, times.p99_ns, times.max_ns].map(Human);
            self.row
                .plain((", ", what, (" p50 ", p50), (" p99 ", p99, " max ", max)));
        }
    }
}
