//! Events: the decoded records of the kernel side, independent of their binary layout.
//!
//! The modules `order`, `correlate` and the sinks use these types. Times are nanoseconds of
//! CLOCK_MONOTONIC, ports are in host byte order, and a value that the kernel does not know yet is
//! `None`.

mod comm;
mod counters;
mod ending;

pub use comm::Comm;
pub use counters::{NetnsCounters, QueueCounters};
pub use ending::{Call, Direction, Reset, Retransmit, Retransmitted, Stats};
mod half_open;
mod note;
mod process;
mod recorded;
mod sched;
mod segment;
mod snapshot;
mod timewait;

use std::fmt;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use half_open::{CloneOf, Overflow, Request, RequestStep};
pub use note::{Loss, Note, Why};
pub use process::{Holder, Holders, Process, ProcessStep};
pub use sched::{OffCpu, Sched, SchedStep, Stack, StackKey, Syscall};
pub use segment::{Segment, TcpFlags};
pub use snapshot::{SnapshotEnd, SnapshotEntry};
pub use timewait::{Timewait, TimewaitStep};

/// A TCP state under its kernel name without `TCP_` (include/net/tcp_states.h).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[repr(u8)]
pub enum State {
    Established = 1,
    SynSent = 2,
    SynRecv = 3,
    #[serde(rename = "FIN_WAIT1")]
    FinWait1 = 4,
    #[serde(rename = "FIN_WAIT2")]
    FinWait2 = 5,
    TimeWait = 6,
    Close = 7,
    CloseWait = 8,
    LastAck = 9,
    Listen = 10,
    Closing = 11,
    NewSynRecv = 12,
    BoundInactive = 13,
}

impl State {
    /// Every state, in the order of the kernel's numbers.
    pub const ALL: [State; 13] = {
        use State::*;
        [
            Established,
            SynSent,
            SynRecv,
            FinWait1,
            FinWait2,
            TimeWait,
            Close,
            CloseWait,
            LastAck,
            Listen,
            Closing,
            NewSynRecv,
            BoundInactive,
        ]
    };

    /// Returns the state with this kernel number, or `None` if there is no such state.
    pub fn from_kernel(number: u8) -> Option<State> {
        State::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    /// Returns the kernel's name without `TCP_`.
    pub fn name(self) -> &'static str {
        match self {
            State::Established => "ESTABLISHED",
            State::SynSent => "SYN_SENT",
            State::SynRecv => "SYN_RECV",
            State::FinWait1 => "FIN_WAIT1",
            State::FinWait2 => "FIN_WAIT2",
            State::TimeWait => "TIME_WAIT",
            State::Close => "CLOSE",
            State::CloseWait => "CLOSE_WAIT",
            State::LastAck => "LAST_ACK",
            State::Listen => "LISTEN",
            State::Closing => "CLOSING",
            State::NewSynRecv => "NEW_SYN_RECV",
            State::BoundInactive => "BOUND_INACTIVE",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Address of a `struct sock`. It does not identify a connection, because the kernel reuses
/// addresses at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sk(pub u64);

/// Local and remote address and port of a socket. IPv4-mapped IPv6 addresses are stored as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tuple {
    /// The local address.
    pub laddr: IpAddr,
    /// `None` until the kernel has chosen a port (connect() on a socket that was not bound).
    pub lport: Option<u16>,
    /// `None` for a listener. Before Linux 6.15 also `None` when a new child socket changes from
    /// LISTEN to SYN_RECV.
    pub raddr: Option<IpAddr>,
    /// The remote port; `None` as for `raddr`.
    pub rport: Option<u16>,
}

impl Tuple {
    /// Returns the tuple as the peer's socket has it; `None` while a part is not known.
    pub fn mirrored(&self) -> Option<Tuple> {
        Some(Tuple {
            laddr: self.raddr?,
            lport: Some(self.rport?),
            raddr: Some(self.laddr),
            rport: Some(self.lport?),
        })
    }

    /// Returns 4 or 6, the address family.
    pub fn family(&self) -> u8 {
        match self.raddr.unwrap_or(self.laddr) {
            IpAddr::V4(_) => 4,
            IpAddr::V6(_) => 6,
        }
    }
}

/// The thread that ran when the hook fired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "recorded::Task", into = "recorded::Task")]
pub struct Task {
    /// The process (the kernel's tgid).
    pub pid: u32,
    /// The thread (the kernel's pid); 0 when only the process is known.
    pub tid: u32,
    /// The thread's name.
    pub comm: Comm,
    /// The name of the process, which is that of its first thread; empty when unknown.
    pub process: Comm,
    /// The place of the process. No record has it; it comes with [`Process`](crate::trace::Process).
    pub place: Place,
}

/// A process's PID namespace and container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The process's number in its own PID namespace; 0 when it is `pid`, or unknown.
    pub nspid: u32,
    /// Number of the container in the trace, from 1; 0 for none, and when unknown.
    pub container: u32,
}

impl Task {
    /// Returns the name of the process; `None` when unknown.
    pub fn process(&self) -> Option<Comm> {
        (!self.process.bytes().is_empty()).then_some(self.process)
    }
}

/// The context in which the kernel ran when it changed a socket's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Context {
    /// A system call of the process that held the socket, or the return from one.
    Process,
    /// The softirq of a network or timer interrupt, on top of an unrelated task.
    Softirq,
}

/// The hook that saw an accept().
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Witness {
    /// The exit of the accept system call. The socket is found by the returned descriptor.
    SysExit,
    /// fexit of `inet_csk_accept`.
    Fexit,
    /// kretprobe of `inet_csk_accept`.
    Kretprobe,
    /// The entry of `security_sock_graft`, which a successful accept() calls after
    /// `inet_csk_accept`. It is used if the return of `inet_csk_accept` was missed.
    SecuritySockGraft,
}

impl Witness {
    /// Returns the value's name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Witness::SysExit => "sys_exit",
            Witness::Fexit => "fexit",
            Witness::Kretprobe => "kretprobe",
            Witness::SecuritySockGraft => "security_sock_graft",
        }
    }

    /// Returns whether this hook runs after `lock_sock(newsk)` (net/ipv4/af_inet.c, `inet_accept`).
    /// If `newsk` is the TCP socket, the lock waits for the softirq that makes it ESTABLISHED. With
    /// MPTCP `newsk` is the socket around it, see [`Outcome::Accepted::wrapped`].
    pub fn follows_child_lock(self) -> bool {
        match self {
            Witness::SysExit | Witness::SecuritySockGraft => true,
            Witness::Fexit | Witness::Kretprobe => false,
        }
    }
}

/// A segment of the handshake that meets a full queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OverflowSegment {
    Syn,
    /// The last segment of the handshake. The client is already ESTABLISHED when it sends this.
    Ack,
}

/// A queue of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ListenQueue {
    /// The accept queue: ESTABLISHED connections that wait for accept().
    Accept,
    /// The SYN queue: request sockets (half-open connections) that wait for the final ACK.
    Syn,
}

/// A hook of the kernel, as named in the `hooks`, `lost` and `summary` lines.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// The tracepoint `sock:inet_sock_set_state`.
    InetSockSetState,
    /// Calls and returns of `inet_csk_accept`, or of the system call around it.
    InetCskAccept,
    /// The tracepoint `tcp:tcp_retransmit_skb`.
    TcpRetransmitSkb,
    /// The functions that make and end request sockets and clone their child sockets.
    RequestSock,
    /// SYNs and ACKs that met a full queue.
    ListenOverflow,
    /// The tracepoint `tcp:tcp_retransmit_synack`.
    TcpRetransmitSynack,
    /// The tracepoints `tcp:tcp_send_reset` and `tcp:tcp_receive_reset`.
    TcpReset,
    /// The functions that make, change and free TIME_WAIT buckets.
    TimewaitSock,
    /// The kernel's iterator over its TCP sockets.
    SocketIterator,
    /// The tracepoints `sched:sched_process_exit` and `task:task_rename`.
    SchedProcessExit,
    /// The kernel's iterator over the descriptors of all processes.
    TaskFileIterator,
    /// Segments on the wire: the tracepoints `net:net_dev_start_xmit` and `net:netif_receive_skb`.
    Segment,
    /// The scheduling of acceptors: the tracepoints `sched:sched_switch` and `sched:sched_waking`.
    SchedSwitch,
    /// Periodic samples of acceptors on a CPU.
    CpuSample,
}

impl Hook {
    pub const ALL: [Hook; 14] = [
        Hook::InetSockSetState,
        Hook::InetCskAccept,
        Hook::TcpRetransmitSkb,
        Hook::TcpReset,
        Hook::RequestSock,
        Hook::ListenOverflow,
        Hook::TcpRetransmitSynack,
        Hook::TimewaitSock,
        Hook::SocketIterator,
        Hook::SchedProcessExit,
        Hook::TaskFileIterator,
        Hook::Segment,
        Hook::SchedSwitch,
        Hook::CpuSample,
    ];

    /// Returns the hook's name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Hook::InetSockSetState => "inet_sock_set_state",
            Hook::InetCskAccept => "inet_csk_accept",
            Hook::TcpRetransmitSkb => "tcp_retransmit_skb",
            Hook::TcpReset => "tcp_reset",
            Hook::RequestSock => "request_sock",
            Hook::ListenOverflow => "listen_overflow",
            Hook::TcpRetransmitSynack => "tcp_retransmit_synack",
            Hook::TimewaitSock => "timewait_sock",
            Hook::SocketIterator => "socket_iterator",
            Hook::SchedProcessExit => "sched_process_exit",
            Hook::TaskFileIterator => "task_file_iterator",
            Hook::Segment => "segment",
            Hook::SchedSwitch => "sched_switch",
            Hook::CpuSample => "cpu_sample",
        }
    }
}

/// One event: its time, its CPU and its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// CLOCK_MONOTONIC in nanoseconds, read in the hook.
    pub mono_ns: u64,
    /// The CPU that the hook ran on.
    pub cpu: u16,
    /// Number of records that the kernel side had lost when it wrote this record, all hooks
    /// together (modulo 2^32).
    pub lost: u32,
    pub kind: Kind,
}

/// The kind of an event, with its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    SetState(SetState),
    Accept(Accept),
    Retransmit(Retransmit),
    Reset(Reset),
    Request(Request),
    Overflow(Overflow),
    Timewait(Timewait),
    SnapshotEntry(SnapshotEntry),
    Process(Process),
    Segment(Segment),
    Sched(Sched),
    /// An input that does not come from a hook.
    Note(Note),
}

impl Kind {
    /// Returns the hook that the record comes from; `None` for a note.
    pub fn hook(&self) -> Option<Hook> {
        let hook = match self {
            Kind::SetState(_) => Hook::InetSockSetState,
            Kind::Accept(_) => Hook::InetCskAccept,
            Kind::Retransmit(_) => Hook::TcpRetransmitSkb,
            Kind::Reset(_) => Hook::TcpReset,
            Kind::Request(it) if it.step == RequestStep::SynackRetransmitted => {
                Hook::TcpRetransmitSynack
            }
            Kind::Request(_) => Hook::RequestSock,
            Kind::Overflow(_) => Hook::ListenOverflow,
            Kind::Timewait(_) => Hook::TimewaitSock,
            Kind::SnapshotEntry(_) => Hook::SocketIterator,
            Kind::Process(_) => Hook::SchedProcessExit,
            Kind::Segment(_) => Hook::Segment,
            Kind::Sched(it) => match it.step {
                SchedStep::Sample { .. } => Hook::CpuSample,
                _ => Hook::SchedSwitch,
            },
            Kind::Note(_) => return None,
        };
        Some(hook)
    }
}

/// `sock:inet_sock_set_state` fired: the socket is about to enter `newstate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetState {
    /// Address of the socket.
    pub sk: Sk,
    /// The socket cookie, which `ss -e` prints as `sk:` in hexadecimal.
    pub cookie: Option<u64>,
    /// Id of the cgroup (v2) of the process that made the socket. A child socket has its
    /// listener's.
    pub cgroup: Option<u64>,
    /// Inode of the network namespace.
    pub netns: u32,
    pub tuple: Tuple,
    /// Index of the device that link-local addresses belong to. Two links may have the same
    /// link-local addresses.
    pub scope: Option<u32>,
    /// The state that the socket leaves.
    pub oldstate: State,
    /// The state that the socket enters.
    pub newstate: State,
    /// The context of the change; `None` when the evidence does not decide.
    pub context: Option<Context>,
    /// The thread that changed the state; only if `context` is `Process`.
    pub task: Option<Task>,
    /// True if a process has a descriptor of the socket. A connection in the accept queue has none.
    pub held: bool,
    /// True if the peer's FIN was received.
    pub fin_received: bool,
    /// True if no process has the socket any more (SOCK_DEAD).
    pub orphaned: bool,
    /// The smoothed round-trip time; on a new child socket, the time from the SYN-ACK to the ACK.
    /// `None` before the first measurement.
    pub srtt_ns: Option<u64>,
    /// User id of the socket's owner; for a child socket in the accept queue, the listener's owner.
    pub uid: u32,
    /// `sk_ack_backlog`: on a new child socket, the number of sockets queued ahead of it.
    pub backlog_len: u32,
    /// `sk_max_ack_backlog`: above 0 proves that the socket is, or was cloned from, a listener.
    pub backlog_max: u32,
    /// `sk_err`, an errno; `None` when it is 0.
    pub err: Option<u32>,
    /// The socket's counters. Present when it enters FIN_WAIT1, CLOSING or CLOSE, and when it leaves
    /// SYN_SENT.
    pub stats: Option<Stats>,
    /// The limits of the queues; only when the socket enters LISTEN.
    pub listen: Option<Listen>,
    /// At LISTEN to SYN_RECV: true if servers may not use TCP Fast Open. Then the final ACK has
    /// made the child socket, and not a SYN.
    pub no_fast_open: bool,
    /// True in TCP_REPAIR mode. Then neither connect() nor close() sends a segment.
    pub repair: bool,
    /// True with TCP_FASTOPEN_CONNECT. Then connect() may defer the SYN until the first data.
    pub fastopen_connect: bool,
    /// On entering CLOSE_WAIT: true if the FIN is not counted in `bytes_received`, because it came
    /// with the SYN or the SYN-ACK (`tcp_fastopen_add_skb`).
    pub fin_uncounted: bool,
    /// At LISTEN to SYN_RECV: the listener that the socket was cloned from, if known.
    pub clone_of: Option<Sk>,
}

/// The requested limit of a listener's queues, and the namespace's upper bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The `backlog` argument of listen(); `None` when unknown.
    pub backlog: Option<i32>,
    /// `net.core.somaxconn` of the network namespace.
    pub somaxconn: u32,
}

/// An accept() returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept {
    pub outcome: Outcome,
    /// The listener; `None` when it could not be found.
    pub listener: Option<Sk>,
    /// The listener's local address.
    pub listener_addr: IpAddr,
    /// The listener's local port; `None` when unknown.
    pub listener_port: Option<u16>,
    /// Inode of the network namespace.
    pub netns: u32,
    /// The time of the call.
    pub called: Called,
    /// The hook that saw the return.
    pub witness: Witness,
    pub task: Task,
    /// Length of the listener's accept queue at the return.
    pub backlog_len: u32,
    /// The limit of the listener's accept queue.
    pub backlog_max: u32,
}

/// The result of an accept().
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The accepted socket.
    Accepted {
        sk: Sk,
        cookie: Option<u64>,
        tuple: Tuple,
        /// The socket's state at the return.
        state: Option<State>,
        /// True if the final ACK had not arrived: TCP Fast Open made the socket.
        fastopen: bool,
        /// True if accept() made a socket around this one (MPTCP) and locked the outer socket.
        wrapped: bool,
    },
    /// accept() failed with this errno (positive).
    Failed(u32),
}

/// The time of the call of an accept().
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Called {
    /// CLOCK_MONOTONIC in nanoseconds.
    At(u64),
    /// Before the hooks were attached, and therefore before any event of this trace.
    BeforeTrace,
    Unknown,
}
