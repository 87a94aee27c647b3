//! TIME_WAIT and FIN_WAIT2 buckets: what the kernel keeps of connections whose sockets are gone.

use rustc_hash::FxHashMap;

use crate::event::{Sk, State, Tuple};
use crate::fields::{Source, Subject};

/// The buckets of a trace.
#[derive(Default)]
pub struct Buckets {
    /// Buckets are seen as they are: none is presumed from a socket's flags.
    pub seen: bool,
    /// Begun, and not joined yet with their sockets' CLOSE, which comes right after. By socket.
    pub begun: FxHashMap<Sk, Begun>,
    /// A namespace has one bucket for a pair of ends.
    pub open: FxHashMap<Ends, Bucket>,
}

/// Network namespace and ends.
pub type Ends = (u32, Tuple);

/// A bucket's beginning.
pub struct Begun {
    pub mono_ns: u64,
    /// `None` where only the socket's flags speak.
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
    /// From FIN_WAIT2 to TIME_WAIT.
    pub fin_wait2_ns: Option<u64>,
    /// The source of its last step.
    pub source: Source,
    /// The last time at which it surely existed: its socket's CLOSE, then each snapshot that found it.
    pub present_ns: u64,
}
