//! The view: plain values that are drawn without holding the lock.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use super::late::Cause;
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
    /// Returns the local address and port of a socket; `None` while the port is unknown.
    pub fn of(subject: &Subject) -> Option<Key> {
        Some(Key {
            netns: subject.netns,
            address: subject.laddr,
            port: subject.lport?,
        })
    }

    /// Returns the sort key: port, then address.
    pub fn order(self) -> impl Ord {
        (self.port, self.address, self.netns)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::net::SocketAddr::new(self.address, self.port).fmt(f)
    }
}

/// A process that owns a listener or accepts connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pid: u32,
    comm: Option<Comm>,
    presumed: bool,
}

impl Owner {
    /// Returns the owner of a socket, or `None` if it is unknown.
    pub fn of(subject: &Subject) -> Option<Owner> {
        Some(Owner {
            pid: subject.pid?,
            comm: subject.comm,
            presumed: subject.pid_source == Some(PidSource::Presumed),
        })
    }
}

/// Writes `server[4711]`, or `server[4711]?` if the process is presumed.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(comm) = self.comm {
            comm.fmt(f)?;
        }
        write!(f, "[{}]{}", self.pid, if self.presumed { "?" } else { "" })
    }
}

/// The number of connections in an accept queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The kernel's last reported length, plus arrivals and minus departures since.
    Exact(u64),
    /// A lower bound: arrivals minus departures. The queue before the trace is unknown.
    AtLeast(u64),
    /// An estimate: events were lost, or no hook sees accept().
    Doubtful(u64),
}

impl Depth {
    /// Returns the number, without its certainty.
    pub fn count(self) -> u64 {
        match self {
            Depth::Exact(n) | Depth::AtLeast(n) | Depth::Doubtful(n) => n,
        }
    }
}

/// Writes `3`, `≥3` or `3?`.
impl fmt::Display for Depth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Depth::Exact(n) => write!(f, "{n}"),
            Depth::AtLeast(n) => write!(f, "≥{n}"),
            Depth::Doubtful(n) => write!(f, "{n}?"),
        }
    }
}

/// A listening address with its counters.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub key: Key,
    /// Number of open listening sockets; 0 if only connections to the address were seen.
    pub sockets: usize,
    /// All listening sockets at this address have closed.
    pub closed: bool,
    pub owner: Option<Owner>,
    /// The process that accepted last.
    pub acceptor: Option<Owner>,
    pub backlog: Backlog,
    pub depth: Depth,
    /// Half-open connections at present; `None` if no hook shows them.
    pub half_open: Option<u64>,
    /// Segments that met a full queue since the trace began; `None` if no hook shows them.
    pub overflows: Option<u64>,
    /// Rate of connections that became ESTABLISHED.
    pub connections_per_s: f64,
    pub accepted_per_s: f64,
    /// Quantile of the waits of connections accepted within the window, in nanoseconds (precision 1
    /// %). `None` without a known wait.
    pub p50_ns: Option<u64>,
    pub p99_ns: Option<u64>,
    /// The longest of these waits, exact.
    pub max_ns: Option<u64>,
    /// The longest wait of each second. The last second is incomplete.
    pub longest_ns: Vec<Option<u64>>,
    /// Connections that became ESTABLISHED since the trace began.
    pub connections: u64,
    pub accepted: u64,
    pub never_accepted: u64,
    pub failed_accepts: u64,
    /// The waits of late connections within the window by main cause, in nanoseconds, the longest
    /// sum first.
    pub late: Vec<(Cause, u64)>,
}

impl Row {
    /// Returns a row without any information.
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
            late: vec![],
        }
    }

    /// Returns the fill level of the queue; 1 is full. `None` if the limit is unknown, or if
    /// several sockets share the address.
    pub fn fill(&self) -> Option<f64> {
        let max = self.backlog.backlog_max.filter(|_| self.sockets <= 1)?;
        // The kernel drops when the length exceeds the limit (`sk_acceptq_is_full`), so the queue
        // holds one more.
        Some((self.depth.count() as f64 / (f64::from(max) + 1.0)).min(1.0))
    }

    /// Compares two rows by rate. Rates are never NaN.
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
    /// The current state: ESTABLISHED, or a later one if it closed while queued.
    pub state: State,
    pub listener: Key,
}

/// A verdict in the list.
#[derive(Clone, Debug, PartialEq)]
pub struct VerdictEntry {
    /// Time of the line that had the verdict (CLOCK_MONOTONIC, nanoseconds).
    pub mono_ns: u64,
    pub subject: Subject,
    pub verdict: Verdict,
    pub reason: String,
}

/// The view of a trace at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub now_ns: u64,
    /// When the trace began.
    pub began_ns: u64,
    /// Time span of rates and quantiles, in seconds.
    pub window_s: u64,
    /// The trace explains late accept() calls (`--why`).
    pub explains: bool,
    pub filters: BTreeMap<String, String>,
    pub unseen: Vec<String>,
    /// Events lost since the trace began, by hook and reason.
    pub lost: Vec<((Hook, Why), u64)>,
    /// Sorted by port.
    pub listeners: Vec<Row>,
    /// Number of listening sockets that the model has no room for.
    pub left_out: u64,
    /// Sorted by wait, the longest first.
    pub waiting: Vec<Waiting>,
    /// Number of waiting connections that are not listed.
    pub waiting_more: u64,
    /// Number of queued connections, by the kernel's count, whose arrival the trace did not see.
    pub waiting_unnamed: u64,
    /// Sorted by time, the latest first.
    pub verdicts: Vec<VerdictEntry>,
}
