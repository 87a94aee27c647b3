//! What is shown: plain values, so that drawing them takes no lock.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use crate::event::{Comm, Hook, State};
use crate::fields::{Backlog, PidSource, Subject, Verdict, Why};

/// A listening address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Inode of the network namespace.
    pub netns: u32,
    pub address: IpAddr,
    pub port: u16,
}

impl Key {
    /// The own end of a socket; `None` while its port is not known.
    pub fn of(subject: &Subject) -> Option<Key> {
        Some(Key {
            netns: subject.netns,
            address: subject.laddr,
            port: subject.lport?,
        })
    }

    /// By port, then address.
    pub fn order(self) -> impl Ord {
        (self.port, self.address, self.netns)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::net::SocketAddr::new(self.address, self.port).fmt(f)
    }
}

/// A process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pid: u32,
    comm: Option<Comm>,
    presumed: bool,
}

impl Owner {
    /// `None` when it is not known.
    pub fn of(subject: &Subject) -> Option<Owner> {
        Some(Owner {
            pid: subject.pid?,
            comm: subject.comm,
            presumed: subject.pid_source == Some(PidSource::Presumed),
        })
    }
}

/// `server[4711]`, `server[4711]?` when that is presumed.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(comm) = self.comm {
            comm.fmt(f)?;
        }
        write!(f, "[{}]{}", self.pid, if self.presumed { "?" } else { "" })
    }
}

/// How many connections an accept queue holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// By the kernel's last number and what came and went since.
    Exact(u64),
    /// So many came and were not accepted; the trace does not know what was there before.
    AtLeast(u64),
    /// The same, but events were lost, or no hook sees accept().
    Doubtful(u64),
}

impl Depth {
    /// The number, however sure it is.
    pub fn count(self) -> u64 {
        match self {
            Depth::Exact(n) | Depth::AtLeast(n) | Depth::Doubtful(n) => n,
        }
    }
}

/// `3`, `≥3`, `3?`
impl fmt::Display for Depth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Depth::Exact(n) => write!(f, "{n}"),
            Depth::AtLeast(n) => write!(f, "≥{n}"),
            Depth::Doubtful(n) => write!(f, "{n}?"),
        }
    }
}

/// A listening address and the last seconds there.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub key: Key,
    /// Open sockets that listen here; 0 when none was seen, only their connections.
    pub sockets: usize,
    /// It listens no more.
    pub closed: bool,
    pub owner: Option<Owner>,
    /// Who accepted last.
    pub acceptor: Option<Owner>,
    pub backlog: Backlog,
    pub depth: Depth,
    /// `None` when no hook sees them.
    pub half_open: Option<u64>,
    /// Since the trace began; `None` when no hook sees them.
    pub overflows: Option<u64>,
    /// Connections that became ESTABLISHED.
    pub connections_per_s: f64,
    pub accepted_per_s: f64,
    /// Wait in the accept queue of those accepted within the window, in nanoseconds (to 1 %);
    /// `None` when none was, or none with a known wait.
    pub p50_ns: Option<u64>,
    pub p99_ns: Option<u64>,
    /// Exact.
    pub max_ns: Option<u64>,
    /// The longest wait of each second, the last one not over.
    pub longest_ns: Vec<Option<u64>>,
    /// Since the trace began.
    pub connections: u64,
    pub accepted: u64,
    pub never_accepted: u64,
    pub failed_accepts: u64,
}

impl Row {
    /// One about which nothing is known.
    pub fn new(key: Key) -> Row {
        Row {
            key,
            sockets: 0,
            closed: false,
            owner: None,
            acceptor: None,
            backlog: Backlog::default(),
            depth: Depth::AtLeast(0),
            half_open: None,
            overflows: None,
            connections_per_s: 0.0,
            accepted_per_s: 0.0,
            p50_ns: None,
            p99_ns: None,
            max_ns: None,
            longest_ns: vec![],
            connections: 0,
            accepted: 0,
            never_accepted: 0,
            failed_accepts: 0,
        }
    }

    /// How full its queue is: 1 is full. `None` when its limit is not known, or several queues
    /// share the address.
    pub fn fill(&self) -> Option<f64> {
        let max = self.backlog.backlog_max.filter(|_| self.sockets <= 1)?;
        // The queue holds one more than its limit.
        Some((self.depth.count() as f64 / (f64::from(max) + 1.0)).min(1.0))
    }

    /// How two compare by rate, as numbers that are never NaN.
    pub fn by_rate(&self, other: &Row) -> Ordering {
        self.connections_per_s.total_cmp(&other.connections_per_s)
    }
}

/// A connection in an accept queue.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    /// When it became ESTABLISHED (CLOCK_MONOTONIC, nanoseconds).
    pub since_ns: u64,
    pub subject: Subject,
    /// ESTABLISHED, or what became of it in the queue.
    pub state: State,
    pub listener: Key,
}

/// A verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// When it was told (CLOCK_MONOTONIC, nanoseconds).
    pub mono_ns: u64,
    pub subject: Subject,
    pub verdict: Verdict,
    pub reason: String,
}

/// A trace at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub now_ns: u64,
    /// When the trace began.
    pub began_ns: u64,
    /// How many seconds rates and quantiles are about.
    pub window_s: u64,
    pub filters: BTreeMap<String, String>,
    pub unseen: Vec<String>,
    /// Events lost since the trace began, by hook and reason.
    pub lost: Vec<((Hook, Why), u64)>,
    /// By port.
    pub listeners: Vec<Row>,
    /// Listeners that there was no room for.
    pub left_out: u64,
    /// The longest first.
    pub waiting: Vec<Waiting>,
    /// More that wait and are not listed.
    pub waiting_more: u64,
    /// More in the queues, by the kernel's numbers, that the trace did not see come.
    pub waiting_unnamed: u64,
    /// The last first.
    pub verdicts: Vec<Told>,
}
