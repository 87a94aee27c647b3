//! The lines that tcptrace writes: names, units and meaning of their fields (schema 2).
//!
//! Each kind of line is one struct. The JSON Schema (`docs/schema/tcptrace-2.json`) is generated
//! from these structs. A field's name has one type and one meaning in all kinds of lines. Fields
//! may be added; no field changes its name or its meaning. An unknown value is null, never 0 or "".
//!
//! A line in memory carries monotonic time only. The wall clock time `ts` is added when the line is
//! written ([`Stamped`]).

mod backlog;
mod bucket;
mod connection;
mod counters;
mod ending;
mod histogram;
mod late;
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
pub use late::{BlockedIn, Frame, Late, LateReason, LateTimes, OtherAcceptor, RunningIn, Stack};

use crate::container::{Container, Text};
pub use crate::depth::Depth;
use crate::event::{Comm, Context, ListenQueue, OverflowSegment, State, Witness};
pub use segment::Segment;
pub use trace::{FailedMethod, HookCount, ListenerSummary, Lost, Session, Summary, Why};
pub use wanted::{Kind, Wanted};

/// The version of this schema. The session line has it as `schema`.
pub const SCHEMA: u32 = 2;

/// Which end of a connection a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The socket called connect().
    Client,
    /// The kernel cloned the socket from a listener.
    Server,
    /// The socket called listen().
    Listener,
}

impl Side {
    /// Returns the value's name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Side::Client => "client",
            Side::Server => "server",
            Side::Listener => "listener",
        }
    }
}

/// The source of `pid`, `tid`, `comm` and `process`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PidSource {
    /// The process called connect().
    Connect,
    /// The process called listen().
    Listen,
    /// The process called accept().
    Accept,
    /// The process closed the socket, shut it down, or killed it.
    Close,
    /// A process that had a descriptor of the socket at the start of the trace, found in /proc.
    /// The thread is not known; the name is that of the process's first thread.
    Snapshot,
    /// A process that has a descriptor of the socket. It was looked up during the trace, because
    /// the process known before had exited or closed its descriptor. The thread is not known; the
    /// name is that of the process's first thread.
    Holder,
    /// The process that listens. The connection is not accepted yet; this process will probably
    /// accept it.
    Presumed,
}

/// The evidence for the listener of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ListenerSource {
    /// accept() on that listener returned the connection.
    Accept,
    /// The request socket that the connection comes from names the listener.
    Request,
    /// The kernel cloned the connection's socket from the listener's.
    Clone,
    /// A guess: the listener is the only one that the address matches. A packet filter (TPROXY)
    /// or a BPF program may have chosen another listener.
    Address,
}

/// The reason for a change of state: a system call, a segment or a timer. Each description ends
/// with the kernel functions that act on it (as in Linux 6.12) and the sections of RFC 9293.
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
    /// close(), shutdown(), or the end of the process. If there is a peer, a FIN follows the data.
    /// tcp_close_state. Into CLOSE: __tcp_close, inet_csk_listen_stop of a listener, or
    /// tcp_time_wait if the kernel keeps a bucket instead of the socket; 3.10.4.
    Close,
    /// The process closed the socket in a way that sends a RST: with unread data, with SO_LINGER and a
    /// time of 0, or with TCP_LINGER2 below 0. __tcp_close, or tcp_disconnect of an MPTCP subflow;
    /// 3.10.5, with TCP_LINGER2 3.10.4.
    Abort,
    /// The process disconnected the socket and keeps it: connect() to AF_UNSPEC, or shutdown() of
    /// a socket that listens or connects. tcp_disconnect; 3.10.5.
    Disconnect,
    /// Another process killed the connection (`ss -K`, `bpf_sock_destroy`). tcp_abort; 3.10.5.
    Killed,
    /// A process that saves or restores connections changed the state in TCP_REPAIR mode. No segment
    /// was sent.
    /// tcp_v4_connect, tcp_v6_connect, tcp_disconnect.
    Repair,
    /// A SYN was received. tcp_conn_request of a half-open connection, tcp_try_fastopen with Fast Open;
    /// 3.10.7.2. tcp_rcv_synsent_state_process of a client; 3.10.7.3.
    SynReceived,
    /// The SYN-ACK was received. tcp_finish_connect; 3.10.7.3.
    SynAckReceived,
    /// The handshake's last ACK was received. tcp_v4_syn_recv_sock and tcp_v6_syn_recv_sock into SYN_RECV,
    /// tcp_rcv_state_process into ESTABLISHED, tcp_check_req where the accept queue was full;
    /// 3.10.7.4.
    AckReceived,
    /// The peer's FIN was received. tcp_fin; into TIME_WAIT tcp_time_wait, or tcp_timewait_state_process
    /// where the socket had gone before; 3.10.7.4.
    FinReceived,
    /// The peer acknowledged our FIN. tcp_rcv_state_process into FIN_WAIT2; tcp_done into CLOSE,
    /// tcp_time_wait where the kernel keeps the connection without the socket; 3.10.7.4.
    AckOfFin,
    /// A RST was received. tcp_reset of a client that connects; 3.10.7.3. Else tcp_reset, tcp_check_req of a
    /// half-open connection, tcp_timewait_state_process without a socket; 3.10.7.4.
    RstReceived,
    /// Data was received for a socket that no process reads any more. The kernel answers with a RST. tcp_reset,
    /// tcp_done; 3.10.7.4.
    DataReceived,
    /// An ICMP error was received. tcp_v4_err, tcp_v6_err; 3.9.2.2.
    IcmpReceived,
    /// Retransmissions or keep-alive probes got no answer. tcp_write_err,
    /// reqsk_timer_handler of a half-open connection; 3.10.8.
    Timeout,
    /// The timer of TIME_WAIT, or of an orphan's FIN_WAIT2, expired. tw_timer_handler; 3.10.8.
    Expired,
    /// A new connection took the ports of a TIME_WAIT bucket. inet_twsk_deschedule_put; 3.10.7.4.
    Reused,
}

/// The source of a time or a change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The tracepoint sock:inet_sock_set_state, exact.
    Tracepoint,
    /// The kernel functions that make a request socket (NEW_SYN_RECV) and clone its child socket,
    /// exact.
    RequestSock,
    /// The kernel functions that make, change and free a TIME_WAIT bucket, exact.
    TimewaitSock,
    /// An estimate from the first round-trip time that the kernel measured: SYN-ACK to ACK, or SYN
    /// to SYN-ACK for a client with TCP_FASTOPEN_CONNECT.
    Srtt,
    /// The flags of the closing socket, where no hook saw its TIME_WAIT bucket.
    SocketFlags,
    /// A snapshot of the kernel's sockets. The time is that of the snapshot, so it can be late by
    /// the interval between two snapshots.
    SocketIterator,
    /// A segment on the wire.
    Segment,
}

/// The order of handshake and accept() that the evidence shows, one per server-side connection.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// ESTABLISHED before accept() was called.
    Queued,
    /// accept() was already blocked when the connection became ESTABLISHED, and then returned.
    Awaited,
    /// accept() returned before the final ACK, as TCP Fast Open allows.
    FastOpen,
    /// The final ACK made the child socket and queued it. inet_csk_accept on another CPU returned
    /// the child socket before it became ESTABLISHED.
    Overlapped,
    /// ESTABLISHED and never accepted: closed in the queue, or still queued when the trace ended.
    NeverAccepted,
    /// The final ACK never completed the handshake; the connection was half-open to its end.
    Unfinished,
    /// Evidence is missing.
    Unknown,
    /// accept() returned before the final ACK without Fast Open. This contradicts the kernel's code
    /// and is never expected.
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

    /// Returns the value's name in JSON.
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

/// The end of a half-open connection whose handshake never finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HalfOpenEnd {
    /// The SYN-ACK and its retransmissions got no answer, or (with TCP_DEFER_ACCEPT) no data came.
    Timeout,
    /// The request socket was dropped while the listener listened, and not by a timer. As a rule
    /// the peer sent a RST.
    Reset,
    /// The accept queue was full at the final ACK, and net.ipv4.tcp_abort_on_overflow is set.
    Overflow,
    /// The listener was closed.
    ListenerClosed,
}

/// The socket that a line is about, and its owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Subject {
    /// Number of the connection or listener, unique in the trace.
    pub conn: Option<u64>,
    /// client, server or listener; null when the trace began too late to know.
    pub side: Option<Side>,
    /// The address family, 4 or 6. An IPv4-mapped connection is 4, as its addresses are shown.
    #[schemars(extend("enum" = [4, 6]))]
    pub family: u8,
    /// The local address.
    pub laddr: IpAddr,
    /// The local port; null until the kernel has chosen it.
    pub lport: Option<u16>,
    /// The peer's address.
    pub raddr: Option<IpAddr>,
    /// The peer's port.
    pub rport: Option<u16>,
    /// Index of the network device that the link-local IPv6 addresses belong to (`sin6_scope_id`,
    /// man 7 ipv6).
    pub scope_id: Option<u32>,
    /// Inode of the network namespace.
    pub netns: u32,
    /// The kernel's socket cookie, which `ss -e` prints in hexadecimal; null when unknown.
    pub cookie: Option<u64>,
    /// User id of the socket's owner. Until a connection is accepted, that is the listener's owner.
    /// Null when unknown.
    pub uid: Option<u32>,
    /// Id of the socket's cgroup (version 2): the inode of the cgroup's directory in cgroupfs. The
    /// kernel takes the cgroup of the process that made the socket. A server's connection has the
    /// cgroup of its listener. Null when unknown.
    pub cgroup: Option<u64>,
    /// Id of the container that `cgroup` belongs to, 64 hexadecimal digits, taken from the name of
    /// the cgroup's directory. With cgroups of version 1, the container that the process `pid` is
    /// in (/proc/PID/cgroup).
    pub container: Option<Text>,
    /// Name of the container, from the files of its runtime. In Kubernetes, it is the name in the
    /// pod's specification. Null when unknown.
    pub container_name: Option<Text>,
    /// Name of the container's image, as its runtime wrote it. Null when unknown.
    pub container_image: Option<Text>,
    /// Name of the Kubernetes pod that the container belongs to. Null when it is unknown or when
    /// there is none.
    pub k8s_pod_name: Option<Text>,
    /// Kubernetes namespace of the pod. Null when it is unknown or when there is none.
    pub k8s_namespace_name: Option<Text>,
    /// Process id. Null when unknown, for example after the known process exited and another
    /// process has the socket.
    pub pid: Option<u32>,
    /// Process id in the PID namespace of the process, as the process itself sees it. Null when it
    /// is `pid`, and when unknown.
    pub nspid: Option<u32>,
    /// Thread id; null when unknown.
    pub tid: Option<u32>,
    /// The thread's name; null when unknown.
    pub comm: Option<Comm>,
    /// The name of the process, which is that of its first thread; null when unknown.
    pub process: Option<Comm>,
    /// The source of pid, tid, comm and process.
    pub pid_source: Option<PidSource>,
    /// Number of the process's container in the trace; 0 for none. Not part of the line.
    #[serde(skip)]
    #[schemars(skip)]
    pub place: u32,
}

impl Subject {
    /// Returns whether the socket is a listener.
    pub fn is_listener(&self) -> bool {
        self.side == Some(Side::Listener)
    }

    /// Sets the container and its names.
    pub fn set_container(&mut self, container: &Container) {
        self.container = Some(container.id.clone());
        self.container_name = container.name.clone();
        self.container_image = container.image.clone();
        self.k8s_pod_name = container.pod.clone();
        self.k8s_namespace_name = container.namespace.clone();
    }

    /// Returns whether the socket was cloned from a listener.
    pub fn is_server(&self) -> bool {
        self.side == Some(Side::Server)
    }
}

/// A socket changed its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Transition {
    /// Time of the change in CLOCK_MONOTONIC nanoseconds (bpf_ktime_get_ns). Where the source is
    /// `socket_iterator`, the time of the snapshot that shows it.
    pub mono_ns: u64,
    #[serde(flatten)]
    pub subject: Subject,
    /// The state that the socket leaves.
    pub oldstate: State,
    /// The state that the socket enters.
    pub newstate: State,
    /// Time spent in oldstate, in nanoseconds; null when the entry was not seen.
    pub in_state_ns: Option<u64>,
    /// Whether the kernel ran for a process that held the socket, or in a softirq; null when the
    /// evidence does not decide.
    pub context: Option<Context>,
    /// The CPU that the hook ran on.
    pub cpu: u16,
    /// True when sock:inet_sock_set_state itself did not report this transition.
    pub synthetic: bool,
    /// The source of this transition.
    pub source: Source,
    /// The reason for the change; null when the evidence does not decide.
    pub cause: Option<Cause>,
    /// The kernel function that acts on that cause (as in Linux 6.12); null when `cause` is null.
    pub function: Option<Cow<'static, str>>,
    /// The section of RFC 9293 about that cause; null when `cause` is null or the RFC has none.
    pub rfc9293: Option<Cow<'static, str>>,
    /// On entering CLOSE: the state in which the kernel keeps the connection without its socket,
    /// FIN_WAIT2 or TIME_WAIT.
    pub bucket: Option<State>,
    /// The socket's pending error, as an errno name such as ECONNRESET.
    pub error: Option<Cow<'static, str>>,
    /// For a server's connection, the `conn` of its listener; null when not known for certain.
    pub listener: Option<u64>,
    #[serde(flatten)]
    pub backlog: Backlog,
}

impl Transition {
    /// Returns whether a listener changed its state, or a connection entered an accept queue.
    pub fn is_of_queue(&self) -> bool {
        let is_queued = self.subject.is_server() && self.newstate == State::Established;
        self.subject.is_listener() || is_queued
    }
}

/// The return of an accept().
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Accept {
    /// Time of the return, in CLOCK_MONOTONIC nanoseconds.
    pub mono_ns: u64,
    #[serde(flatten)]
    pub subject: Subject,
    /// The listener's `conn`; null when the listener could not be found.
    pub listener: Option<u64>,
    /// When the connection became ESTABLISHED, in CLOCK_MONOTONIC nanoseconds; null when that was
    /// not seen or has not happened.
    pub established_mono_ns: Option<u64>,
    /// `conn` of the peer's socket, when the peer is on this host; null when not known.
    pub peer_conn: Option<u64>,
    /// When the peer's socket entered SYN_SENT, that is, when connect() was called, in
    /// CLOCK_MONOTONIC nanoseconds.
    pub peer_syn_mono_ns: Option<u64>,
    /// When the peer's socket became ESTABLISHED, in CLOCK_MONOTONIC nanoseconds. Its connect() can
    /// return from this moment.
    pub peer_established_mono_ns: Option<u64>,
    /// When accept() was called, in CLOCK_MONOTONIC nanoseconds; null when the call was not seen.
    pub called_mono_ns: Option<u64>,
    /// Time from the call to the return, in nanoseconds; null when the call was not seen.
    pub blocked_ns: Option<u64>,
    /// Wait in the accept queue: from ESTABLISHED to the return, at least 0, in nanoseconds. Null
    /// when ESTABLISHED was not seen.
    pub accept_queue_ns: Option<u64>,
    /// Connections that are still in the listener's accept queue at the return.
    pub backlog_len: u32,
    /// The limit of the accept queue. The kernel admits one connection more than this.
    pub backlog_max: u32,
    /// The hook that saw the return.
    pub witness: Witness,
    /// The errno name of a failed accept(), such as EAGAIN.
    pub accept_error: Option<Cow<'static, str>>,
    /// The verdict from the evidence so far; null while the evidence is not complete. The
    /// `connection` line has the final verdict.
    pub verdict: Option<Verdict>,
    /// The verdict as a sentence; null when `verdict` is null.
    pub reason: Option<String>,
    /// Explains the wait in the accept queue; absent unless the wait was longer than
    /// the time of `--why`.
    #[serde(flatten)]
    pub late: Option<Box<Late>>,
}

/// A segment met a full queue of its listener and was dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Overflow {
    /// Time of the event, in CLOCK_MONOTONIC nanoseconds.
    pub mono_ns: u64,
    /// The segment's connection; `conn` is null when the trace does not know it.
    #[serde(flatten)]
    pub subject: Subject,
    /// The listener's `conn`; null when the trace does not know the listener.
    pub listener: Option<u64>,
    /// The dropped segment: the SYN, or the last ACK of the handshake. After that ACK the client is
    /// already ESTABLISHED.
    pub dropped: OverflowSegment,
    /// The queue that was full. A SYN that finds the SYN queue full is dropped unless it reuses a
    /// connection in TIME_WAIT.
    pub queue: ListenQueue,
    /// Number of entries in the full queue.
    pub queue_len: u32,
    /// The limit of the full queue, which holds one entry more than this. With `reserve` it is the
    /// limit of the part that is open to unknown peers.
    pub queue_max: u32,
    /// True when the SYN queue had room only for peers with which this host has had connections
    /// before. Without SYN cookies the last quarter of net.ipv4.tcp_max_syn_backlog is reserved for
    /// such peers (tcp_peer_is_proven).
    pub reserve: bool,
    /// True when the kernel answered the segment with a RST (tcp_abort_on_overflow). Otherwise the
    /// peer may retransmit it.
    pub aborted: bool,
}

/// Any line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[expect(
    clippy::large_enum_variant,
    reason = "lines stay in a vector that is reused; a box would cost an allocation per connection"
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
    Stack(Stack),
    Lost(Lost),
    Summary(Summary),
}

impl Line {
    /// Returns the kind of the line.
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
            Line::Stack(_) => Kind::Stack,
            Line::Lost(_) => Kind::Lost,
            Line::Summary(_) => Kind::Summary,
        }
    }

    /// Returns the name of the line's kind, `event` in JSON.
    pub fn event(&self) -> &'static str {
        self.kind().name()
    }

    /// Returns the line's time in CLOCK_MONOTONIC nanoseconds.
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
            Line::Stack(x) => x.mono_ns,
            Line::Lost(x) => x.mono_ns,
            Line::Summary(x) => x.mono_ns,
        }
    }

    /// Returns the socket that the line is about; `None` for a line about the trace.
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
            Line::Session(_)
            | Line::Histogram(_)
            | Line::Stack(_)
            | Line::Lost(_)
            | Line::Summary(_) => None,
        }
    }

    /// Like [`subject`](Line::subject), but mutable.
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
            Line::Session(_)
            | Line::Histogram(_)
            | Line::Stack(_)
            | Line::Lost(_)
            | Line::Summary(_) => None,
        }
    }
}

/// A line as it is written, with its kind and its wall clock time in front.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Stamped<'a, T> {
    /// The kind of the line.
    pub event: &'a str,
    /// Wall clock time, RFC 3339 in UTC with nanoseconds: mono_ns plus the offset measured when the
    /// trace began.
    #[schemars(extend("format" = "date-time"))]
    pub ts: &'a str,
    #[serde(flatten)]
    pub line: T,
}
