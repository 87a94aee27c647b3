//! What happens to the buckets that outlive their sockets.

use super::{Sk, State, Tuple};

/// A TIME_WAIT bucket (`struct inet_timewait_sock`) begins, changes or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timewait {
    /// The bucket's own address: no socket has it at the same time.
    pub tw: Sk,
    /// The socket that it replaces; only at [`TimewaitStep::Begun`].
    pub sk: Option<Sk>,
    pub cookie: Option<u64>,
    pub netns: u32,
    pub tuple: Tuple,
    pub step: TimewaitStep,
    /// FIN_WAIT2 or TIME_WAIT.
    pub substate: State,
}

/// A moment in a bucket's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimewaitStep {
    /// It takes its socket's place, which goes to CLOSE a moment later.
    Begun,
    /// A segment has started its timer again.
    Restarted,
    /// Its timer has run out.
    Expired,
    /// A segment ends it: a SYN that reuses its ports, or one that resets it (its own RST, or data
    /// that nobody can take).
    Killed { syn: bool },
    /// A connect() takes its ports.
    Taken,
    /// Its network namespace ends.
    Purged,
}
