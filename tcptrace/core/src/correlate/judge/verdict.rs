//! The verdict on the order of handshake and accept(), with its reason.
//!
//! The kernel does not fix the order of ESTABLISHED and accept(): with TCP Fast Open, accept() may
//! return first. All times that are compared here are from the same clock.

use std::fmt;

use smallvec::SmallVec;

use crate::correlate::state::connection::Accepted;
use crate::duration::Human;
use crate::errno;
use crate::event::{Called, State, Task, Witness};
use crate::fields::Verdict;

/// Facts about a server-side connection at its end. Times are CLOCK_MONOTONIC in nanoseconds.
#[derive(Clone, Debug)]
pub struct Facts {
    /// When all hooks were attached. accept() calls that returned earlier may not have been seen.
    pub attached_ns: u64,
    pub established_ns: Option<u64>,
    pub accepted: Option<Accepted>,
    pub gap: Option<Gap>,
    /// True if the connection left SYN_RECV for another state than ESTABLISHED.
    pub skipped_established: bool,
    pub fate: Fate,
    pub queue: Queue,
    /// True if the reason is wanted even if it follows from the verdict and the times.
    pub words: bool,
}

/// Evidence for whether a connection without a seen accept() stayed in the accept queue to the end
/// of the queue or of the trace. Without this evidence, a process may have got the connection by an
/// accept() that no hook sees, such as io_uring's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// The hooks see every accept(), and no accept() returned the connection.
    NoAccept,
    /// A snapshot found the connection in the queue.
    Queued,
    /// A check found that the connection is not in the queue.
    Left,
    Unknown,
}

/// The reason why the trace may lack an event of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gap {
    /// The connection certainly began before the trace.
    BeforeTrace,
    /// The beginning of the connection was not seen.
    Beginning,
    /// Events were lost while the connection was open.
    Lost,
    /// The kernel skipped runs of an eBPF program while the connection was open.
    Skipped,
    /// An event that is or may be about the connection arrived too late.
    Late,
    /// One of the connection's changes of state was not seen.
    Missed,
    /// The trace gave up the connection while it was open, because too many were open.
    Evicted,
}

impl Gap {
    pub fn why(self) -> &'static str {
        match self {
            Gap::BeforeTrace => "the connection began before the trace",
            Gap::Beginning => "its beginning was not seen",
            Gap::Lost => "events were lost",
            Gap::Skipped => "the kernel skipped runs of a hook",
            Gap::Late => "an event came too late to be put in order",
            Gap::Missed => "one of its changes of state was not seen",
            Gap::Evicted => "too many connections were open, and the trace gave it up",
        }
    }
}

/// The end of a connection, as far as its last events show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The connection was open at the end of the trace, or its end was not seen.
    Open,
    /// Like `Open`, and the peer has closed its side.
    PeerClosed,
    /// Ended by an error (an errno), for example by a RST received from the peer.
    Failed(u32),
    /// Dropped from the accept queue because its listener closed.
    ListenerClosed,
    /// The connection ended without an error, and no process had its socket.
    Dropped,
    /// A process had a descriptor of the socket, so accept() had returned it.
    Held,
}

/// A verdict, its reason, and the names of the events that prove it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    pub verdict: Verdict,
    /// `None` if the reason follows from the verdict and the times and no reader wants it.
    pub reason: Option<String>,
    /// True if the reason follows from the verdict and the times.
    pub follows: bool,
    pub evidence: SmallVec<[&'static str; 4]>,
}

const ESTABLISHED: &str = "inet_sock_set_state SYN_RECV→ESTABLISHED";
const FROM_SYN_RECV: &str = "inet_sock_set_state SYN_RECV→";
const LAST_SNAPSHOT: &str = "sock.sk_socket in the snapshot at the end";
const TO_CLOSE_WAIT: &str = "inet_sock_set_state ESTABLISHED→CLOSE_WAIT";
const TO_CLOSE: &str = "inet_sock_set_state →CLOSE";
const LISTEN_TO_CLOSE: &str = "inet_sock_set_state LISTEN→CLOSE";
const ACCEPT_ENTRY: &str = "accept() entry";
const FAST_OPEN: &str = "tcp_sock.fastopen_rsk";

/// Returns the name of the event that showed the return of accept().
fn accept_exit(witness: Witness) -> &'static str {
    match witness {
        Witness::SysExit => "accept() exit (sys_exit)",
        Witness::Fexit => "inet_csk_accept return (fexit)",
        Witness::Kretprobe => "inet_csk_accept return (kretprobe)",
        Witness::SecuritySockGraft => "accept() in security_sock_graft",
    }
}

/// Judges the facts of one server-side connection.
pub fn judge(facts: &Facts) -> Judgement {
    match (&facts.accepted, facts.established_ns) {
        (Some(accepted), Some(established_ns)) if accepted.mono_ns < established_ns => {
            accepted_first(accepted, established_ns)
        }
        (Some(accepted), Some(established_ns)) => {
            established_first(accepted, established_ns, facts)
        }
        (Some(accepted), None) => established_unseen(accepted, facts),
        (None, Some(_)) => accept_unseen(facts),
        (None, None) => nothing_seen(facts),
    }
}

/// ESTABLISHED, then accept() returned. The time of the call decides between `queued` and
/// `awaited`.
fn established_first(accepted: &Accepted, established_ns: u64, facts: &Facts) -> Judgement {
    let wait = Human(accepted.mono_ns - established_ns);
    let who = TaskName(accepted.task);
    let exit = accept_exit(accepted.witness);
    match accepted.called {
        Called::At(called_ns) if established_ns <= called_ns => Judgement::following(
            Verdict::Queued,
            (facts.words).then(|| {
                format!("the kernel finished the handshake {wait} before accept() returned to {who}")
            }),
            &[ESTABLISHED, ACCEPT_ENTRY, exit],
        ),
        Called::At(called_ns) => Judgement::following(
            Verdict::Awaited,
            (facts.words).then(|| {
                format!(
                    "accept() had been waiting for {}; it returned to {who} {wait} after the kernel \
                     finished the handshake",
                    Human(established_ns - called_ns),
                )
            }),
            &[ACCEPT_ENTRY, ESTABLISHED, exit],
        ),
        Called::BeforeTrace if facts.attached_ns <= established_ns => Judgement::new(
            Verdict::Awaited,
            format!(
                "accept() was blocked since before the trace began; it returned to {who} {wait} \
                 after the kernel finished the handshake"
            ),
            &[ESTABLISHED, exit],
        ),
        Called::BeforeTrace | Called::Unknown => Judgement::new(
            Verdict::Unknown,
            format!(
                "the kernel finished the handshake {wait} before accept() returned to {who}; \
                 when it was called was not seen"
            ),
            &[ESTABLISHED, exit],
        ),
    }
}

/// accept() returned, then ESTABLISHED.
///
/// A hook inside `inet_csk_accept` can see this order without Fast Open. The softirq puts the child
/// socket into the accept queue (`inet_csk_complete_hashdance`) just before it makes the child
/// ESTABLISHED (`tcp_child_process`). An accept() on another CPU can return the child in between.
/// An accept() of an MPTCP socket can do the same, because it locks only the MPTCP socket. A
/// witness that `follows_child_lock` cannot see this order, because it has waited for the softirq.
pub fn accepted_first(accepted: &Accepted, established_ns: u64) -> Judgement {
    let lead = Human(established_ns - accepted.mono_ns);
    let who = TaskName(accepted.task);
    let exit = accept_exit(accepted.witness);
    if accepted.fastopen {
        Judgement::new(
            Verdict::FastOpen,
            format!(
                "accept() returned to {who} {lead} before the kernel finished the handshake, as \
                 TCP Fast Open allows"
            ),
            &[exit, FAST_OPEN, ESTABLISHED],
        )
    } else if !accepted.follows_child_lock && accepted.state == Some(State::SynRecv) {
        Judgement::new(
            Verdict::Overlapped,
            format!(
                "the final ACK had queued the connection; {who} took it on another CPU {lead} \
                 before the kernel, handling the same ACK, made it ESTABLISHED"
            ),
            &[exit, ESTABLISHED],
        )
    } else {
        Judgement::new(
            Verdict::Violated,
            format!(
                "accept() returned to {who} {lead} before the kernel finished the handshake, \
                 without TCP Fast Open"
            ),
            &[exit, ESTABLISHED],
        )
    }
}

/// accept() returned, and ESTABLISHED was not seen.
fn established_unseen(accepted: &Accepted, facts: &Facts) -> Judgement {
    let who = TaskName(accepted.task);
    let exit = accept_exit(accepted.witness);
    if accepted.fastopen {
        return Judgement::new(
            Verdict::FastOpen,
            format!(
                "accept() returned to {who} before the kernel finished the handshake, as TCP \
                 Fast Open allows"
            ),
            &[exit, FAST_OPEN],
        );
    }
    if facts.gap.is_none() && facts.skipped_established {
        return Judgement::new(
            Verdict::FastOpen,
            format!(
                "accept() returned to {who} a connection that left SYN_RECV without being \
                 ESTABLISHED: only TCP Fast Open queues one before the handshake is finished"
            ),
            &[exit, FROM_SYN_RECV],
        );
    }
    let why = facts.gap.map_or("it was not seen", Gap::why);
    Judgement::new(
        Verdict::Unknown,
        format!("when the kernel finished the handshake is not known: {why}"),
        &[exit],
    )
}

/// ESTABLISHED, and no accept() was seen. Only a trace without a gap shows that there was no
/// accept().
fn accept_unseen(facts: &Facts) -> Judgement {
    let unknown = |reason: String| Judgement::new(Verdict::Unknown, reason, &[ESTABLISHED]);
    if let Some(gap) = facts.gap {
        let why = gap.why();
        return unknown(format!("whether accept() took it is not known: {why}"));
    }
    let never = |fate: fmt::Arguments<'_>, evidence: &[&'static str]| {
        let reason = format!("the kernel finished the handshake; accept() never took it: {fate}");
        Judgement::new(Verdict::NeverAccepted, reason, evidence)
    };
    match (facts.fate, facts.queue) {
        (Fate::Open | Fate::PeerClosed, Queue::Unknown | Queue::Left) => {
            return unknown(
                "whether accept() took it is not known: no snapshot at the end of the trace has it in \
                 the accept queue"
                    .into(),
            );
        }
        (Fate::Failed(_), Queue::Left) => {
            return unknown(
                "it failed in the accept queue and was taken from there, but no accept() was seen"
                    .into(),
            );
        }
        (Fate::Failed(_), Queue::Unknown) => {
            return unknown(
                "whether accept() took it is not known: it failed in the accept queue, and may have \
                 been taken from there"
                    .into(),
            );
        }
        _ => {}
    }
    let snapshot = (facts.queue == Queue::Queued).then_some(LAST_SNAPSHOT);
    let open = |evidence: &[&'static str]| -> SmallVec<[&'static str; 4]> {
        evidence.iter().copied().chain(snapshot).collect()
    };
    match facts.fate {
        Fate::Open => never(
            format_args!("it was still in the accept queue when the trace ended"),
            &open(&[ESTABLISHED]),
        ),
        Fate::PeerClosed => never(
            format_args!(
                "the peer has closed, and it was still in the accept queue when the trace ended"
            ),
            &open(&[ESTABLISHED, TO_CLOSE_WAIT]),
        ),
        Fate::Failed(errno) => {
            let error = errno::name(errno);
            match &*error {
                // tcp_reset (net/ipv4/tcp_input.c) sets EPIPE in CLOSE_WAIT and ECONNRESET in other
                // states.
                "ECONNRESET" | "EPIPE" => never(
                    format_args!("the peer reset it while it was queued ({error})"),
                    &[ESTABLISHED, TO_CLOSE],
                ),
                _ => never(
                    format_args!("it failed while it was queued ({error})"),
                    &[ESTABLISHED, TO_CLOSE],
                ),
            }
        }
        Fate::ListenerClosed => never(
            format_args!("the listener closed"),
            &[ESTABLISHED, LISTEN_TO_CLOSE, TO_CLOSE],
        ),
        Fate::Dropped => never(
            format_args!("the kernel dropped it from the accept queue"),
            &[ESTABLISHED, TO_CLOSE],
        ),
        Fate::Held => unknown("a process had it, but no accept() of it was seen".into()),
    }
}

/// Neither ESTABLISHED nor accept() was seen.
fn nothing_seen(facts: &Facts) -> Judgement {
    use Verdict::{Unfinished, Unknown};
    let (verdict, reason) = match (facts.gap, facts.fate) {
        (Some(gap), _) => {
            let why = gap.why();
            let reason = format!("whether accept() came after the handshake is not known: {why}");
            (Unknown, reason)
        }
        (None, Fate::Failed(errno)) => {
            let error = errno::name(errno);
            (
                Unfinished,
                format!("the handshake did not finish ({error})"),
            )
        }
        (None, Fate::ListenerClosed) => (
            Unfinished,
            "the handshake did not finish: the listener closed".into(),
        ),
        (None, Fate::Dropped) => (Unfinished, "the handshake did not finish".into()),
        (None, Fate::Held) => (
            Unknown,
            "a process had it, but no accept() of it was seen".into(),
        ),
        // If one ACK made two child sockets on two CPUs, the kernel drops one of them without an
        // event.
        (None, Fate::Open | Fate::PeerClosed) => (
            Unknown,
            "the handshake was not seen to finish, nor to fail".into(),
        ),
    };
    Judgement::new(verdict, reason, &[])
}

impl Judgement {
    fn new(verdict: Verdict, reason: String, evidence: &[&'static str]) -> Judgement {
        Judgement {
            verdict,
            reason: Some(reason),
            follows: false,
            evidence: SmallVec::from_slice(evidence),
        }
    }

    /// Makes a judgement whose reason follows from the verdict and the times.
    fn following(verdict: Verdict, reason: Option<String>, evidence: &[&'static str]) -> Judgement {
        Judgement {
            verdict,
            reason,
            follows: true,
            evidence: SmallVec::from_slice(evidence),
        }
    }

    /// Appends to the reason a text that does not follow from the verdict and the times.
    pub fn add(&mut self, more: &str) {
        if let Some(reason) = &mut self.reason {
            reason.push_str(more);
        }
        self.follows = false;
    }

    /// Returns the evidence as the `connection` line has it.
    pub fn evidence(&self) -> Option<String> {
        (!self.evidence.is_empty()).then(|| self.evidence.join(", "))
    }
}

/// Displays a process in a sentence: `server[4711]`.
struct TaskName(Task);

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Task { comm, pid, .. } = self.0;
        comm.fmt(f)?;
        f.write_str("[")?;
        pid.fmt(f)?;
        f.write_str("]")
    }
}
