//! Handshake segments that were dropped at a full queue.

use std::fmt;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::accept_queue::Full;
use crate::duration::Human;
use crate::event::{self, Event, ListenQueue, OverflowSegment, Request, Tuple};

/// How long a dropped SYN is remembered for its retransmission, in nanoseconds. A client
/// retransmits a SYN with growing intervals, the last one 64 seconds (`net.ipv4.tcp_syn_retries` is
/// 6).
pub const REMEMBER_NS: u64 = 70_000_000_000;

/// Upper bound on tuples with remembered dropped SYNs. It bounds the memory in a SYN flood.
pub const MANY: usize = 1 << 16;

/// The segments of one connection that met a full queue.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Drops {
    pub syn: Option<DropSeries>,
    pub ack: Option<DropSeries>,
}

/// The drops of one kind of segment.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct DropSeries {
    pub times: u32,
    /// CLOCK_MONOTONIC, nanoseconds.
    pub first_ns: u64,
    pub last_ns: u64,
    /// The listener's connection number (`conn`).
    pub listener: Option<u64>,
    /// The queue that the last drop met.
    pub queue: ListenQueue,
    pub held: u32,
    pub limit: u32,
    pub reserve: bool,
}

impl Drops {
    pub fn note(&mut self, mono_ns: u64, overflow: &event::Overflow, listener: Option<u64>) {
        let series = match overflow.segment {
            OverflowSegment::Syn => &mut self.syn,
            OverflowSegment::Ack => &mut self.ack,
        };
        *series = Some(DropSeries {
            times: series.map_or(1, |series| series.times.saturating_add(1)),
            first_ns: series.map_or(mono_ns, |series| series.first_ns),
            last_ns: mono_ns,
            listener: listener.or(series.and_then(|series| series.listener)),
            queue: overflow.queue,
            held: overflow.backlog_len,
            limit: overflow.backlog_max,
            reserve: overflow.reserve,
        });
    }

    /// Returns the number of drops.
    pub fn times(&self) -> u32 {
        let all = [self.syn, self.ack].into_iter().flatten();
        all.map(|series| series.times).sum()
    }

    /// Returns the time of the first drop, CLOCK_MONOTONIC in nanoseconds.
    pub fn first_ns(&self) -> Option<u64> {
        let all = [self.syn, self.ack].into_iter().flatten();
        all.map(|series| series.first_ns).min()
    }

    /// Returns the text after the verdict on a server's connection: `; the final ACK had come 3.010
    /// s earlier, but met a full accept queue (2 queued, limit 1) 2 times`. `until_ns`: when the
    /// connection was ESTABLISHED, or its end.
    pub fn of_server(&self, until_ns: u64, synack_retransmits: Option<u32>) -> String {
        let mut text = String::new();
        for (name, series) in [("SYN", self.syn), ("final ACK", self.ack)] {
            let Some(series) = series.map(DropSeries::anonymous) else {
                continue;
            };
            let earlier = Human(until_ns.saturating_sub(series.first_ns));
            text += &format!("; the {name} had come {earlier} earlier, but met {series}");
        }
        if let (Some(_), Some(n @ 1..)) = (self.ack, synack_retransmits) {
            text += &format!(", and the SYN-ACK was sent again {}", Times(n));
        }
        text
    }

    /// Returns the text for a client on this host. `waited_ns`: the time in SYN_SENT. `late_ns`:
    /// the time from the client's ESTABLISHED to the server's; `None` if that was not seen.
    pub fn of_client(&self, waited_ns: Option<u64>, late_ns: Option<u64>) -> Option<String> {
        let mut parts = Vec::new();
        if let Some(series) = self.syn {
            let so = waited_ns.map(|ns| format!(", so SYN_SENT lasted {}", Human(ns)));
            let so = so.unwrap_or_default();
            parts.push(format!("its SYN met {series}{so}"));
        }
        if let Some(series) = self.ack {
            let so = match late_ns {
                Some(ns) => format!("the server's end was ESTABLISHED {} later", Human(ns)),
                None => "the server's end was not seen to become ESTABLISHED".to_owned(),
            };
            parts.push(format!("its final ACK met {series}: {so}"));
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    /// Returns the drops of the final ACK as text: `a full accept queue (2 queued, limit 1) 2
    /// times`.
    pub fn ack_drops(&self) -> Option<impl fmt::Display> {
        self.ack.map(DropSeries::anonymous)
    }
}

impl DropSeries {
    /// Adds a segment that probably met a full accept queue, at which no hook sees drops.
    pub fn suspected(
        before: Option<DropSeries>,
        mono_ns: u64,
        listener: u64,
        full: Full,
    ) -> DropSeries {
        DropSeries {
            times: before.map_or(1, |series| series.times.saturating_add(1)),
            first_ns: before.map_or(mono_ns, |series| series.first_ns),
            last_ns: mono_ns,
            listener: Some(listener),
            queue: ListenQueue::Accept,
            held: full.held,
            limit: full.limit,
            reserve: false,
        }
    }

    /// Limits the count of drops to `times`; returns `None` if that is 0.
    pub fn at_most(self, times: u32) -> Option<DropSeries> {
        let times = self.times.min(times);
        (times > 0).then_some(DropSeries { times, ..self })
    }

    /// Removes the listener's connection number. The line of a connection of that listener need not
    /// repeat it.
    pub fn anonymous(self) -> DropSeries {
        DropSeries {
            listener: None,
            ..self
        }
    }
}

/// Displays as `a full accept queue of #1 (2 queued, limit 1) 2 times`.
impl fmt::Display for DropSeries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (queue, held) = match self.queue {
            ListenQueue::Accept => ("accept", "queued"),
            ListenQueue::Syn => ("SYN", "half-open"),
        };
        let (n, limit, times) = (self.held, self.limit, Times(self.times));
        match self.reserve {
            true => write!(f, "a {queue} queue whose rest is kept for known peers")?,
            false => write!(f, "a full {queue} queue")?,
        }
        if let Some(conn) = self.listener {
            write!(f, " of #{conn}")?;
        }
        write!(f, " ({n} {held}, limit {limit}) {times}")
    }
}

/// Displays as `once` or `2 times`.
pub struct Times(pub u32);

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("once"),
            n => write!(f, "{n} times"),
        }
    }
}

/// Dropped SYNs, remembered because their clients may retransmit them.
#[derive(Default)]
pub struct DroppedSyns {
    /// Maps a tuple, seen from the server, to its dropped SYNs: the network namespace, the SYN's
    /// sequence number, and the drops.
    pub at: FxHashMap<Tuple, Vec<(u32, u32, Drops)>>,
    /// When entries were last removed to make room, CLOCK_MONOTONIC in nanoseconds.
    pub forgot_ns: Option<u64>,
}

impl DroppedSyns {
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.at.len()
    }

    pub fn note(
        &mut self,
        event: &Event,
        overflow: &event::Overflow,
        isn: u32,
        listener: Option<u64>,
    ) {
        if self.at.len() >= MANY {
            let is_young = |drops: &Drops| {
                let last_ns = drops.syn.map_or(0, |series| series.last_ns);
                event.mono_ns.saturating_sub(last_ns) <= REMEMBER_NS
            };
            self.at
                .retain(|_, all| all.iter().any(|(.., drops)| is_young(drops)));
            if self.at.len() > MANY / 2 {
                self.at.clear();
                self.forgot_ns = Some(event.mono_ns);
            }
        }
        let all = self.at.entry(overflow.tuple).or_default();
        let same =
            |&&mut (netns, seq, _): &&mut (u32, u32, Drops)| (netns, seq) == (overflow.netns, isn);
        if let Some((.., drops)) = all.iter_mut().find(same) {
            return drops.note(event.mono_ns, overflow, listener);
        }
        // The previous entry of this namespace belongs to another connection with the same
        // addresses.
        all.retain(|&(netns, ..)| netns != overflow.netns);
        let mut drops = Drops::default();
        drops.note(event.mono_ns, overflow, listener);
        all.push((overflow.netns, isn, drops));
    }

    /// Returns the earlier drops of the SYN that made a request socket.
    pub fn of_request(&self, request: &Request) -> Drops {
        let mut all = self.at.get(&request.tuple).into_iter().flatten();
        let its = all.find(|&&(netns, isn, _)| (netns, isn) == (request.netns, request.isn));
        its.map_or(Drops::default(), |&(.., drops)| drops)
    }

    /// Returns the drops of the SYN that a client on this host sent from `syn_ns` on. The client's
    /// own network namespace comes first, then the only one where a server has the mirrored tuple.
    pub fn of_client(&self, netns: u32, client: &Tuple, syn_ns: u64) -> Option<Drops> {
        let all = self.at.get(&client.mirrored()?)?;
        let here = all.iter().find(|(inode, ..)| *inode == netns);
        let elsewhere = || (all.len() == 1 && !client.laddr.is_loopback()).then_some(&all[0]);
        let (.., drops) = here.or_else(elsewhere)?;
        let series = drops.syn?;
        (syn_ns <= series.first_ns).then_some(*drops)
    }

    /// Returns when entries were last removed to make room, CLOCK_MONOTONIC in nanoseconds. The
    /// known drops of connections that began within [`REMEMBER_NS`] after that may be incomplete.
    pub fn forgot_ns(&self) -> Option<u64> {
        self.forgot_ns
    }
}
