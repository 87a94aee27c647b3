//! TIME_WAIT and FIN_WAIT2 buckets, which the kernel keeps after the socket is gone.

use rustc_hash::FxHashMap;

use crate::event::{Sk, State, Tuple};
use crate::fields::{Source, Subject};

/// The buckets of a trace.
#[derive(Default)]
pub struct Buckets {
    /// True if hooks see the buckets. Then no bucket is inferred from a socket's flags.
    pub seen: bool,
    /// Buckets whose socket has not entered CLOSE yet, by that socket. The CLOSE follows at once.
    pub begun: FxHashMap<Sk, Begun>,
    /// The open buckets. A namespace has one bucket per tuple.
    pub open: FxHashMap<TupleKey, Bucket>,
}

/// Network namespace and tuple.
pub type TupleKey = (u32, Tuple);

/// The begin of a bucket.
pub struct Begun {
    pub mono_ns: u64,
    /// `None` if only the socket's flags show the bucket.
    pub tw: Option<Sk>,
    pub state: State,
}

pub struct Bucket {
    pub tw: Option<Sk>,
    pub subject: Subject,
    /// FIN_WAIT2 or TIME_WAIT.
    pub state: State,
    /// The time at which the connection entered `state`, in its socket or in the bucket.
    pub since_ns: Option<u64>,
    /// Time from FIN_WAIT2 to TIME_WAIT, in nanoseconds.
    pub fin_wait2_ns: Option<u64>,
    /// The evidence for the bucket's last change of state.
    pub source: Source,
    /// The last time at which the bucket surely existed: the CLOSE of its socket, then each
    /// snapshot that found the bucket.
    pub present_ns: u64,
}
