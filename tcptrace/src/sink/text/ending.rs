//! How a connection ended, and retransmissions and resets before that.

use std::fmt::{self, Display};
use std::io;

use super::paint::ALARM;
use super::piece::{Piece, Said};
use super::words::Who;
use super::{PROCESS, Text};
use crate::duration::Human;
use crate::event::{Direction, Retransmitted, State};
use crate::fields::{ClosedFirst, Connection, Ended, Reset, Retransmit, Side, Source};

impl Text {
    /// Writes `SYN sent again, 2 so far`. Retransmitted data is common and only shown with `-v`. A
    /// retransmitted SYN delays a client by a second or more.
    pub(super) fn retransmit(&mut self, x: &Retransmit) -> io::Result<()> {
        if x.retransmitted == Retransmitted::Data && !self.style.verbose {
            return Ok(());
        }
        self.begin(x.mono_ns, &x.subject, x.subject.conn);
        let (what, so_far) = (x.retransmitted.name(), x.retransmits);
        self.row
            .put(ALARM, (what, " sent again, ", so_far, " so far"))
            .column(PROCESS)
            .plain(Who(&x.subject));
        if self.style.verbose {
            self.detail(("in ", x.state));
            self.identity(&x.subject);
        }
        self.end()
    }

    /// Writes `RST sent: TCP_ABORT_ON_CLOSE`.
    pub(super) fn reset(&mut self, x: &Reset) -> io::Result<()> {
        self.begin(x.mono_ns, &x.subject, x.subject.conn);
        let what = match x.direction {
            Direction::Sent => "RST sent",
            Direction::Received => "RST received",
        };
        self.row.put(ALARM, what);
        if let Some(reason) = &x.rst_reason {
            self.row.plain((": ", Said(reason)));
        }
        self.row.column(PROCESS).plain(Who(&x.subject));
        if self.style.verbose {
            match x.state {
                Some(state) => self.detail(("in ", state)),
                None => self.detail("no socket"),
            }
            self.identity(&x.subject);
        }
        self.end()
    }
}

/// Formats `ended: connected in 45.2 µs, open for 5.103 s, closed here first, 18 B out, 0 B in, …`.
pub(crate) struct Ending<'a>(pub &'a Connection);

impl Piece for Ending<'_> {
    fn put(&self, to: &mut Vec<u8>) {
        let x = self.0;
        match x.state {
            State::Close => "ended".put(to),
            state if x.evicted => ("evicted while ", state, ", too many are open").put(to),
            state => ("still ", state, " at the end of the trace").put(to),
        }
        let mut parts = Parts { to, before: ": " };
        parts.beginning(x);
        if let Some(deferred) = deferred(x) {
            parts.add(deferred);
        }
        parts.how(x);
        if x.established_mono_ns.is_some() {
            parts.figures(x);
        }
    }
}

/// Returns `half-open for 1.500 s, as TCP_DEFER_ACCEPT waits for the first data`, or `None` without
/// TCP_DEFER_ACCEPT.
pub(super) fn deferred(x: &Connection) -> Option<impl Piece> {
    let is_deferred = x.defer_accept == Some(true) && x.established_mono_ns.is_some();
    let lasted = x.half_open_ns.map(|ns| (" for ", Human(ns)));
    is_deferred.then_some((
        "half-open",
        lasted,
        ", as TCP_DEFER_ACCEPT waits for the first data",
    ))
}

impl Display for Ending<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// Returns when the connection ended. The line of a connection that was reset in the accept queue
/// comes later, when accept() returns it.
fn ended(x: &Connection) -> u64 {
    x.closed_mono_ns.unwrap_or(x.mono_ns)
}

/// A comma-separated list.
struct Parts<'a> {
    to: &'a mut Vec<u8>,
    /// Separator before the next part.
    before: &'static str,
}

impl Parts<'_> {
    fn add(&mut self, part: impl Piece) {
        (self.before, part).put(self.to);
        self.before = ", ";
    }

    fn beginning(&mut self, x: &Connection) {
        match (x.handshake_ns, x.established_mono_ns) {
            (Some(ns), _) if x.subject.side == Some(Side::Server) => match x.syn_source {
                Some(Source::Srtt) => {
                    self.add(("handshake ≈ ", Human(ns), " (SYN-ACK to ESTABLISHED)"))
                }
                _ => self.add(("handshake ", Human(ns), " (SYN to ESTABLISHED)")),
            },
            (Some(ns), _) if x.syn_source == Some(Source::Srtt) => {
                self.add(("connected in ≈ ", Human(ns)));
            }
            (Some(ns), _) => self.add(("connected in ", Human(ns))),
            (None, None) if x.subject.side == Some(Side::Client) => {
                // A connection may end at the time of its SYN. An end before the SYN would be
                // wrong, but must not cause a panic.
                let tried = x.syn_mono_ns.map(|syn| ended(x).saturating_sub(syn));
                self.add(("not connected", tried.map(|ns| (" after ", Human(ns)))));
            }
            (None, _) => {}
        }
        if let Some(n @ 1..) = x.ending.syn_retransmits {
            self.add(("SYN sent again ", n, "×"));
        }
        if let Some(established) = x.established_mono_ns {
            let open = ended(x).saturating_sub(established);
            self.add(("open for ", Human(open)));
        }
    }

    fn how(&mut self, x: &Connection) {
        let first = x.ending.closed_first.map(|first| match first {
            ClosedFirst::Local => "closed here first",
            ClosedFirst::Remote => "closed by the peer first",
            ClosedFirst::Both => "closed by both at once",
        });
        // For an orderly end it is enough to say which end closed first.
        let ended = x.ending.ended;
        let ended = ended.filter(|&ended| ended != Ended::Orderly || first.is_none());
        for words in [first, ended.map(Ended::words)].into_iter().flatten() {
            self.add(words);
        }
    }

    fn figures(&mut self, x: &Connection) {
        let it = &x.ending;
        if let Some(n) = it.bytes_acked {
            self.add((n, " B out"));
        }
        if let Some(n) = it.bytes_received {
            self.add((n, " B in"));
        }
        if let Some(n @ 1..) = it.unread_bytes {
            self.add((n, " B unread"));
        }
        if let Some(n @ 1..) = it.retransmits {
            self.add((n, " retransmitted"));
        }
        if let Some(ns) = it.srtt_ns {
            self.add(("rtt ", Human(ns)));
        }
    }
}
