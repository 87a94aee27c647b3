//! Connections that come as counts: lines of what is new, and their place in the summary.

use rustc_hash::FxHashMap;

use super::Correlator;
use crate::event::{Distribution, Event, Tally, Tuple};
use crate::fields::{Histogram, Line, Side, Times, Verdict};

/// The last counts of each port.
#[derive(Default)]
pub(super) struct Histograms {
    last: FxHashMap<(u32, u16, bool), Tally>,
    /// When they were taken; `None`: not yet.
    taken_ns: Option<u64>,
}

impl Correlator {
    /// The kernel side's counts so far, which include all earlier ones.
    pub(super) fn tallied(&mut self, event: &Event, tallies: &[Tally], out: &mut Vec<Line>) {
        let since_ns = self.histograms.taken_ns.unwrap_or(self.attached_ns);
        for tally in tallies {
            let key = (tally.netns, tally.port, tally.client);
            let fresh = match self.histograms.last.insert(key, tally.clone()) {
                Some(last) => since(tally, &last),
                None => tally.clone(),
            };
            if fresh.queued + fresh.awaited > 0 {
                let interval_ns = event.mono_ns.saturating_sub(since_ns);
                out.push(Line::Histogram(line(&fresh, event.mono_ns, interval_ns)));
            }
        }
        self.histograms.taken_ns = Some(event.mono_ns);
    }

    /// Adds the counts to the totals.
    pub(super) fn add_tallies(&mut self) {
        let last = std::mem::take(&mut self.histograms.last);
        for tally in last.values().filter(|tally| tally.client) {
            self.totals.clients += tally.queued;
        }
        for tally in last.into_values().filter(|tally| !tally.client) {
            let mut count = |verdict, n| {
                if n > 0 {
                    *self.totals.verdicts.entry(verdict).or_default() += n;
                }
            };
            count(Verdict::Queued, tally.queued);
            count(Verdict::Awaited, tally.awaited);
            self.totals.servers += tally.queued + tally.awaited;
            let listener = self.listeners.at_port(tally.netns, tally.port);
            let own = Tuple {
                laddr: std::net::Ipv6Addr::UNSPECIFIED.into(),
                lport: Some(tally.port),
                raddr: None,
                rport: None,
            };
            self.listeners
                .stats(listener, tally.netns, &own)
                .count_all(&tally);
        }
    }
}

/// What a tally has more than an earlier one.
fn since(tally: &Tally, earlier: &Tally) -> Tally {
    Tally {
        queued: tally.queued - earlier.queued,
        awaited: tally.awaited - earlier.awaited,
        handshake: tally.handshake.since(&earlier.handshake),
        accept_queue: tally.accept_queue.since(&earlier.accept_queue),
        ..*tally
    }
}

fn line(tally: &Tally, mono_ns: u64, interval_ns: u64) -> Histogram {
    let at_server = |count| (!tally.client).then_some(count);
    Histogram {
        mono_ns,
        interval_ns,
        side: if tally.client {
            Side::Client
        } else {
            Side::Server
        },
        netns: tally.netns,
        port: tally.port,
        connections: tally.queued + tally.awaited,
        queued: at_server(tally.queued),
        awaited: at_server(tally.awaited),
        handshake: times(&tally.handshake),
        accept_queue: times(&tally.accept_queue),
    }
}

fn times(distribution: &Distribution) -> Option<Times> {
    Some(Times {
        p50_ns: distribution.quantile(0.50)?,
        p99_ns: distribution.quantile(0.99)?,
        max_ns: distribution.max_ns,
        buckets: distribution.buckets.clone(),
    })
}
