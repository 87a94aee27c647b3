//! Decoding of a record's bytes into an [`Event`]. No input makes it panic.

mod ending;
mod half_open;
mod process;
mod sched;
mod segment;
mod snapshot;
mod timewait;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tcptrace_ebpf::abi;
use thiserror::Error;
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::event::{
    Accept, Called, Comm, Context, Event, Kind, Listen, Outcome, Place, SetState, Sk, State, Task,
    Tuple, Witness,
};

pub use sched::stack_key;

/// The reason why a record could not be decoded. The trace counts such records. A single such
/// record means that the loader and the eBPF object have different versions of the ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Undecodable {
    #[error("a record of {0} bytes is too short for its kind")]
    Short(usize),
    #[error("a record of ABI version {0}, not {expected}", expected = abi::VERSION)]
    Version(u8),
    #[error("a record of unknown kind {0}")]
    Kind(u8),
    #[error("the value {value} of {field} is not known")]
    Value { field: &'static str, value: u8 },
}

/// The version of the record layout that [`decode`] reads (`abi::VERSION`).
pub const ABI: u8 = abi::VERSION;

/// Decodes one record of the ring buffer.
///
/// # Errors
/// [`Undecodable`] if the record is cut, or has an unknown version, kind or value.
pub fn decode(record: &[u8]) -> Result<Event, Undecodable> {
    let mut rest = Rest {
        bytes: record,
        len: record.len(),
    };
    let header: abi::Header = rest.take()?;
    if header.version != abi::VERSION {
        return Err(Undecodable::Version(header.version));
    }
    let kind = match header.kind {
        abi::kind::SET_STATE => Kind::SetState(set_state(&mut rest)?),
        abi::kind::ACCEPT => Kind::Accept(accept(&mut rest)?),
        abi::kind::RETRANSMIT => Kind::Retransmit(ending::retransmit(&mut rest)?),
        abi::kind::RESET => Kind::Reset(ending::reset(&mut rest)?),
        abi::kind::REQUEST => Kind::Request(half_open::request(&mut rest)?),
        abi::kind::OVERFLOW => Kind::Overflow(half_open::overflow(&mut rest)?),
        abi::kind::SOCKET => Kind::SnapshotEntry(snapshot::snapshot_entry(&mut rest)?),
        abi::kind::TIMEWAIT => Kind::Timewait(timewait::timewait(&mut rest)?),
        abi::kind::PROCESS => Kind::Process(process::process(&mut rest)?),
        abi::kind::SEGMENT => Kind::Segment(segment::segment(&mut rest)?),
        abi::kind::SCHED => Kind::Sched(sched::sched(&mut rest)?),
        other => return Err(Undecodable::Kind(other)),
    };
    Ok(Event {
        mono_ns: header.mono_ns,
        cpu: header.cpu,
        lost: header.lost,
        kind,
    })
}

/// The few fields of a record that the capturing side reads without decoding the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peek {
    /// A socket enters another state.
    State {
        mono_ns: u64,
        netns: u32,
        /// 0 when unknown.
        cgroup: u64,
        /// States as the kernel's numbers (include/net/tcp_states.h).
        old: u8,
        new: u8,
    },
    /// A socket of a snapshot.
    Socket { netns: u32, cgroup: u64, state: u8 },
    /// A process exited or has a new name.
    Process,
    /// A scheduling event of an acceptor.
    Sched {
        mono_ns: u64,
        tid: u32,
        pid: u32,
        /// `abi::sched_step`
        step: u8,
    },
}

impl Peek {
    /// Returns the cgroup of a socket; 0 when unknown.
    pub fn cgroup(self) -> u64 {
        match self {
            Peek::State { cgroup, .. } | Peek::Socket { cgroup, .. } => cgroup,
            Peek::Process | Peek::Sched { .. } => 0,
        }
    }
}

/// Returns the kernel side's count of lost records when this record was written, modulo 2^32.
pub fn lost(record: &[u8]) -> Option<u32> {
    let (header, _) = abi::Header::read_from_prefix(record).ok()?;
    Some(header.lost)
}

/// Reads a few fields of a record without decoding the record. Returns `None` for the other kinds
/// of records and for a cut record.
#[inline]
pub fn peek(record: &[u8]) -> Option<Peek> {
    let (header, rest) = abi::Header::read_from_prefix(record).ok()?;
    match header.kind {
        abi::kind::SET_STATE => {
            let (it, _) = abi::SetState::read_from_prefix(rest).ok()?;
            Some(Peek::State {
                mono_ns: header.mono_ns,
                netns: it.netns,
                cgroup: it.cgroup,
                old: it.oldstate,
                new: it.newstate,
            })
        }
        abi::kind::SOCKET => {
            let (it, _) = abi::Socket::read_from_prefix(rest).ok()?;
            Some(Peek::Socket {
                netns: it.netns,
                cgroup: it.cgroup,
                state: it.state,
            })
        }
        abi::kind::PROCESS => Some(Peek::Process),
        abi::kind::SCHED => {
            let (it, _) = abi::Sched::read_from_prefix(rest).ok()?;
            Some(Peek::Sched {
                mono_ns: header.mono_ns,
                tid: it.tid,
                pid: it.pid,
                step: it.step,
            })
        }
        _ => None,
    }
}

/// A process in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The process (the kernel's tgid) used a socket.
    Running(u32),
    /// The process has exited.
    Exited(u32),
}

/// Reads the process of a record that may name the owner of a socket, without decoding the record.
#[inline]
pub fn peek_process(record: &[u8]) -> Option<Seen> {
    let (header, rest) = abi::Header::read_from_prefix(record).ok()?;
    let addrs = |sections: u8| match sections & abi::section::V4 {
        0 => size_of::<abi::Addrs6>(),
        _ => size_of::<abi::Addrs4>(),
    };
    let task = match header.kind {
        abi::kind::SET_STATE => {
            let (it, rest) = abi::SetState::read_from_prefix(rest).ok()?;
            let task = rest.get(addrs(it.sections)..)?;
            (it.sections & abi::section::TASK != 0).then_some(task)?
        }
        abi::kind::ACCEPT => {
            let (it, rest) = abi::Accept::read_from_prefix(rest).ok()?;
            rest.get(addrs(it.sections) + size_of::<abi::ListenerAddr>()..)?
        }
        abi::kind::PROCESS => {
            let (it, _) = abi::Process::read_from_prefix(rest).ok()?;
            let has_exited = it.step == abi::process_step::EXITED;
            return has_exited.then_some(Seen::Exited(it.pid));
        }
        _ => return None,
    };
    let (pid, _) = u32::read_from_prefix(task).ok()?;
    Some(Seen::Running(pid))
}

/// Reads the stacks of a record of a scheduling event, without decoding the record.
pub fn peek_stack(record: &[u8]) -> Option<abi::Stack> {
    let (header, rest) = abi::Header::read_from_prefix(record).ok()?;
    if header.kind != abi::kind::SCHED {
        return None;
    }
    let (payload, rest) = abi::Sched::read_from_prefix(rest).ok()?;
    let has = |section| payload.sections & section != 0;
    let skipped = match has(abi::sched_section::TASK) {
        true => size_of::<abi::Task>(),
        false => 0,
    };
    let (stack, _) = abi::Stack::read_from_prefix(rest.get(skipped..)?).ok()?;
    has(abi::sched_section::STACK).then_some(stack)
}

/// The bytes of a record that are not decoded yet.
struct Rest<'a> {
    bytes: &'a [u8],
    len: usize,
}

impl Rest<'_> {
    #[inline(always)]
    fn take<T: FromBytes + KnownLayout + Immutable>(&mut self) -> Result<T, Undecodable> {
        let cut = self.bytes.split_at_checked(size_of::<T>());
        let (part, rest) = cut.ok_or(Undecodable::Short(self.len))?;
        self.bytes = rest;
        T::read_from_bytes(part).map_err(|_| Undecodable::Short(self.len))
    }
}

#[inline(always)]
fn set_state(rest: &mut Rest) -> Result<SetState, Undecodable> {
    let payload: abi::SetState = rest.take()?;
    let (laddr, raddr, scope) = if payload.sections & abi::section::V4 != 0 {
        let (laddr, raddr) = addrs(payload.sections, rest)?;
        (laddr, raddr, None)
    } else {
        scoped(rest.take()?)
    };
    let task = if payload.sections & abi::section::TASK != 0 {
        Some(task(rest)?)
    } else {
        None
    };
    let stats = match payload.sections & abi::section::STATS {
        0 => None,
        _ => Some(rest.take()?),
    };
    let listen = match payload.sections & abi::section::LISTEN {
        0 => None,
        _ => Some(listen(rest.take()?)),
    };
    let oldstate = state("oldstate", payload.oldstate)?;
    let newstate = state("newstate", payload.newstate)?;
    let is_birth = (oldstate, newstate) == (State::Listen, State::SynRecv);
    Ok(SetState {
        sk: Sk(payload.sk),
        cookie: nonzero(payload.cookie).filter(|_| !is_birth),
        cgroup: nonzero(payload.cgroup),
        netns: payload.netns,
        tuple: tuple(laddr, payload.lport, raddr, payload.rport),
        scope,
        oldstate,
        newstate,
        context: context(
            payload.flags & abi::state_flag::OWNED != 0,
            payload.backlog_max > 0,
            payload.err != 0,
            oldstate,
            newstate,
        ),
        task,
        held: payload.flags & abi::state_flag::HELD != 0,
        fin_received: payload.flags & abi::state_flag::FIN_RECEIVED != 0,
        orphaned: payload.flags & abi::state_flag::ORPHANED != 0,
        // The unit of srtt_us is an eighth of a microsecond (`tcp_sock.srtt_us`).
        srtt_ns: nonzero(payload.srtt_us).map(|eighths| u64::from(eighths) * 125),
        uid: payload.uid,
        backlog_len: payload.backlog_len,
        backlog_max: payload.backlog_max,
        err: nonzero(payload.err),
        stats: stats.map(ending::stats),
        listen,
        no_fast_open: payload.flags & abi::state_flag::NO_FAST_OPEN != 0,
        repair: payload.flags & abi::state_flag::REPAIR != 0,
        fastopen_connect: payload.flags & abi::state_flag::FASTOPEN_CONNECT != 0,
        fin_uncounted: payload.flags & abi::state_flag::FIN_UNCOUNTED != 0,
        clone_of: nonzero(payload.cookie).filter(|_| is_birth).map(Sk),
    })
}

fn listen(listen: abi::Listen) -> Listen {
    Listen {
        backlog: (listen.is_known != 0).then_some(listen.backlog),
        somaxconn: listen.somaxconn,
    }
}

/// Returns the context of a change of state, from `sk_lock.owned`.
///
/// A softirq does not touch a socket that a process has locked: `tcp_v4_rcv` checks
/// `sock_owned_by_user` and adds the segment to the socket's backlog. Therefore the process changed the
/// state of a locked socket. The state of an unlocked socket was changed in a softirq, with two
/// exceptions where a process holds only the spinlock (Linux 6.12):
///
/// - The end of `__tcp_close` can change FIN_WAIT2 to CLOSE (net/ipv4/tcp.c).
/// - `inet_csk_listen_stop` closes the sockets in the accept queue, which are `cloned`
///   (net/ipv4/inet_connection_sock.c).
///
/// A Fast Open child socket in SYN_RECV with an error was closed by that error, in a softirq.
fn context(
    owned: bool,
    cloned: bool,
    failed: bool,
    oldstate: State,
    newstate: State,
) -> Option<Context> {
    use State::{Close, CloseWait, Established, FinWait2, SynRecv};
    match (oldstate, newstate) {
        _ if owned => Some(Context::Process),
        (FinWait2, Close) => None,
        (SynRecv, Close) if failed => Some(Context::Softirq),
        (Established | SynRecv | CloseWait, Close) if cloned => None,
        _ => Some(Context::Softirq),
    }
}

#[inline(always)]
fn accept(rest: &mut Rest) -> Result<Accept, Undecodable> {
    let payload: abi::Accept = rest.take()?;
    let (laddr, raddr) = addrs(payload.sections, rest)?;
    let listener: abi::ListenerAddr = rest.take()?;
    let task = task(rest)?;
    let outcome = if payload.sk == 0 {
        Outcome::Failed(payload.result.unsigned_abs())
    } else {
        Outcome::Accepted {
            sk: Sk(payload.sk),
            cookie: nonzero(payload.cookie),
            tuple: tuple(laddr, payload.lport, raddr, payload.rport),
            state: State::from_kernel(payload.state),
            fastopen: payload.flags & abi::accept_flag::FASTOPEN != 0,
            wrapped: payload.flags & abi::accept_flag::WRAPPED != 0,
        }
    };
    let called = if payload.called_ns != 0 {
        Called::At(payload.called_ns)
    } else if payload.flags & abi::accept_flag::BLOCKED_AT_ATTACH != 0 {
        Called::BeforeTrace
    } else {
        Called::Unknown
    };
    Ok(Accept {
        outcome,
        listener: nonzero(payload.listener).map(Sk),
        listener_addr: ip(listener.0),
        listener_port: nonzero(payload.listener_port),
        netns: payload.netns,
        called,
        witness: witness(payload.witness)?,
        task,
        backlog_len: payload.backlog_len,
        backlog_max: payload.backlog_max,
    })
}

/// Returns the local and the remote address.
#[inline(always)]
fn addrs(sections: u8, rest: &mut Rest) -> Result<(IpAddr, IpAddr), Undecodable> {
    if sections & abi::section::V4 != 0 {
        let addrs: abi::Addrs4 = rest.take()?;
        Ok((
            IpAddr::V4(Ipv4Addr::from(addrs.laddr)),
            IpAddr::V4(Ipv4Addr::from(addrs.raddr)),
        ))
    } else {
        let addrs: abi::Addrs6 = rest.take()?;
        Ok((ip(addrs.laddr), ip(addrs.raddr)))
    }
}

/// Returns both addresses, and the index of the device that link-local addresses belong to.
fn scoped(addrs: abi::Addrs6) -> (IpAddr, IpAddr, Option<u32>) {
    let (laddr, own) = without_device(addrs.laddr);
    let (raddr, peers) = without_device(addrs.raddr);
    (ip(laddr), ip(raddr), own.or(peers))
}

/// Takes the device index out of a link-local address, see [`abi::link_local`].
fn without_device(mut bytes: [u8; 16]) -> ([u8; 16], Option<u32>) {
    let (upper, _) = bytes.split_at_mut(8);
    let number = u64::from_be_bytes(upper.try_into().expect("half of sixteen bytes"));
    let device = number as u32;
    if number & !u64::from(u32::MAX) != abi::link_local::MARKED || device == 0 {
        return (bytes, None);
    }
    upper.copy_from_slice(&abi::link_local::NONE.to_be_bytes());
    (bytes, Some(device))
}

fn tuple(laddr: IpAddr, lport: u16, raddr: IpAddr, rport: u16) -> Tuple {
    Tuple {
        laddr,
        lport: nonzero(lport),
        raddr: (!raddr.is_unspecified()).then_some(raddr),
        rport: nonzero(rport),
    }
}

/// Takes the members of [`abi::Task`] one by one. A copy of the whole struct would be read back in
/// other widths than it was stored in. That defeats the CPU's store forwarding.
#[inline(always)]
fn task(rest: &mut Rest) -> Result<Task, Undecodable> {
    const { assert!(size_of::<abi::Task>() == 2 * size_of::<u32>() + 2 * size_of::<[u8; 16]>()) };
    Ok(Task {
        pid: rest.take()?,
        tid: rest.take()?,
        comm: Comm::new(rest.take()?),
        process: Comm::new(rest.take()?),
        place: Place::default(),
    })
}

fn state(field: &'static str, value: u8) -> Result<State, Undecodable> {
    State::from_kernel(value).ok_or(Undecodable::Value { field, value })
}

fn witness(value: u8) -> Result<Witness, Undecodable> {
    match value {
        abi::witness::SYS_EXIT => Ok(Witness::SysExit),
        abi::witness::FEXIT => Ok(Witness::Fexit),
        abi::witness::KRETPROBE => Ok(Witness::Kretprobe),
        abi::witness::SECURITY_SOCK_GRAFT => Ok(Witness::SecuritySockGraft),
        value => Err(Undecodable::Value {
            field: "witness",
            value,
        }),
    }
}

/// Converts an IPv4-mapped address to IPv4.
fn ip(bytes: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(bytes).to_canonical()
}

/// Converts the ABI's 0, which means "unknown", to `None`.
fn nonzero<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

#[cfg(test)]
mod tests;
