//! What happened in the kernel: the decoded form of a record, free of its wire layout.
//!
//! Everything downstream (order, correlate, sinks) speaks these types. Times are nanoseconds of
//! CLOCK_MONOTONIC, addresses and ports are in host form, and what the kernel did not know yet is
//! `None`.

mod comm;
mod counters;
mod ending;

pub use comm::Comm;
pub use counters::{NetnsCounters, QueueCounters};
pub use ending::{Call, Direction, Reset, Retransmit, Retransmitted, Stats};
mod found;
mod half_open;
mod note;
mod process;
mod recorded;
mod segment;
mod timewait;

use std::fmt;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use found::{Found, Looked};
pub use half_open::{CloneOf, Overflow, Request, RequestStep};
pub use note::{Loss, Note, Why};
pub use process::{Holder, Holders, Process, ProcessStep};
pub use segment::{Segment, TcpFlags};
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
    /// Every state, by kernel number.
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

    /// The state with this kernel number.
    pub fn from_kernel(number: u8) -> Option<State> {
        State::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }

    /// The kernel's name without `TCP_`.
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

/// Address of a `struct sock`. Not an identity by itself: the kernel reuses it at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sk(pub u64);

/// A socket's two ends, its own first. IPv4-mapped IPv6 addresses are shown as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tuple {
    pub laddr: IpAddr,
    /// `None` until the kernel has chosen it (a connecting socket that was not bound).
    pub lport: Option<u16>,
    /// `None` for a listener, and on Linux 6.14 and before at LISTEN to SYN_RECV.
    pub raddr: Option<IpAddr>,
    pub rport: Option<u16>,
}

impl Tuple {
    /// As the other end has it; `None` while a part is not known.
    pub fn mirrored(&self) -> Option<Tuple> {
        Some(Tuple {
            laddr: self.raddr?,
            lport: Some(self.rport?),
            raddr: Some(self.laddr),
            rport: Some(self.lport?),
        })
    }

    /// 4 or 6, as the addresses are shown.
    pub fn family(&self) -> u8 {
        match self.raddr.unwrap_or(self.laddr) {
            IpAddr::V4(_) => 4,
            IpAddr::V6(_) => 6,
        }
    }
}

/// The thread that was running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "recorded::Task", into = "recorded::Task")]
pub struct Task {
    /// The process (the kernel's tgid).
    pub pid: u32,
    /// The thread (the kernel's pid); 0 when only the process is known.
    pub tid: u32,
    /// The thread's name.
    pub comm: Comm,
    /// The name of the process, which is that of its first thread; empty when not known.
    pub process: Comm,
}

impl Task {
    /// The name of the process, if it is known.
    pub fn process(&self) -> Option<Comm> {
        (!self.process.bytes().is_empty()).then_some(self.process)
    }
}

/// Where the kernel was running when it changed a socket's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Context {
    /// In a system call, or on its way out of one, of the process that held the socket.
    Process,
    /// In a network or timer interrupt's bottom half, on whichever task it hit.
    Softirq,
}

/// How an accept was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Witness {
    /// The accept system call's exit; the returned descriptor led to the socket.
    SysExit,
    /// fexit of `inet_csk_accept`.
    Fexit,
    /// kretprobe of `inet_csk_accept`.
    Kretprobe,
    /// The entry of `security_sock_graft`, which a successful accept passes a moment later; it
    /// speaks where the return of `inet_csk_accept` was missed.
    SecuritySockGraft,
}

impl Witness {
    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Witness::SysExit => "sys_exit",
            Witness::Fexit => "fexit",
            Witness::Kretprobe => "kretprobe",
            Witness::SecuritySockGraft => "security_sock_graft",
        }
    }

    /// Whether this witness speaks after `lock_sock(newsk)` (net/ipv4/af_inet.c, `inet_accept`).
    /// Where that is the TCP socket itself, the call has waited for the softirq that makes it
    /// ESTABLISHED; with MPTCP it is the socket around it, see [`Outcome::Accepted::wrapped`].
    pub fn follows_child_lock(self) -> bool {
        match self {
            Witness::SysExit | Witness::SecuritySockGraft => true,
            Witness::Fexit | Witness::Kretprobe => false,
        }
    }
}

/// A segment that meets a full queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OverflowSegment {
    Syn,
    /// The last one of the handshake: the peer believes that it is connected.
    Ack,
}

/// A queue of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ListenQueue {
    /// Finished connections that wait for accept().
    Accept,
    /// Half-open requests that wait for the final ACK.
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
    /// Begin and end of request sockets, and their children's births.
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
}

impl Hook {
    pub const ALL: [Hook; 12] = [
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
    ];

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
        }
    }
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// CLOCK_MONOTONIC, nanoseconds, taken in the hook.
    pub mono_ns: u64,
    pub cpu: u16,
    /// Records that the kernel side had lost, all hooks together, when it wrote this one
    /// (modulo 2^32).
    pub lost: u32,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    SetState(SetState),
    Accept(Accept),
    Retransmit(Retransmit),
    Reset(Reset),
    Request(Request),
    Overflow(Overflow),
    Timewait(Timewait),
    Found(Found),
    Process(Process),
    Segment(Segment),
    /// No hook's record.
    Note(Note),
}

impl Kind {
    /// The hook whose record it is; `None` for a note.
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
            Kind::Found(_) => Hook::SocketIterator,
            Kind::Process(_) => Hook::SchedProcessExit,
            Kind::Segment(_) => Hook::Segment,
            Kind::Note(_) => return None,
        };
        Some(hook)
    }
}

/// `sock:inet_sock_set_state` fired: the socket is about to enter `newstate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetState {
    pub sk: Sk,
    /// The id that `ss -e` prints as `sk:`, in hexadecimal there.
    pub cookie: Option<u64>,
    /// Id of the cgroup (v2) of the process that made it; of a child, its listener's.
    pub cgroup: Option<u64>,
    /// Inode of the network namespace.
    pub netns: u32,
    pub tuple: Tuple,
    /// Index of the device that its link-local addresses are of: each link may have the same ones.
    pub scope: Option<u32>,
    pub oldstate: State,
    pub newstate: State,
    /// `None` where the evidence does not decide.
    pub context: Option<Context>,
    /// Who changed it; only where `context` is `Process`.
    pub task: Option<Task>,
    /// A process has a descriptor of it: a connection in the accept queue has none.
    pub held: bool,
    /// The peer's FIN has come.
    pub fin_received: bool,
    /// No process has it any more.
    pub orphaned: bool,
    /// The smoothed round-trip time; on a fresh child from the SYN-ACK to the ACK. `None` before
    /// the first measurement.
    pub srtt_ns: Option<u64>,
    /// The user who owns it; of a child in the accept queue, the listener's.
    pub uid: u32,
    /// `sk_ack_backlog`: on a fresh child, the sockets queued ahead of it.
    pub backlog_len: u32,
    /// `sk_max_ack_backlog`: above 0 proves that the socket is, or was cloned from, a listener.
    pub backlog_max: u32,
    /// `sk_err` (an errno), if any.
    pub err: Option<u32>,
    /// The socket's figures, where the change of state tells them: as it enters FIN_WAIT1,
    /// CLOSING or CLOSE, and as it leaves SYN_SENT.
    pub stats: Option<Stats>,
    /// As it enters LISTEN.
    pub listen: Option<Listen>,
    /// At LISTEN to SYN_RECV: servers may not use TCP Fast Open, so no SYN can have made it.
    pub no_fast_open: bool,
    /// In TCP_REPAIR mode: no segment is sent, by connect() and close() neither.
    pub repair: bool,
    /// With TCP_FASTOPEN_CONNECT: connect() may leave the SYN to the first data.
    pub fastopen_connect: bool,
    /// As it enters CLOSE_WAIT: the FIN is not in `bytes_received`, because it came with the SYN or
    /// the SYN-ACK (`tcp_fastopen_add_skb`).
    pub fin_uncounted: bool,
    /// At LISTEN to SYN_RECV: the listener that it is a clone of, where that can be told.
    pub clone_of: Option<Sk>,
}

/// The limit that a listener was asked to have, and the one on all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The `backlog` that listen() was called with; `None` when that is not known.
    pub backlog: Option<i32>,
    /// `net.core.somaxconn` of the network namespace.
    pub somaxconn: u32,
}

/// An accept returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accept {
    pub outcome: Outcome,
    /// `None` when it could not be found.
    pub listener: Option<Sk>,
    /// The listener's own address.
    pub listener_addr: IpAddr,
    pub listener_port: Option<u16>,
    pub netns: u32,
    pub called: Called,
    pub witness: Witness,
    pub task: Task,
    /// The listener's accept queue at the return, and its limit.
    pub backlog_len: u32,
    pub backlog_max: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The accepted socket.
    Accepted {
        sk: Sk,
        cookie: Option<u64>,
        tuple: Tuple,
        /// Its state at the return.
        state: Option<State>,
        /// The final ACK had not come: the socket was there by TCP Fast Open.
        fastopen: bool,
        /// accept() made a socket around it (MPTCP), and has locked that one.
        wrapped: bool,
    },
    /// The errno, positive.
    Failed(u32),
}

/// When accept() was entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Called {
    /// CLOCK_MONOTONIC, nanoseconds.
    At(u64),
    /// Before the hooks were attached, and so before any event of this trace.
    BeforeTrace,
    Unknown,
}
