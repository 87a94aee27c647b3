//! Scripted traces: each test plays kernel events and checks the resulting lines.

mod diagram;
mod ending;
mod histogram;
mod identity;
mod listeners;
mod lookahead;
mod loss;
mod overflow;
mod owners;
mod peers;
mod queues;
mod random;
mod requests;
mod resets;
mod scenarios;
mod segments;
mod select;
mod snapshot;
mod suspected;
mod table;
mod timewait;
mod verdicts;
mod why;

use std::net::IpAddr;

use super::state::table::Table;
use super::{Correlator, Totals};
use crate::event::State::*;
use crate::event::{
    Accept, Called, Comm, Context, Event, Holder, Holders, Kind, Note, Outcome, Place, Process,
    ProcessStep, SetState, Sk, State, Task, Tuple, Witness,
};
use crate::fields::{self, Line, Side, Verdict};

pub const US: u64 = 1_000;
pub const MS: u64 = 1_000 * US;
/// The time at which all hooks are attached.
pub const START: u64 = 1_000 * MS;
pub const NETNS: u32 = 4026531840;
pub const PORT: u16 = 7878;
pub const ECONNRESET: u32 = 104;

/// A socket on loopback with all its fields known.
#[derive(Clone, Copy)]
pub struct Sock {
    pub sk: Sk,
    pub tuple: Tuple,
    pub backlog_max: u32,
}

pub fn tuple(laddr: &str, lport: u16, peer: Option<(&str, u16)>) -> Tuple {
    Tuple {
        laddr: laddr.parse().unwrap(),
        lport: Some(lport),
        raddr: peer.map(|(addr, _)| addr.parse().unwrap()),
        rport: peer.map(|(_, port)| port),
    }
}

/// Returns the listener at 127.0.0.1:7878.
pub fn listener() -> Sock {
    listener_at(1, "127.0.0.1")
}

pub fn listener_at(sk: u64, laddr: &str) -> Sock {
    Sock {
        sk: Sk(sk),
        tuple: tuple(laddr, PORT, None),
        backlog_max: 128,
    }
}

/// Returns a child socket of [`listener`]. Its remote port is `40000 + sk`.
pub fn child(sk: u64) -> Sock {
    Sock {
        sk: Sk(sk),
        tuple: tuple("127.0.0.1", PORT, Some(("127.0.0.1", 40_000 + sk as u16))),
        backlog_max: 128,
    }
}

/// Returns a client socket that connects to [`listener`], with local port `40000 + sk`.
pub fn client(sk: u64) -> Sock {
    Sock {
        sk: Sk(sk),
        tuple: tuple("127.0.0.1", 40_000 + sk as u16, Some(("127.0.0.1", PORT))),
        backlog_max: 0,
    }
}

impl Sock {
    /// Returns a transition in a softirq, without an error and with no optional facts.
    pub fn enters(&self, oldstate: State, newstate: State) -> SetState {
        SetState {
            sk: self.sk,
            cookie: None,
            cgroup: None,
            netns: NETNS,
            tuple: self.tuple,
            scope: None,
            oldstate,
            newstate,
            context: Some(Context::Softirq),
            task: None,
            backlog_len: 0,
            backlog_max: self.backlog_max,
            held: false,
            fin_received: false,
            orphaned: false,
            srtt_ns: None,
            uid: 0,
            err: None,
            stats: None,
            listen: None,
            no_fast_open: false,
            repair: false,
            fastopen_connect: false,
            fin_uncounted: false,
            clone_of: None,
        }
    }

    /// Like [`enters`](Self::enters), in a system call of a process.
    pub fn enters_by(&self, task: Task, oldstate: State, newstate: State) -> SetState {
        SetState {
            context: Some(Context::Process),
            task: Some(task),
            ..self.enters(oldstate, newstate)
        }
    }

    /// Returns an accept() on this listener with `outcome`.
    fn accept_returns(&self, called: Called, outcome: Outcome) -> Accept {
        Accept {
            outcome,
            listener: Some(self.sk),
            listener_addr: self.tuple.laddr,
            listener_port: self.tuple.lport,
            netns: NETNS,
            called,
            witness: Witness::SysExit,
            task: server(),
            backlog_len: 0,
            backlog_max: self.backlog_max,
        }
    }

    pub fn accepts(&self, child: &Sock, called: Called) -> Accept {
        self.accept_returns(
            called,
            Outcome::Accepted {
                sk: child.sk,
                cookie: None,
                tuple: child.tuple,
                state: Some(Established),
                fastopen: false,
                wrapped: false,
            },
        )
    }

    pub fn accepts_fast(&self, child: &Sock, called: Called) -> Accept {
        self.accept_returns(
            called,
            Outcome::Accepted {
                sk: child.sk,
                cookie: None,
                tuple: child.tuple,
                state: Some(SynRecv),
                fastopen: true,
                wrapped: false,
            },
        )
    }

    pub fn fails_to_accept(&self, errno: u32) -> Accept {
        self.accept_returns(Called::Unknown, Outcome::Failed(errno))
    }
}

pub fn task(pid: u32, name: &str) -> Task {
    Task {
        pid,
        tid: pid,
        comm: Comm::from(name),
        process: Comm::from(name),
        place: Place::default(),
    }
}

pub fn server() -> Task {
    task(4711, "server")
}

pub fn visitor() -> Task {
    task(815, "visitor")
}

/// The state of a test: a correlator, a clock, a count of lost records, and the lines so far.
pub struct Trace {
    correlator: Correlator,
    pub now: u64,
    pub lost: u32,
    pub events: Vec<Event>,
    pub lines: Vec<Line>,
}

/// Returns a trace without events.
pub fn trace() -> Trace {
    let mut correlator = Correlator::new(START);
    // Only one connection stays unpacked. Therefore most events of a test unpack their connection,
    // as in a trace with many connections.
    correlator.open = Table::of_size(1, 1 << 16);
    Trace {
        correlator,
        now: START,
        lost: 0,
        events: Vec::new(),
        lines: Vec::new(),
    }
}

/// Returns a trace with `listener()` in LISTEN, with connection number 1.
pub fn listening() -> Trace {
    let mut t = trace();
    t.set(listener().enters_by(server(), Close, Listen));
    t
}

/// Returns a trace with `child(2)` of that listener in SYN_RECV, with connection number 2.
pub fn syn_recv() -> Trace {
    let mut t = listening();
    t.set(child(2).enters(Listen, SynRecv));
    t
}

/// Returns a trace with `child(2)` ESTABLISHED, at `t.now`.
pub fn established() -> Trace {
    let mut t = syn_recv();
    t.set(child(2).enters(SynRecv, Established));
    t
}

/// Returns a trace with `child(2)` accepted.
pub fn accepted() -> Trace {
    let mut t = established();
    t.wait(MS);
    t.accept(listener().accepts(&child(2), Called::At(t.now)));
    t
}

/// Returns a trace with `client(2)` in SYN_SENT, with connection number 1.
pub fn syn_sent() -> Trace {
    let mut t = trace();
    t.set(client(2).enters_by(visitor(), Close, SynSent));
    t
}

impl Trace {
    pub fn wait(&mut self, ns: u64) {
        self.now += ns;
    }

    fn event(&mut self, kind: Kind) {
        let event = Event {
            mono_ns: self.now,
            cpu: 0,
            lost: self.lost,
            kind,
        };
        self.correlator.event(&event, &mut self.lines);
        self.events.push(event);
    }

    /// Plays a transition a microsecond later.
    pub fn set(&mut self, change: SetState) {
        self.wait(US);
        self.event(Kind::SetState(change));
    }

    /// Plays an event of a TIME_WAIT bucket a microsecond later.
    pub fn timewait(&mut self, step: crate::event::Timewait) {
        self.wait(US);
        self.event(Kind::Timewait(step));
    }

    /// Plays a socket of a snapshot a microsecond later.
    pub fn snapshot_entry(&mut self, entry: crate::event::SnapshotEntry) {
        self.wait(US);
        self.event(Kind::SnapshotEntry(entry));
    }

    /// Plays the exit of a process a microsecond later.
    pub fn exit(&mut self, pid: u32) {
        self.wait(US);
        let step = ProcessStep::Exited;
        self.event(Kind::Process(Process { pid, step }));
    }

    /// Plays the rename of a process a microsecond later.
    pub fn rename(&mut self, pid: u32, name: &str) {
        self.wait(US);
        let comm = Comm::from(name);
        let step = ProcessStep::Renamed { comm };
        self.event(Kind::Process(Process { pid, step }));
    }

    /// Plays a search for the processes that have a listener. The search begins a microsecond
    /// later. After another microsecond it finds these processes.
    pub fn holders(&mut self, of: &Sock, tasks: &[Task]) {
        let began_ns = self.now + US;
        self.wait(2 * US);
        let holder = |&task: &Task| Holder {
            sk: of.sk,
            task: Task { tid: 0, ..task },
        };
        let holders = tasks.iter().map(holder).collect();
        self.event(Kind::Note(Note::Holders(Holders { began_ns, holders })));
    }

    /// Returns whether the correlator requests a search for the processes that have listeners.
    pub fn wants_holders(&self) -> bool {
        self.correlator.wants_holders()
    }

    /// Plays the end of a snapshot that began at `began_ns`, a microsecond later.
    pub fn snapshot_end(&mut self, began_ns: u64) {
        self.wait(US);
        let netns = NETNS;
        self.event(Kind::Note(Note::SnapshotEnd(crate::event::SnapshotEnd {
            netns,
            began_ns,
            is_audit: false,
            is_last: false,
        })));
    }

    /// Like [`snapshot_end`](Self::snapshot_end), for an audit.
    pub fn audited(&mut self, began_ns: u64) {
        self.wait(US);
        let netns = NETNS;
        self.event(Kind::Note(Note::SnapshotEnd(crate::event::SnapshotEnd {
            netns,
            began_ns,
            is_audit: true,
            is_last: false,
        })));
    }

    /// Plays the passing of a second, as the tracer's timer reports it.
    pub fn tick(&mut self) {
        self.event(Kind::Note(Note::Tick));
    }

    /// Plays the return of an accept() a microsecond later.
    pub fn accept(&mut self, accept: Accept) {
        self.wait(US);
        self.event(Kind::Accept(accept));
    }

    /// Plays the birth of `child` and its change to ESTABLISHED.
    pub fn establish(&mut self, child: &Sock) {
        self.set(child.enters(Listen, SynRecv));
        self.set(child.enters(SynRecv, Established));
    }

    /// Plays the transitions of `sock` along a path of states, a millisecond in each.
    pub fn walk(&mut self, sock: &Sock, path: &[State]) {
        for step in path.windows(2) {
            self.wait(MS - US);
            self.set(sock.enters(step[0], step[1]));
        }
    }

    /// Plays the snapshot at the end of the trace, with these sockets, a microsecond later.
    pub fn last_snapshot(&mut self, entries: &[crate::event::SnapshotEntry]) {
        self.wait(US);
        let began_ns = self.now;
        entries.iter().for_each(|&it| self.snapshot_entry(it));
        self.wait(US);
        self.event(Kind::Note(Note::SnapshotEnd(crate::event::SnapshotEnd {
            netns: NETNS,
            began_ns,
            is_audit: false,
            is_last: true,
        })));
    }

    /// Like [`finish`](Self::finish), after a snapshot that finds these sockets in an accept queue.
    pub fn finish_with_queued(&mut self, queued: &[Sock]) -> Totals {
        let queued: Vec<_> = queued.iter().map(|it| queues::seen(it, false)).collect();
        self.last_snapshot(&queued);
        self.finish()
    }

    pub fn finish(&mut self) -> Totals {
        self.wait(US);
        self.correlator.finish(self.now, self.lost, &mut self.lines)
    }

    pub fn transitions(&self) -> Vec<&fields::Transition> {
        let only = self.lines.iter().filter_map(|line| match line {
            Line::Transition(x) => Some(x),
            _ => None,
        });
        only.collect()
    }

    pub fn accepts(&self) -> Vec<&fields::Accept> {
        let only = self.lines.iter().filter_map(|line| match line {
            Line::Accept(x) => Some(x),
            _ => None,
        });
        only.collect()
    }

    pub fn connections(&self) -> Vec<&fields::Connection> {
        let only = self.lines.iter().filter_map(|line| match line {
            Line::Connection(x) => Some(x),
            _ => None,
        });
        only.collect()
    }

    /// Returns the last transition line.
    pub fn last_transition(&self) -> &fields::Transition {
        self.transitions().last().expect("a transition")
    }

    pub fn last_accept(&self) -> &fields::Accept {
        self.accepts().last().expect("an accept")
    }

    /// Returns the line of a connection; panics unless there is exactly one.
    pub fn connection(&self, conn: u64) -> &fields::Connection {
        let mut all = self.connections();
        all.retain(|c| c.subject.conn == Some(conn));
        assert_eq!(all.len(), 1, "connection lines of {conn}");
        all[0]
    }

    pub fn verdict(&self, conn: u64) -> Verdict {
        self.connection(conn).verdict.expect("a verdict")
    }

    pub fn reason(&self, conn: u64) -> &str {
        self.connection(conn).reason.as_deref().expect("a reason")
    }
}
