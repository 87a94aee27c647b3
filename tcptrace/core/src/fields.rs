//! The lines that tcptrace puts out: names, units and meaning. Schema 2, a contract.
//!
//! One struct a line. The JSON Schema (`docs/schema/tcptrace-2.json`) and the README's field table
//! are made from them. A field's name has one type and one meaning in all kinds of lines. Fields may
//! be added; none may change its name or its meaning. Unknown is null, never 0 or "".
//!
//! A line in memory carries monotonic time only; the wall clock time `ts` is added where it is
//! written ([`Stamped`]).

mod backlog;
mod bucket;
mod connection;
mod counters;
mod ending;
mod histogram;
mod segment;
mod trace;
mod wanted;

use std::borrow::Cow;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use backlog::Backlog;
pub use bucket::{BucketEnd, Preexisting, TimeWait};
pub use connection::Connection;
pub use counters::{NetnsCounters, QueueCounters};
pub use ending::{ClosedFirst, Ended, Ending, Reset, Retransmit};
pub use histogram::{Histogram, Times};

pub use crate::depth::Depth;
use crate::event::{Comm, Context, ListenQueue, OverflowSegment, State, Witness};
pub use segment::Segment;
pub use trace::{HookCount, ListenerSummary, Lost, Refusal, Session, Summary, Why};
pub use wanted::{Kind, Wanted};

/// The version of this contract, `schema` in the session line.
pub const SCHEMA: u32 = 2;

/// Which end of a connection a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// It called connect().
    Client,
    /// It was cloned from a listener.
    Server,
    /// It called listen().
    Listener,
}

impl Side {
    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Side::Client => "client",
            Side::Server => "server",
            Side::Listener => "listener",
        }
    }
}

/// Where `pid`, `tid`, `comm` and `process` come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PidSource {
    /// It called connect().
    Connect,
    /// It called listen().
    Listen,
    /// It called accept().
    Accept,
    /// It closed the socket, shut it down, or killed it.
    Close,
    /// Found in /proc at the start of the trace: some process that had a descriptor of it. There
    /// the thread is not known, and the name is that of the process's first thread.
    Snapshot,
    /// Found among the descriptors while the trace ran, because the process that was known before
    /// has exited or has the socket no more: some process that has a descriptor of it. The thread is
    /// not known, and the name is that of the process's first thread.
    Holder,
    /// Not accepted yet: the process that listens, which will probably accept.
    Presumed,
}

/// How it is known which listener a connection was made at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ListenerSource {
    /// accept() on that listener returned it.
    Accept,
    /// The request socket that it comes from names the listener.
    Request,
    /// The kernel made its socket as a copy of the listener's.
    Clone,
    /// A guess: it is the only listener that the address fits. A packet filter (TPROXY) or a BPF
    /// program may have chosen another one.
    Address,
}

/// What led to a change of state: a system call, a segment or a timer. Behind each stand the kernel
/// functions that act on it, by the change (as in Linux 6.12), and the sections of RFC 9293.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// listen(). inet_csk_listen_start; 3.10.1.
    Listen,
    /// connect(), or the first sendto() of a Fast Open client. tcp_v4_connect, tcp_v6_connect; 3.10.1.
    Connect,
    /// connect() with TCP_FASTOPEN_CONNECT, which may leave the SYN to the first data.
    /// tcp_fastopen_defer_connect; 3.10.1.
    ConnectDeferred,
    /// connect() failed before anything was sent. tcp_v4_connect, tcp_v6_connect; 3.10.1.
    ConnectFailed,
    /// close(), shutdown(), or the end of the process: a FIN follows the data, once there is a peer.
    /// tcp_close_state; into CLOSE __tcp_close, a listener inet_csk_listen_stop, and tcp_time_wait
    /// where the kernel keeps the connection without the socket; 3.10.4.
    Close,
    /// The process closed it in a way that sends a RST: with unread data, with SO_LINGER and a
    /// time of 0, or with TCP_LINGER2 below 0. __tcp_close, or tcp_disconnect of an MPTCP subflow;
    /// 3.10.5, with TCP_LINGER2 3.10.4.
    Abort,
    /// The process disconnected it, and keeps the socket: connect() to AF_UNSPEC, or shutdown() of
    /// a socket that listens or connects. tcp_disconnect; 3.10.5.
    Disconnect,
    /// Another process killed it (`ss -K`, `bpf_sock_destroy`). tcp_abort; 3.10.5.
    Killed,
    /// A process that restores or saves connections did it in TCP_REPAIR mode, without a segment.
    /// tcp_v4_connect, tcp_v6_connect, tcp_disconnect.
    Repair,
    /// A SYN came. tcp_conn_request of a half-open connection, tcp_try_fastopen with Fast Open;
    /// 3.10.7.2. tcp_rcv_synsent_state_process of a client; 3.10.7.3.
    SynReceived,
    /// The SYN-ACK came. tcp_finish_connect; 3.10.7.3.
    SynAckReceived,
    /// The handshake's last ACK came. tcp_v4_syn_recv_sock and tcp_v6_syn_recv_sock into SYN_RECV,
    /// tcp_rcv_state_process into ESTABLISHED, tcp_check_req where the accept queue was full;
    /// 3.10.7.4.
    AckReceived,
    /// The peer's FIN came. tcp_fin; into TIME_WAIT tcp_time_wait, or tcp_timewait_state_process
    /// where the socket had gone before; 3.10.7.4.
    FinReceived,
    /// The peer acknowledged our FIN. tcp_rcv_state_process into FIN_WAIT2; tcp_done into CLOSE,
    /// tcp_time_wait where the kernel keeps the connection without the socket; 3.10.7.4.
    AckOfFin,
    /// A RST came. tcp_reset of a client that connects; 3.10.7.3. Else tcp_reset, tcp_check_req of a
    /// half-open connection, tcp_timewait_state_process without a socket; 3.10.7.4.
    RstReceived,
    /// Data came for a socket that nobody reads any more: the kernel answers with a RST. tcp_reset,
    /// tcp_done; 3.10.7.4.
    DataReceived,
    /// An ICMP error came. tcp_v4_err, tcp_v6_err; 3.9.2.2.
    IcmpReceived,
    /// Retransmissions or keep-alive probes stayed without an answer. tcp_write_err,
    /// reqsk_timer_handler of a half-open connection; 3.10.8.
    Timeout,
    /// The time of TIME_WAIT, or of an orphan's FIN_WAIT2, was over. tw_timer_handler; 3.10.8.
    Expired,
    /// A new connection took its ports. inet_twsk_deschedule_put; 3.10.7.4.
    Reused,
}

/// What a time or a change of state was learnt from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The tracepoint sock:inet_sock_set_state, exact.
    Tracepoint,
    /// The kernel functions that make and join a request socket (NEW_SYN_RECV), exact.
    RequestSock,
    /// The kernel functions that make, change and free a TIME_WAIT bucket, exact.
    TimewaitSock,
    /// An estimate: the first round-trip time that the kernel measured, SYN-ACK to ACK, or of a
    /// client with TCP_FASTOPEN_CONNECT, SYN to SYN-ACK.
    Srtt,
    /// What the socket's flags said as it closed.
    SocketFlags,
    /// A look through the kernel's sockets, once in a while: so exact as it is frequent.
    SocketIterator,
    /// A segment on the wire.
    Segment,
}

/// What the evidence shows about handshake and accept(): one per server-side connection.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// ESTABLISHED before accept() was even called.
    Queued,
    /// accept() was already blocked; ESTABLISHED, then accept() returned.
    Awaited,
    /// accept() returned before the final ACK, as TCP Fast Open allows.
    FastOpen,
    /// The final ACK had created and queued the child, and inet_csk_accept on another CPU took it
    /// before the ESTABLISHED event.
    Overlapped,
    /// ESTABLISHED and never accepted: still queued at the end of the trace, or closed there.
    NeverAccepted,
    /// The final ACK never completed the handshake: the connection was half-open to its end.
    Unfinished,
    /// Evidence is missing.
    Unknown,
    /// accept() before the final ACK without Fast Open: must never appear.
    Violated,
}

impl Verdict {
    pub const ALL: [Verdict; 8] = [
        Verdict::Queued,
        Verdict::Awaited,
        Verdict::FastOpen,
        Verdict::Overlapped,
        Verdict::NeverAccepted,
        Verdict::Unfinished,
        Verdict::Unknown,
        Verdict::Violated,
    ];

    /// As in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Queued => "queued",
            Verdict::Awaited => "awaited",
            Verdict::FastOpen => "fast_open",
            Verdict::Overlapped => "overlapped",
            Verdict::NeverAccepted => "never_accepted",
            Verdict::Unfinished => "unfinished",
            Verdict::Unknown => "unknown",
            Verdict::Violated => "violated",
        }
    }
}

/// How a half-open connection ended that was never finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HalfOpenEnd {
    /// The SYN-ACK and its retransmissions went unanswered, or deferred data did not come.
    Timeout,
    /// Dropped by no timer while the listener listened: reset by the peer, as a rule.
    Reset,
    /// The accept queue was full at the final ACK, and tcp_abort_on_overflow is set.
    Overflow,
    /// The listener had closed.
    ListenerClosed,
}

/// Common to `transition`, `accept`, `segment` and `connection`: which socket, and whose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Subject {
    /// Number of the connection or listener, unique in the trace.
    pub conn: Option<u64>,
    /// client, server or listener; null when the trace began too late to know.
    pub side: Option<Side>,
    /// 4 or 6, as the addresses are shown: an IPv4-mapped connection is 4.
    #[schemars(extend("enum" = [4, 6]))]
    pub family: u8,
    /// The own address.
    pub laddr: IpAddr,
    /// The own port; null until the kernel has chosen it.
    pub lport: Option<u16>,
    /// The peer's address.
    pub raddr: Option<IpAddr>,
    /// The peer's port.
    pub rport: Option<u16>,
    /// Index of the network device that its link-local IPv6 addresses are of (`sin6_scope_id`, man
    /// 7 ipv6).
    pub scope_id: Option<u32>,
    /// Inode of the network namespace.
    pub netns: u32,
    /// The kernel's socket cookie, which `ss -e` prints in hexadecimal; null where not known.
    pub cookie: Option<u64>,
    /// The user id that owns the socket: its creator's, and its listener's until it is accepted;
    /// null when unknown.
    pub uid: Option<u32>,
    /// Id of the socket's cgroup (version 2), which is the inode of its directory in cgroupfs: that
    /// of the process that made the socket, for a server's that made the listener; null when
    /// unknown.
    pub cgroup: Option<u64>,
    /// Id of the container that this cgroup belongs to, from the name that its runtime gave to the
    /// directory: 64 hexadecimal digits.
    pub container: Option<String>,
    /// Process id; null when unknown, as when the process that was known has exited and another one
    /// has the socket.
    pub pid: Option<u32>,
    /// Thread id; null when unknown.
    pub tid: Option<u32>,
    /// The thread's name; null when unknown.
    pub comm: Option<Comm>,
    /// The name of the process, that of its first thread; null when unknown.
    pub process: Option<Comm>,
    /// Where pid, tid, comm and process come from.
    pub pid_source: Option<PidSource>,
}

impl Subject {
    /// Whether it listens.
    pub fn is_listener(&self) -> bool {
        self.side == Some(Side::Listener)
    }

    /// Whether it was cloned from a listener.
    pub fn is_server(&self) -> bool {
        self.side == Some(Side::Server)
    }
}

/// A socket changed its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Transition {
    /// When, in CLOCK_MONOTONIC nanoseconds (bpf_ktime_get_ns); where the source is
    /// `socket_iterator`, when a look noticed it.
    pub mono_ns: u64,
    #[serde(flatten)]
    pub subject: Subject,
    /// The state it leaves.
    pub oldstate: State,
    /// The state it enters.
    pub newstate: State,
    /// How long it was in oldstate, in nanoseconds; null when the entry was not seen.
    pub in_state_ns: Option<u64>,
    /// Where the kernel ran: in a process that held the socket, or in a softirq; null when the
    /// evidence does not decide.
    pub context: Option<Context>,
    /// The CPU it happened on.
    pub cpu: u16,
    /// True when the tracepoint itself did not print this transition.
    pub synthetic: bool,
    /// What it was learnt from.
    pub source: Source,
    /// What led to it; null where the evidence does not decide.
    pub cause: Option<Cause>,
    /// The kernel function that acts on that cause (as in Linux 6.12); null when the cause is.
    pub function: Option<Cow<'static, str>>,
    /// The section of RFC 9293 about it; null when the cause is, and when the RFC has none.
    pub rfc9293: Option<Cow<'static, str>>,
    /// Where a socket enters CLOSE: the state in which the kernel keeps the connection without it,
    /// FIN_WAIT2 or TIME_WAIT.
    pub bucket: Option<State>,
    /// The socket's pending error (an errno name such as ECONNRESET).
    pub error: Option<Cow<'static, str>>,
    /// For a server's connection the `conn` of the listener that it was made at; null where that is
    /// not known for certain.
    pub listener: Option<u64>,
    #[serde(flatten)]
    pub backlog: Backlog,
}

/// An accept() returned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Accept {
    /// When it returned, in CLOCK_MONOTONIC nanoseconds.
    pub mono_ns: u64,
    #[serde(flatten)]
    pub subject: Subject,
    /// The listener's `conn`; null when the listener could not be found.
    pub listener: Option<u64>,
    /// When the connection became ESTABLISHED, in CLOCK_MONOTONIC nanoseconds; null when that was
    /// not seen, or not yet.
    pub established_mono_ns: Option<u64>,
    /// `conn` of its other end, when that is on this host too; null when not known.
    pub peer_conn: Option<u64>,
    /// When that end, the client's, entered SYN_SENT: when connect() was called.
    pub peer_syn_mono_ns: Option<u64>,
    /// When that end became ESTABLISHED: the moment from which its connect() can return.
    pub peer_established_mono_ns: Option<u64>,
    /// When accept() was called, in CLOCK_MONOTONIC nanoseconds; null when that was not seen.
    pub called_mono_ns: Option<u64>,
    /// From the call to the return, in nanoseconds; null when the call was not seen.
    pub blocked_ns: Option<u64>,
    /// How long the connection waited in the accept queue: from ESTABLISHED to the return, at least
    /// 0, in nanoseconds; null when ESTABLISHED was not seen.
    pub accept_queue_ns: Option<u64>,
    /// Connections still in the listener's accept queue at the return.
    pub backlog_len: u32,
    /// The limit of that queue, which holds one more than this.
    pub backlog_max: u32,
    /// Which hook saw the return.
    pub witness: Witness,
    /// The errno's name of the failure.
    pub accept_error: Option<Cow<'static, str>>,
    /// What the evidence shows so far; null while the evidence is not complete. The `connection`
    /// line has the last word.
    pub verdict: Option<Verdict>,
    /// That verdict in a sentence; null when the verdict is.
    pub reason: Option<String>,
}

/// A segment met a full queue of its listener and was dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Overflow {
    /// When, in CLOCK_MONOTONIC nanoseconds.
    pub mono_ns: u64,
    /// The connection that the segment is of: `conn` is null when the trace has none.
    #[serde(flatten)]
    pub subject: Subject,
    /// The listener's `conn`; null when the trace has not met it.
    pub listener: Option<u64>,
    /// The segment: the SYN, or the last ACK of the handshake, after which the peer believes that it
    /// is connected.
    pub dropped: OverflowSegment,
    /// The queue that was full. A SYN that finds the SYN queue full is dropped unless it reuses a
    /// connection in TIME_WAIT.
    pub queue: ListenQueue,
    /// How many that queue held.
    pub queue_len: u32,
    /// The limit of that queue, which holds one more than this; of its part for all peers when
    /// `reserve`.
    pub queue_max: u32,
    /// True when the SYN queue had room, but only for peers that the kernel knows: without SYN
    /// cookies the last quarter of net.ipv4.tcp_max_syn_backlog is for them.
    pub reserve: bool,
    /// True when the peer got a RST (tcp_abort_on_overflow); else it may try again.
    pub aborted: bool,
}

/// Any line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[expect(
    clippy::large_enum_variant,
    reason = "lines live in a vector that is reused, and a box would be an allocation a connection"
)]
pub enum Line {
    Session(Session),
    Preexisting(Preexisting),
    Transition(Transition),
    Accept(Accept),
    Overflow(Overflow),
    Segment(Segment),
    Connection(Connection),
    Retransmit(Retransmit),
    Reset(Reset),
    TimeWait(TimeWait),
    Histogram(Histogram),
    Lost(Lost),
    Summary(Summary),
}

impl Line {
    pub fn kind(&self) -> Kind {
        match self {
            Line::Session(_) => Kind::Session,
            Line::Preexisting(_) => Kind::Preexisting,
            Line::Transition(_) => Kind::Transition,
            Line::Accept(_) => Kind::Accept,
            Line::Overflow(_) => Kind::Overflow,
            Line::Segment(_) => Kind::Segment,
            Line::Connection(_) => Kind::Connection,
            Line::Retransmit(_) => Kind::Retransmit,
            Line::Reset(_) => Kind::Reset,
            Line::TimeWait(_) => Kind::TimeWait,
            Line::Histogram(_) => Kind::Histogram,
            Line::Lost(_) => Kind::Lost,
            Line::Summary(_) => Kind::Summary,
        }
    }

    /// Which kind of line it is, `event` in JSON.
    pub fn event(&self) -> &'static str {
        self.kind().name()
    }

    /// CLOCK_MONOTONIC, nanoseconds.
    pub fn mono_ns(&self) -> u64 {
        match self {
            Line::Session(x) => x.mono_ns,
            Line::Preexisting(x) => x.mono_ns,
            Line::Transition(x) => x.mono_ns,
            Line::Accept(x) => x.mono_ns,
            Line::Overflow(x) => x.mono_ns,
            Line::Segment(x) => x.mono_ns,
            Line::Connection(x) => x.mono_ns,
            Line::Retransmit(x) => x.mono_ns,
            Line::Reset(x) => x.mono_ns,
            Line::TimeWait(x) => x.mono_ns,
            Line::Histogram(x) => x.mono_ns,
            Line::Lost(x) => x.mono_ns,
            Line::Summary(x) => x.mono_ns,
        }
    }

    /// Which socket it is about; `None` for a line about the trace.
    pub fn subject(&self) -> Option<&Subject> {
        match self {
            Line::Preexisting(x) => Some(&x.subject),
            Line::Transition(x) => Some(&x.subject),
            Line::Accept(x) => Some(&x.subject),
            Line::Overflow(x) => Some(&x.subject),
            Line::Segment(x) => Some(&x.subject),
            Line::Connection(x) => Some(&x.subject),
            Line::Retransmit(x) => Some(&x.subject),
            Line::Reset(x) => Some(&x.subject),
            Line::TimeWait(x) => Some(&x.subject),
            Line::Session(_) | Line::Histogram(_) | Line::Lost(_) | Line::Summary(_) => None,
        }
    }

    /// The same, to be changed.
    pub fn subject_mut(&mut self) -> Option<&mut Subject> {
        match self {
            Line::Preexisting(x) => Some(&mut x.subject),
            Line::Transition(x) => Some(&mut x.subject),
            Line::Accept(x) => Some(&mut x.subject),
            Line::Overflow(x) => Some(&mut x.subject),
            Line::Segment(x) => Some(&mut x.subject),
            Line::Connection(x) => Some(&mut x.subject),
            Line::Retransmit(x) => Some(&mut x.subject),
            Line::Reset(x) => Some(&mut x.subject),
            Line::TimeWait(x) => Some(&mut x.subject),
            Line::Session(_) | Line::Histogram(_) | Line::Lost(_) | Line::Summary(_) => None,
        }
    }
}

/// A line as it is written: its name and its wall clock time in front.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Stamped<'a, T> {
    /// Which kind of line this is.
    pub event: &'a str,
    /// Wall clock time, RFC 3339 in UTC with nanoseconds: mono_ns plus the offset that was
    /// measured when the trace began.
    #[schemars(extend("format" = "date-time"))]
    pub ts: &'a str,
    #[serde(flatten)]
    pub line: T,
}
