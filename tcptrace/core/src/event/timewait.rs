//! TIME_WAIT buckets, which the kernel keeps after the socket is gone.

use super::{Sk, State, Tuple};

/// A TIME_WAIT bucket (`struct inet_timewait_sock`) begins, changes or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timewait {
    /// The bucket's address. No socket has the same address at the same time.
    pub tw: Sk,
    /// The socket that the bucket replaces; only at [`TimewaitStep::Begun`].
    pub sk: Option<Sk>,
    /// The socket cookie; `None` when unknown.
    pub cookie: Option<u64>,
    /// Inode of the network namespace.
    pub netns: u32,
    pub tuple: Tuple,
    pub step: TimewaitStep,
    /// FIN_WAIT2 or TIME_WAIT.
    pub substate: State,
}

/// A step of a bucket, from its begin to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimewaitStep {
    /// The bucket replaces its socket, which enters CLOSE a moment later.
    Begun,
    /// A segment restarted the timer.
    Restarted,
    /// The timer expired.
    Expired,
    /// A segment ended the bucket: a SYN that reuses the ports, a RST, or data that no process can
    /// read.
    Killed { syn: bool },
    /// A connect() took the ports (tcp_tw_reuse).
    Taken,
    /// The network namespace ended.
    Purged,
}
