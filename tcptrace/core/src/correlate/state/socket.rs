//! The state that connections and listeners share: identity, owner and TCP state of a socket.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::backlog;
use super::why::Why;
use crate::errno;
use crate::event::{Context, Event, SetState, State, Task, Tuple};
use crate::fields::{PidSource, Side, Source, Subject, Transition};

/// The process that owns a socket, and the evidence for it.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Owner {
    pub task: Task,
    pub source: PidSource,
    /// The last time at which that process was known to have the socket, CLOCK_MONOTONIC in
    /// nanoseconds. A packed connection does not store it, see `Connection::unpacked`.
    #[serde(skip)]
    pub since_ns: u64,
}

/// A socket from its birth to its end. Another socket may use the same address later.
#[derive(Serialize, Deserialize)]
pub struct Socket {
    /// The number of the connection or listener in the trace.
    pub conn: u64,
    pub side: Option<Side>,
    pub netns: u32,
    /// The best known tuple. The kernel fills its parts in one by one.
    pub tuple: Tuple,
    /// Index of the device that link-local addresses belong to.
    pub scope: Option<u32>,
    pub cookie: Option<u64>,
    /// The user who owns the socket.
    pub uid: Option<u32>,
    /// The cgroup of the process that made the socket, or that of the listener it was cloned from.
    pub cgroup: Option<u64>,
    /// The owner that the last event proved. That process may have exited since, see
    /// `Processes::living`.
    pub owner: Option<Owner>,
    pub state: State,
    /// The time at which the socket entered `state`; `None` if that was not seen.
    since_ns: Option<u64>,
    /// True if one of its transitions was missed.
    pub missed: bool,
    /// True if no process had the socket at its last transition.
    pub was_orphaned: bool,
}

impl Socket {
    /// Makes the record of a socket that is about to make its first transition in this trace.
    pub fn new(conn: u64, side: Option<Side>, first: &SetState) -> Socket {
        Socket {
            scope: first.scope,
            ..Socket::with_state(conn, side, first.netns, first.tuple, first.oldstate)
        }
    }

    /// Makes the record of a socket that was seen by something other than a transition.
    pub fn with_state(
        conn: u64,
        side: Option<Side>,
        netns: u32,
        tuple: Tuple,
        state: State,
    ) -> Socket {
        Socket {
            conn,
            side,
            netns,
            tuple,
            scope: None,
            cookie: None,
            uid: None,
            cgroup: None,
            owner: None,
            state,
            since_ns: None,
            missed: false,
            was_orphaned: false,
        }
    }

    /// Takes over the parts of the tuple and the cookie that an event shows.
    pub fn learn(&mut self, tuple: &Tuple, cookie: Option<u64>) {
        let known = &mut self.tuple;
        if !tuple.laddr.is_unspecified() {
            known.laddr = tuple.laddr;
        }
        known.lport = tuple.lport.or(known.lport);
        known.raddr = tuple.raddr.or(known.raddr);
        known.rport = tuple.rport.or(known.rport);
        self.cookie = cookie.or(self.cookie);
    }

    /// Returns whether this socket can have that tuple: no part that both know differs.
    pub fn may_be(&self, tuple: &Tuple) -> bool {
        fn agree<T: PartialEq>(a: Option<T>, b: Option<T>) -> bool {
            a.is_none() || b.is_none() || a == b
        }
        let specified = |addr: IpAddr| (!addr.is_unspecified()).then_some(addr);
        agree(specified(self.tuple.laddr), specified(tuple.laddr))
            && agree(self.tuple.lport, tuple.lport)
            && agree(self.tuple.raddr, tuple.raddr)
            && agree(self.tuple.rport, tuple.rport)
    }

    /// Enters `change.newstate`. Returns the time in the previous state in nanoseconds, if the
    /// entry to that state was seen.
    #[inline(always)]
    pub fn enter(&mut self, event: &Event, change: &SetState) -> Option<u64> {
        self.learn(&change.tuple, change.cookie);
        self.scope = change.scope.or(self.scope);
        self.uid = Some(change.uid);
        self.cgroup = change.cgroup.or(self.cgroup);

        if self.state != change.oldstate {
            self.missed = true;
            self.since_ns = None;
        }
        let in_state_ns = self
            .since_ns
            .and_then(|since| event.mono_ns.checked_sub(since));
        self.was_orphaned = change.orphaned;
        self.state = change.newstate;
        self.since_ns = Some(event.mono_ns);
        in_state_ns
    }

    /// Returns the line of a change that the socket has just made.
    #[inline(always)]
    pub fn transition(
        &self,
        event: &Event,
        change: &SetState,
        in_state_ns: Option<u64>,
        why: Option<Why>,
        owner: Option<Owner>,
    ) -> Transition {
        Transition {
            mono_ns: event.mono_ns,
            subject: self.subject(closer(event, change).or(owner)),
            oldstate: change.oldstate,
            newstate: change.newstate,
            in_state_ns,
            context: change.context,
            cpu: event.cpu,
            synthetic: false,
            source: Source::Tracepoint,
            cause: why.map(|why| why.cause),
            function: why.map(|why| why.function.into()),
            rfc9293: why.and_then(|why| why.rfc()).map(Into::into),
            bucket: None,
            error: change.err.map(errno::name),
            listener: None,
            backlog: backlog::of(change),
        }
    }

    /// Sets the state that a snapshot shows, which no transition led to.
    pub fn correct_state(&mut self, state: State) {
        self.state = state;
        self.since_ns = None;
        self.missed = true;
    }

    /// Returns the time of entry into this state; `None` if the socket has left it or the entry was not
    /// seen.
    pub fn since(&self, state: State) -> Option<u64> {
        self.since_ns.filter(|_| self.state == state)
    }

    /// Returns the subject of a line, with `owner`.
    #[inline(always)]
    pub fn subject(&self, owner: Option<Owner>) -> Subject {
        Subject {
            conn: Some(self.conn),
            side: self.side,
            family: self.tuple.family(),
            laddr: self.tuple.laddr,
            lport: self.tuple.lport,
            raddr: self.tuple.raddr,
            rport: self.tuple.rport,
            scope_id: self.scope,
            netns: self.netns,
            cookie: self.cookie,
            uid: self.uid,
            cgroup: self.cgroup,
            // Added when the line is written, from `Small::Containers`.
            container: None,
            container_name: None,
            container_image: None,
            k8s_pod_name: None,
            k8s_namespace_name: None,
            pid: owner.map(|o| o.task.pid),
            nspid: owner.map(|o| o.task.place.nspid).filter(|&it| it != 0),
            tid: owner.map(|o| o.task.tid).filter(|&tid| tid != 0),
            comm: owner.map(|o| o.task.comm),
            process: owner.and_then(|o| o.task.process()),
            pid_source: owner.map(|o| o.source),
            place: owner.map_or(0, |o| o.task.place.container),
        }
    }
}

/// Returns the process that closes the socket or shuts it down in this transition, by close(),
/// shutdown() or exit. It need not be the owner.
pub fn closer(event: &Event, change: &SetState) -> Option<Owner> {
    let closing = matches!(
        change.newstate,
        State::FinWait1 | State::LastAck | State::Close
    );
    let task = change.task?;
    (closing && change.context == Some(Context::Process)).then_some(Owner {
        task,
        source: PidSource::Close,
        since_ns: event.mono_ns,
    })
}
