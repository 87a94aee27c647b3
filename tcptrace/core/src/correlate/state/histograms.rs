//! Histograms of `--depth histogram`, which count connections that went well instead of writing
//! their lines.

use std::collections::BTreeMap;

use crate::event::State;
use crate::fields::{Connection, Ended, LateTimes, Side, Times, Verdict};

/// Counts since the last histogram lines.
#[derive(Default)]
pub struct Histograms {
    pub counts: BTreeMap<Port, Counts>,
    /// The time of the last histogram lines; `None` before the first.
    pub written_ns: Option<u64>,
}

/// The key under which connections are counted. Its order is the order of the lines.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    pub netns: u32,
    /// The listener's port, or the port that the clients connected to.
    pub port: u16,
    pub is_client: bool,
}

#[derive(Default)]
pub struct Counts {
    pub connections: u64,
    pub queued: u64,
    pub awaited: u64,
    pub handshake: Distribution,
    pub accept_queue: Distribution,
    pub late: LateTimes,
}

/// Counts of durations, in histogram buckets.
#[derive(Default)]
pub struct Distribution {
    /// By [`bucket`].
    pub counts: BTreeMap<u16, u64>,
    /// The longest time in nanoseconds, exact.
    pub max_ns: u64,
}

impl Histograms {
    /// Counts a connection at its end if it went well; returns whether it did.
    pub fn count(&mut self, line: &Connection) -> bool {
        let Some(port) = went_well(line) else {
            return false;
        };
        let counts = self.counts.entry(port).or_default();
        counts.connections += 1;
        match line.verdict {
            Some(Verdict::Queued) => counts.queued += 1,
            Some(Verdict::Awaited) => counts.awaited += 1,
            _ => {}
        }
        counts.handshake.add(line.handshake_ns);
        counts.accept_queue.add(line.accept_queue_ns);
        if let Some(late) = &line.late {
            counts.late.add_all(&late.times);
        }
        true
    }
}

/// Returns the key of a connection that went well, otherwise `None`. It became ESTABLISHED, and it
/// ended in good order or was open at the end of the trace. At a server, accept() returned it after
/// ESTABLISHED. A connection whose trace is incomplete did not go well.
pub fn went_well(line: &Connection) -> Option<Port> {
    let is_open = line.state != State::Close && line.closed_mono_ns.is_none();
    let is_orderly = line.ending.ended == Some(Ended::Orderly);
    let (is_well, port) = match line.subject.side? {
        Side::Server => {
            let is_accepted = matches!(line.verdict, Some(Verdict::Queued | Verdict::Awaited));
            (is_accepted && (is_orderly || is_open), line.subject.lport)
        }
        Side::Client => {
            let is_established = line.established_mono_ns.is_some();
            (is_established && is_orderly, line.subject.rport)
        }
        Side::Listener => return None,
    };
    let is_sure = line.complete && !line.evicted && line.error.is_none();
    Some(Port {
        netns: line.subject.netns,
        port: port.filter(|_| is_well && is_sure)?,
        is_client: line.subject.side == Some(Side::Client),
    })
}

impl Distribution {
    pub fn add(&mut self, ns: Option<u64>) {
        if let Some(ns) = ns {
            *self.counts.entry(bucket(ns)).or_default() += 1;
            self.max_ns = self.max_ns.max(ns);
        }
    }

    /// Returns the distribution as the line has it; `None` if it is empty.
    pub fn times(&self) -> Option<Times> {
        let buckets = self.counts.iter();
        Some(Times {
            p50_ns: self.quantile(0.50)?,
            p99_ns: self.quantile(0.99)?,
            max_ns: self.max_ns,
            buckets: buckets.map(|(&at, &n)| (bucket_end_ns(at), n)).collect(),
        })
    }

    /// Returns the smallest time that this share of all times does not exceed, as the upper end of
    /// its histogram bucket.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let all: u64 = self.counts.values().sum();
        let rank = (all as f64 * share).ceil().max(1.0) as u64;
        let mut below = 0;
        self.counts.iter().find_map(|(&at, count)| {
            below += count;
            (rank <= below).then_some(bucket_end_ns(at).min(self.max_ns))
        })
    }
}

/// Number of histogram buckets per power of two. Each is at most an eighth of its times wide.
pub const DIVISIONS: u64 = 8;
pub const DIVISION_BITS: u32 = DIVISIONS.ilog2();

/// Times longer than this power of two (18 minutes) share the last histogram bucket.
pub const LIMIT_BITS: u32 = 40;

pub const BUCKETS: u16 = (LIMIT_BITS - DIVISION_BITS + 1) as u16 * DIVISIONS as u16;

/// Returns the histogram bucket of a time.
pub fn bucket(ns: u64) -> u16 {
    if ns < DIVISIONS {
        return ns as u16;
    }
    let octave = ns.ilog2();
    if octave >= LIMIT_BITS {
        return BUCKETS - 1;
    }
    let division = (ns >> (octave - DIVISION_BITS)) % DIVISIONS;
    (u64::from(octave - DIVISION_BITS + 1) * DIVISIONS + division) as u16
}

/// Returns the longest time in a histogram bucket, in nanoseconds.
pub fn bucket_end_ns(bucket: u16) -> u64 {
    let (octave, division) = (u64::from(bucket) / DIVISIONS, u64::from(bucket) % DIVISIONS);
    match octave {
        0 => division,
        _ if bucket + 1 >= BUCKETS => u64::MAX,
        _ => ((DIVISIONS + division + 1) << (octave - 1)) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_in_the_bucket_that_ends_at_or_after_it() {
        let mut times: Vec<u64> = (0..64)
            .flat_map(|bit| [1 << bit, (1u64 << bit) + 1])
            .collect();
        times.extend((0..100_000).map(|n| n * 7919));
        for ns in times {
            let at = bucket(ns);
            assert!(ns <= bucket_end_ns(at), "{ns}");
            assert!(at == 0 || bucket_end_ns(at - 1) < ns, "{ns}");
        }
    }

    #[test]
    fn no_bucket_is_wider_than_an_eighth() {
        for at in 16..BUCKETS - 1 {
            let (start, end) = (bucket_end_ns(at - 1) + 1, bucket_end_ns(at));
            assert!((end - start) * 8 < start, "{start} to {end}");
        }
    }

    #[test]
    fn quantiles_are_the_ends_of_buckets_and_never_above_the_longest() {
        let mut all = Distribution::default();
        (0..98).for_each(|_| all.add(Some(100)));
        all.add(Some(200));
        all.add(Some(900));
        assert_eq!(all.quantile(0.5), Some(103));
        assert_eq!(all.quantile(0.99), Some(207));
        assert_eq!(all.quantile(1.0), Some(900));
        assert_eq!(Distribution::default().quantile(0.5), None);
    }
}
