//! Connections that the kernel side has counted, and told nothing else of.

use serde::{Deserialize, Serialize};

/// How many connections at one port have gone the plain way so far, and how long they took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Inode of the network namespace.
    pub netns: u32,
    /// The listener's port, or the one that clients connected to.
    pub port: u16,
    /// Of clients; else of a listener's connections, which an accept() has returned.
    pub client: bool,
    /// Those that were ESTABLISHED before accept() was called; of clients, all.
    pub queued: u64,
    /// Those that accept() was waiting for.
    pub awaited: u64,
    /// A client's SYN_SENT; at a server the first round trip, from SYN-ACK to ACK.
    pub handshake: Distribution,
    /// ESTABLISHED to the return of accept(); nothing for clients.
    pub accept_queue: Distribution,
}

/// How often each time was taken, in buckets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    /// The longest time of a bucket in nanoseconds, and how many fell into it; by time, without
    /// the empty ones.
    pub buckets: Vec<(u64, u64)>,
    /// The longest of all in nanoseconds, exact.
    pub max_ns: u64,
}

impl Distribution {
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    /// The smallest time that is not exceeded by this share of all, as the end of its bucket;
    /// `None` when there is none.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let rank = (self.count() as f64 * share).ceil().max(1.0) as u64;
        let mut below = 0;
        self.buckets.iter().find_map(|&(end_ns, count)| {
            below += count;
            (rank <= below).then_some(end_ns.min(self.max_ns))
        })
    }

    /// What has come since an earlier state. Its longest time is the end of a bucket.
    pub fn since(&self, earlier: &Distribution) -> Distribution {
        let before = |end_ns| {
            let at = earlier.buckets.binary_search_by_key(&end_ns, |it| it.0);
            at.map_or(0, |index| earlier.buckets[index].1)
        };
        let buckets = self.buckets.iter();
        let buckets = buckets.map(|&(end_ns, count)| (end_ns, count - before(end_ns)));
        let buckets: Vec<_> = buckets.filter(|&(_, count)| count > 0).collect();
        let last_ns = buckets.last().map_or(0, |it| it.0);
        Distribution {
            max_ns: last_ns.min(self.max_ns),
            buckets,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distribution(buckets: &[(u64, u64)], max_ns: u64) -> Distribution {
        Distribution {
            buckets: buckets.to_vec(),
            max_ns,
        }
    }

    #[test]
    fn quantiles_are_the_ends_of_buckets_and_never_above_the_longest() {
        let all = distribution(&[(10, 98), (20, 1), (1000, 1)], 900);
        assert_eq!(all.quantile(0.5), Some(10));
        assert_eq!(all.quantile(0.99), Some(20));
        assert_eq!(all.quantile(1.0), Some(900));
        assert_eq!(distribution(&[], 0).quantile(0.5), None);
    }

    #[test]
    fn what_came_since_leaves_out_what_was_there() {
        let earlier = distribution(&[(10, 5), (30, 2)], 29);
        let now = distribution(&[(10, 5), (20, 4), (30, 3)], 29);
        assert_eq!(now.since(&earlier), distribution(&[(20, 4), (30, 1)], 29));
        assert_eq!(now.since(&now), distribution(&[], 0));
    }
}
