//! What `--depth histogram` counts in the kernel: how long things took, not when.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Of which connections a [`Tally`] is: the key of the `TALLIES` map.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct TallyKey {
    /// Inode of the network namespace.
    pub netns: u32,
    /// The listener's port, or the one that clients connected to; host order.
    pub port: u16,
    /// 1 for clients, 0 for a listener's.
    pub client: u16,
}

/// Connections that went the plain way: ESTABLISHED, then, at a server, accept(). The value of the
/// `TALLIES` map, one a CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Tally {
    /// Those that were ESTABLISHED before accept() was called; of clients, all.
    pub queued: u64,
    /// Those that accept() was waiting for.
    pub awaited: u64,
    /// At a server, the first round trip, from SYN-ACK to ACK; at a client, SYN_SENT.
    pub handshake: Distribution,
    /// ESTABLISHED to the return of accept().
    pub accept_queue: Distribution,
}

/// Times in nanoseconds, by [`bucket`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Distribution {
    pub counts: [u64; BUCKETS],
    /// The longest, exact.
    pub max_ns: u64,
}

/// Each power of two is divided into so many buckets, so that none is wider than an eighth of its
/// times.
const DIVISIONS: u32 = 8;
const DIVISION_BITS: u32 = DIVISIONS.ilog2();

/// Times from here on (18 minutes) share the last bucket.
const LIMIT_BITS: u32 = 40;

pub const BUCKETS: usize = ((LIMIT_BITS - DIVISION_BITS + 1) * DIVISIONS) as usize;

/// The bucket that a time falls into.
#[inline(always)]
pub fn bucket(ns: u64) -> usize {
    if ns < u64::from(DIVISIONS) {
        return ns as usize;
    }
    let octave = 63 - ns.leading_zeros();
    if octave >= LIMIT_BITS {
        return BUCKETS - 1;
    }
    let division = (ns >> (octave - DIVISION_BITS)) as u32 & (DIVISIONS - 1);
    ((octave - DIVISION_BITS + 1) * DIVISIONS + division) as usize
}

/// The longest time that falls into a bucket, in nanoseconds.
pub fn bucket_end_ns(bucket: usize) -> u64 {
    let (octave, division) = (
        bucket as u32 / DIVISIONS,
        bucket as u64 % u64::from(DIVISIONS),
    );
    match octave {
        0 => division,
        _ if bucket + 1 >= BUCKETS => u64::MAX,
        _ => ((u64::from(DIVISIONS) + division + 1) << (octave - 1)) - 1,
    }
}
