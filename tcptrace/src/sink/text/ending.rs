//! How a connection ended, and what the kernel said on the way there.

use std::io;

use super::paint::ALARM;
use super::words::Who;
use super::{PROCESS, Text};
use crate::duration::Human;
use crate::event::{Direction, Retransmitted, State};
use crate::fields::{ClosedFirst, Connection, Ended, Reset, Retransmit, Side, Source};

impl Text {
    /// `SYN sent again, 2 so far`. Lost data is the network's daily business; a lost SYN is a
    /// client that waits a second and more.
    pub(super) fn retransmit(&mut self, x: &Retransmit) -> io::Result<()> {
        if x.what == Retransmitted::Data && !self.style.verbose {
            return Ok(());
        }
        self.begin(x.mono_ns, &x.subject, x.subject.conn);
        let (what, so_far) = (x.what.name(), x.retransmits);
        self.row
            .put(ALARM, format_args!("{what} sent again, {so_far} so far"))
            .column(PROCESS)
            .plain(Who(&x.subject));
        if self.style.verbose {
            self.detail(format_args!("in {}", x.state));
            self.identity(&x.subject);
        }
        self.end()
    }

    /// `RST sent: TCP_ABORT_ON_CLOSE`
    pub(super) fn reset(&mut self, x: &Reset) -> io::Result<()> {
        self.begin(x.mono_ns, &x.subject, x.subject.conn);
        let what = match x.direction {
            Direction::Sent => "RST sent",
            Direction::Received => "RST received",
        };
        self.row.put(ALARM, what);
        if let Some(reason) = &x.reason {
            self.row.plain(format_args!(": {reason}"));
        }
        self.row.column(PROCESS).plain(Who(&x.subject));
        if self.style.verbose {
            match x.state {
                Some(state) => self.detail(format_args!("in {state}")),
                None => self.detail("no socket"),
            }
            self.identity(&x.subject);
        }
        self.end()
    }
}

/// `ended: connected in 45.2 µs, open for 5.103 s, closed here first, 18 B out, 0 B in, …`
pub(super) fn ending(x: &Connection) -> String {
    let mut parts = Vec::new();
    match (x.handshake_ns, x.established_mono_ns) {
        (Some(ns), _) if x.subject.side == Some(Side::Server) => {
            let took = Human(ns);
            parts.push(match x.syn_source {
                Some(Source::Srtt) => format!("handshake ≈ {took} (SYN-ACK to ESTABLISHED)"),
                _ => format!("handshake {took} (SYN to ESTABLISHED)"),
            });
        }
        (Some(ns), _) => parts.push(format!("connected in {}", Human(ns))),
        (None, None) if x.subject.side == Some(Side::Client) => {
            // Equal times are possible, earlier ones are not; a wrong clock must not panic.
            let tried = x.syn_mono_ns.map(|syn| x.mono_ns.saturating_sub(syn));
            parts.push(match tried {
                Some(ns) => format!("not connected after {}", Human(ns)),
                None => "not connected".to_owned(),
            });
        }
        (None, _) => {}
    }
    if let Some(n) = x.ending.syn_retransmits.filter(|&n| n > 0) {
        parts.push(format!("SYN sent again {n}×"));
    }
    if let Some(established) = x.established_mono_ns {
        let open = x.mono_ns.saturating_sub(established);
        parts.push(format!("open for {}", Human(open)));
    }
    parts.extend(how(x));
    if x.established_mono_ns.is_some() {
        parts.extend(figures(x));
    }
    let mut text = match x.state {
        State::Close => "ended".to_owned(),
        state if x.evicted => format!("given up while {state}, too many are open"),
        state => format!("still {state} at the end of the trace"),
    };
    if !parts.is_empty() {
        text.push_str(": ");
        text.push_str(&parts.join(", "));
    }
    text
}

fn how(x: &Connection) -> impl Iterator<Item = String> {
    let first = x.ending.closed_first.map(|first| match first {
        ClosedFirst::Local => "closed here first",
        ClosedFirst::Remote => "closed by the peer first",
        ClosedFirst::Both => "closed by both at once",
    });
    // Who closed first says enough of an orderly end.
    let ended = x.ending.ended;
    let ended = ended.filter(|&ended| ended != Ended::Orderly || first.is_none());
    let both = [first, ended.map(Ended::words)].into_iter().flatten();
    both.map(str::to_owned)
}

fn figures(x: &Connection) -> impl Iterator<Item = String> {
    let it = &x.ending;
    let some = |n: Option<u32>| n.filter(|&n| n > 0);
    [
        it.bytes_acked.map(|n| format!("{n} B out")),
        it.bytes_received.map(|n| format!("{n} B in")),
        some(it.unread_bytes).map(|n| format!("{n} B unread")),
        some(it.retransmits).map(|n| format!("{n} retransmitted")),
        it.srtt_ns.map(|ns| format!("rtt {}", Human(ns))),
    ]
    .into_iter()
    .flatten()
}
