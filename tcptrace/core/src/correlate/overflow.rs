//! Segments that met a full queue of their listener, and what that did to their connection.

use std::fmt;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::Correlator;
use super::accept_queue::Full;
use super::connection::Connection;
use super::half_open::HalfOpen;
use super::listener::ListenerId;
use crate::duration::Human;
use crate::event::{self, Event, ListenQueue, OverflowSegment, Request, Tuple};
use crate::fields::{self, Line, Side};

/// How long a dropped SYN is remembered, in nanoseconds. A client sends it again later each time,
/// at last after 64 seconds (`net.ipv4.tcp_syn_retries` is 6).
pub(super) const REMEMBER_NS: u64 = 70_000_000_000;

/// Of no more ends are dropped SYNs remembered. A flood of SYNs may come from more.
const MANY: usize = 1 << 16;

/// What of one connection met a full queue.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Refused {
    syn: Option<Met>,
    ack: Option<Met>,
}

/// How a segment met it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Met {
    times: u32,
    /// CLOCK_MONOTONIC, nanoseconds.
    first_ns: u64,
    last_ns: u64,
    /// The listener's number.
    listener: Option<u64>,
    /// As the last one met it.
    queue: ListenQueue,
    held: u32,
    limit: u32,
    reserve: bool,
}

impl Refused {
    pub fn note(&mut self, mono_ns: u64, overflow: &event::Overflow, listener: Option<u64>) {
        let met = match overflow.segment {
            OverflowSegment::Syn => &mut self.syn,
            OverflowSegment::Ack => &mut self.ack,
        };
        *met = Some(Met {
            times: met.map_or(1, |met| met.times.saturating_add(1)),
            first_ns: met.map_or(mono_ns, |met| met.first_ns),
            last_ns: mono_ns,
            listener: listener.or(met.and_then(|met| met.listener)),
            queue: overflow.queue,
            held: overflow.backlog_len,
            limit: overflow.backlog_max,
            reserve: overflow.reserve,
        });
    }

    /// How often.
    pub fn times(&self) -> u32 {
        let all = [self.syn, self.ack].into_iter().flatten();
        all.map(|met| met.times).sum()
    }

    /// When first, CLOCK_MONOTONIC in nanoseconds.
    pub fn first_ns(&self) -> Option<u64> {
        let all = [self.syn, self.ack].into_iter().flatten();
        all.map(|met| met.first_ns).min()
    }

    /// Behind the verdict on a server's connection: `; the final ACK had come 3.010 s earlier, but
    /// met a full accept queue (2 queued, limit 1) 2 times`. `until_ns` is when it was ESTABLISHED,
    /// or its end.
    pub fn of_server(&self, until_ns: u64, synack_retransmits: Option<u32>) -> String {
        let mut text = String::new();
        for (name, met) in [("SYN", self.syn), ("final ACK", self.ack)] {
            let Some(met) = met.map(Met::anonymous) else {
                continue;
            };
            let earlier = Human(until_ns.saturating_sub(met.first_ns));
            text += &format!("; the {name} had come {earlier} earlier, but met {met}");
        }
        if let (Some(_), Some(n @ 1..)) = (self.ack, synack_retransmits) {
            text += &format!(", and the SYN-ACK was sent again {}", Times(n));
        }
        text
    }

    /// Of a client on this host. `waited_ns`: how long it was in SYN_SENT; `late_ns`: how much later
    /// than it the server's end became ESTABLISHED, `None` if that was not seen.
    pub fn of_client(&self, waited_ns: Option<u64>, late_ns: Option<u64>) -> Option<String> {
        let mut parts = Vec::new();
        if let Some(met) = self.syn {
            let so = waited_ns.map(|ns| format!(", so SYN_SENT lasted {}", Human(ns)));
            let so = so.unwrap_or_default();
            parts.push(format!("its SYN met {met}{so}"));
        }
        if let Some(met) = self.ack {
            let so = match late_ns {
                Some(ns) => format!("the server's end was ESTABLISHED {} later", Human(ns)),
                None => "the server's end was not seen to become ESTABLISHED".to_owned(),
            };
            parts.push(format!("its final ACK met {met}: {so}"));
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    /// `a full accept queue (2 queued, limit 1) 2 times`: how the final ACK did.
    pub fn ack_met(&self) -> Option<impl fmt::Display> {
        self.ack.map(Met::anonymous)
    }
}

impl Met {
    /// One more segment that is likely to have met a full accept queue.
    pub fn suspected(before: Option<Met>, mono_ns: u64, listener: u64, full: Full) -> Met {
        Met {
            times: before.map_or(1, |met| met.times.saturating_add(1)),
            first_ns: before.map_or(mono_ns, |met| met.first_ns),
            last_ns: mono_ns,
            listener: Some(listener),
            queue: ListenQueue::Accept,
            held: full.held,
            limit: full.limit,
            reserve: false,
        }
    }

    /// The same, but no more often than so; `None` if that is never.
    pub fn at_most(self, times: u32) -> Option<Met> {
        let times = self.times.min(times);
        (times > 0).then_some(Met { times, ..self })
    }

    /// For a connection of that listener, which its line need not name.
    pub fn anonymous(self) -> Met {
        Met {
            listener: None,
            ..self
        }
    }
}

/// `a full accept queue of #1 (2 queued, limit 1) 2 times`
impl fmt::Display for Met {
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

/// `once`, `2 times`
pub(super) struct Times(pub u32);

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            1 => f.write_str("once"),
            n => write!(f, "{n} times"),
        }
    }
}

/// SYNs that were dropped, and that their clients may send again.
#[derive(Default)]
pub(super) struct RefusedSyns {
    /// By the server's ends: the network namespace, the SYN's sequence number, and what it met.
    at: FxHashMap<Tuple, Vec<(u32, u32, Refused)>>,
    /// When some were forgotten to make room.
    forgot_ns: Option<u64>,
}

impl RefusedSyns {
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.at.len()
    }

    fn note(&mut self, event: &Event, overflow: &event::Overflow, isn: u32, listener: Option<u64>) {
        if self.at.len() >= MANY {
            let is_young = |refused: &Refused| {
                let last_ns = refused.syn.map_or(0, |met| met.last_ns);
                event.mono_ns.saturating_sub(last_ns) <= REMEMBER_NS
            };
            self.at
                .retain(|_, all| all.iter().any(|(.., refused)| is_young(refused)));
            if self.at.len() > MANY / 2 {
                self.at.clear();
                self.forgot_ns = Some(event.mono_ns);
            }
        }
        let all = self.at.entry(overflow.tuple).or_default();
        let same = |&&mut (netns, seq, _): &&mut (u32, u32, Refused)| {
            (netns, seq) == (overflow.netns, isn)
        };
        if let Some((.., refused)) = all.iter_mut().find(same) {
            return refused.note(event.mono_ns, overflow, listener);
        }
        // Another connection between the same ends.
        all.retain(|&(netns, ..)| netns != overflow.netns);
        let mut refused = Refused::default();
        refused.note(event.mono_ns, overflow, listener);
        all.push((overflow.netns, isn, refused));
    }

    /// What the SYN of a request had met before.
    pub fn of_request(&self, request: &Request) -> Refused {
        let mut all = self.at.get(&request.tuple).into_iter().flatten();
        let its = all.find(|&&(netns, isn, _)| (netns, isn) == (request.netns, request.isn));
        its.map_or(Refused::default(), |&(.., refused)| refused)
    }

    /// What the SYN of a client on this host met, if that began at `syn_ns`: in its own network
    /// namespace, or in the only one where a server has the mirrored ends.
    fn of_client(&self, netns: u32, client: &Tuple, syn_ns: u64) -> Option<Refused> {
        let all = self.at.get(&client.mirrored()?)?;
        let here = all.iter().find(|(inode, ..)| *inode == netns);
        let elsewhere = || (all.len() == 1 && !client.laddr.is_loopback()).then_some(&all[0]);
        let (.., refused) = here.or_else(elsewhere)?;
        let met = refused.syn?;
        (syn_ns <= met.first_ns).then_some(*refused)
    }

    /// When some were forgotten, CLOCK_MONOTONIC in nanoseconds: of what began before
    /// [`REMEMBER_NS`] later not all need be known.
    pub fn forgot_ns(&self) -> Option<u64> {
        self.forgot_ns
    }
}

impl Correlator {
    /// A segment met a full queue.
    pub(super) fn overflow(
        &mut self,
        event: &Event,
        overflow: &event::Overflow,
        out: &mut Vec<Line>,
    ) {
        let listener =
            (self.listeners).of_pointer(overflow.listener, overflow.netns, event.mono_ns);
        let owner = self.presumed(listener);
        let listener_conn = listener.map(ListenerId::conn);
        if let Some(isn) = overflow.isn {
            self.refused_syns.note(event, overflow, isn, listener_conn);
        }
        let client = self.client_of(event, overflow, listener_conn);
        let half_open = overflow
            .req
            .and_then(|req| self.requests.half_open(req))
            .filter(|half_open| half_open.ends() == (overflow.netns, overflow.tuple));
        let subject = match half_open {
            Some(half_open) => {
                let refused = &mut half_open.handshake.refused;
                refused.note(event.mono_ns, overflow, listener_conn);
                half_open.aborted |= overflow.aborted;
                half_open.peer = client.or(half_open.peer);
                half_open.subject(owner)
            }
            None => fields::Subject {
                conn: None,
                ..HalfOpen::socket(0, overflow.netns, overflow.tuple).subject(None)
            },
        };
        if let Some(id) = listener
            && !overflow.reserve
        {
            self.listeners.limited(id, overflow.backlog_max);
        }
        if self.select.wants_overflow(listener_conn, &subject) {
            let (netns, tuple) = (overflow.netns, &overflow.tuple);
            self.listeners.stats(listener, netns, tuple).overflows += 1;
        }
        out.push(Line::Overflow(fields::Overflow {
            mono_ns: event.mono_ns,
            subject,
            listener: listener_conn,
            dropped: overflow.segment,
            queue: overflow.queue,
            queue_len: overflow.backlog_len,
            queue_max: overflow.backlog_max,
            reserve: overflow.reserve,
            aborted: overflow.aborted,
        }));
    }

    /// The client on this host whose final ACK this is: it is ESTABLISHED, and is told of it.
    fn client_of(
        &mut self,
        event: &Event,
        overflow: &event::Overflow,
        listener: Option<u64>,
    ) -> Option<super::peers::Peer> {
        let is_ack = overflow.segment == OverflowSegment::Ack;
        let waiting = self.peers.waiting_for(overflow.netns, &overflow.tuple);
        let (sk, peer) = waiting.filter(|_| is_ack)?;
        let client = self.open.get_mut(sk)?;
        if client.socket.conn != peer.conn {
            return None;
        }
        let refused = &mut client.handshake.refused;
        refused.note(event.mono_ns, overflow, listener);
        Some(peer)
    }

    /// A client leaves SYN_SENT, or ends there: what its SYN met is known by now.
    pub(super) fn ask_after_syn(&self, client: &mut Connection) {
        let Some((syn_ns, _)) = client.handshake.syn else {
            return;
        };
        if client.socket.side == Some(Side::Client)
            && let Some(refused) =
                self.refused_syns
                    .of_client(client.socket.netns, &client.socket.tuple, syn_ns)
        {
            client.handshake.refused.syn = refused.syn;
        }
    }
}
