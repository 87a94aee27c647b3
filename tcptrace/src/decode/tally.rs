//! Tallies: the values of a map, not records of the ring buffer.

use tcptrace_ebpf::abi;

use crate::event::{Distribution, Tally};

/// The value of one CPU, as its bytes.
pub type Value = [u8; size_of::<abi::Tally>()];

/// Adds up what all CPUs have counted at one port.
pub fn tally(key: &abi::TallyKey, values: &[Value]) -> Tally {
    let values: Vec<abi::Tally> = values
        .iter()
        .map(|&value| zerocopy::transmute!(value))
        .collect();
    let sum = |part: fn(&abi::Tally) -> u64| values.iter().map(part).sum();
    Tally {
        netns: key.netns,
        port: key.port,
        client: key.client != 0,
        queued: sum(|tally| tally.queued),
        awaited: sum(|tally| tally.awaited),
        handshake: distribution(values.iter().map(|tally| &tally.handshake)),
        accept_queue: distribution(values.iter().map(|tally| &tally.accept_queue)),
    }
}

fn distribution<'a>(parts: impl Iterator<Item = &'a abi::Distribution> + Clone) -> Distribution {
    let count = |bucket: usize| parts.clone().map(|it| it.counts[bucket]).sum();
    let buckets = (0..abi::BUCKETS).map(|bucket| (abi::bucket_end_ns(bucket), count(bucket)));
    Distribution {
        buckets: buckets.filter(|&(_, count)| count > 0).collect(),
        max_ns: parts.map(|it| it.max_ns).max().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use tcptrace_ebpf::abi::{BUCKETS, bucket, bucket_end_ns};

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
}
