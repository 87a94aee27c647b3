//! Bytes of a record to an [`Event`]. Any bytes are answered; none panics.

mod ending;
mod found;
mod half_open;
mod life;
mod segment;
pub mod tally;
mod timewait;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tcptrace_ebpf::abi;
use thiserror::Error;
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::event::{
    Accept, Called, Comm, Context, Event, Kind, Listen, Outcome, SetState, Sk, State, Task, Tuple,
    Witness,
};

/// Why a record could not be decoded. The loader counts them; one means that it and the eBPF
/// object do not belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Undecodable {
    #[error("a record of {0} bytes is too short for what it announces")]
    Short(usize),
    #[error("a record of ABI version {0}, not {expected}", expected = abi::VERSION)]
    Version(u8),
    #[error("a record of unknown kind {0}")]
    Kind(u8),
    #[error("the value {value} of {field} is not known")]
    Value { field: &'static str, value: u8 },
}

/// Decodes one record of the ring buffer.
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
        abi::kind::SOCKET => Kind::Found(found::found(&mut rest)?),
        abi::kind::TIMEWAIT => Kind::Timewait(timewait::timewait(&mut rest)?),
        abi::kind::LIFE => Kind::Life(life::life(&header, &mut rest)?),
        abi::kind::SEGMENT => Kind::Segment(segment::segment(&mut rest)?),
        other => return Err(Undecodable::Kind(other)),
    };
    Ok(Event {
        mono_ns: header.mono_ns,
        cpu: header.cpu,
        lost: header.lost,
        kind,
    })
}

/// What is left of a record.
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
    let addrs = addrs(payload.sections, rest)?;
    let task = if payload.sections & abi::section::TASK != 0 {
        Some(task(rest.take()?))
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
    set_state_of(&payload, addrs, task, stats, listen)
}

#[inline(always)]
fn set_state_of(
    payload: &abi::SetState,
    (laddr, raddr): (IpAddr, IpAddr),
    task: Option<Task>,
    stats: Option<abi::Stats>,
    listen: Option<Listen>,
) -> Result<SetState, Undecodable> {
    let oldstate = state("oldstate", payload.oldstate)?;
    let newstate = state("newstate", payload.newstate)?;
    Ok(SetState {
        sk: Sk(payload.sk),
        cookie: nonzero(payload.cookie),
        cgroup: nonzero(payload.cgroup),
        netns: payload.netns,
        tuple: tuple(laddr, payload.lport, raddr, payload.rport),
        oldstate,
        newstate,
        context: context(
            payload.flags & abi::state_flag::OWNED != 0,
            payload.backlog_max > 0,
            oldstate,
            newstate,
        ),
        task,
        held: payload.flags & abi::state_flag::HELD != 0,
        fin_received: payload.flags & abi::state_flag::FIN_RECEIVED != 0,
        orphaned: payload.flags & abi::state_flag::ORPHANED != 0,
        // In eighths of a microsecond.
        srtt_ns: nonzero(payload.srtt_us).map(|eighths| u64::from(eighths) * 125),
        uid: payload.uid,
        backlog_len: payload.backlog_len,
        backlog_max: payload.backlog_max,
        err: nonzero(payload.err),
        stats: stats.map(ending::stats),
        listen,
        no_fast_open: payload.flags & abi::state_flag::NO_FAST_OPEN != 0,
    })
}

fn listen(listen: abi::Listen) -> Listen {
    Listen {
        backlog: (listen.is_known != 0).then_some(listen.backlog),
        somaxconn: listen.somaxconn,
    }
}

/// Process or softirq, from `sk_lock.owned`.
///
/// A softirq leaves an owned socket alone (`tcp_v4_rcv`: sock_owned_by_user, then the backlog), so
/// an owned one was changed by the process that holds it. One that nobody owns was changed in a
/// softirq, but for two cases where a process works under the bare spinlock: the tail of
/// `__tcp_close`, which can take FIN_WAIT2 to CLOSE, and `inet_csk_listen_stop`, which closes what
/// is left in the accept queue, so `cloned` sockets only (net/ipv4/tcp.c and
/// net/ipv4/inet_connection_sock.c, Linux 6.12).
fn context(owned: bool, cloned: bool, oldstate: State, newstate: State) -> Option<Context> {
    use State::{Close, CloseWait, Established, FinWait2, SynRecv};
    match (oldstate, newstate) {
        _ if owned => Some(Context::Process),
        (FinWait2, Close) => None,
        (Established | SynRecv | CloseWait, Close) if cloned => None,
        _ => Some(Context::Softirq),
    }
}

#[inline(always)]
fn accept(rest: &mut Rest) -> Result<Accept, Undecodable> {
    let payload: abi::Accept = rest.take()?;
    let ends: abi::AcceptEnds = rest.take()?;
    let task = task(rest.take()?);
    accept_of(&payload, &ends, task)
}

#[inline(always)]
fn accept_of(
    payload: &abi::Accept,
    ends: &abi::AcceptEnds,
    task: Task,
) -> Result<Accept, Undecodable> {
    let outcome = if payload.sk == 0 {
        Outcome::Failed(payload.result.unsigned_abs())
    } else {
        Outcome::Accepted {
            sk: Sk(payload.sk),
            cookie: nonzero(payload.cookie),
            tuple: tuple(
                ip(ends.child.laddr),
                payload.lport,
                ip(ends.child.raddr),
                payload.rport,
            ),
            state: State::from_kernel(payload.state),
            fastopen: payload.flags & abi::accept_flag::FASTOPEN != 0,
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
        listener_addr: ip(ends.listener),
        listener_port: nonzero(payload.lport),
        netns: payload.netns,
        called,
        witness: witness(payload.witness)?,
        task,
        backlog_len: payload.backlog_len,
        backlog_max: payload.backlog_max,
    })
}

/// The own address and the peer's.
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
        Ok(addrs6(&addrs))
    }
}

fn addrs6(addrs: &abi::Addrs6) -> (IpAddr, IpAddr) {
    (ip(addrs.laddr), ip(addrs.raddr))
}

fn tuple(laddr: IpAddr, lport: u16, raddr: IpAddr, rport: u16) -> Tuple {
    Tuple {
        laddr,
        lport: nonzero(lport),
        raddr: (!raddr.is_unspecified()).then_some(raddr),
        rport: nonzero(rport),
    }
}

#[inline(always)]
fn task(task: abi::Task) -> Task {
    Task {
        pid: task.pid,
        tid: task.tid,
        comm: Comm::new(task.comm),
    }
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

/// IPv4-mapped addresses become IPv4 ones.
fn ip(bytes: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(bytes).to_canonical()
}

/// The ABI's 0 is "not known".
fn nonzero<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    const HEADER: abi::Header = abi::Header {
        mono_ns: 1_000,
        lost: 7,
        cpu: 1,
        kind: abi::kind::SET_STATE,
        version: abi::VERSION,
    };

    const SET_STATE: abi::SetState = abi::SetState {
        sk: 0xffff_8880_0000_1000,
        cookie: 0,
        cgroup: 25,
        netns: 4_026_531_833,
        backlog_len: 2,
        backlog_max: 128,
        err: 0,
        srtt_us: 8 * 27,
        uid: 1000,
        lport: 7878,
        rport: 39709,
        oldstate: 3,
        newstate: 1,
        flags: 0,
        sections: abi::section::V4,
    };

    fn record(parts: &[&[u8]]) -> Vec<u8> {
        parts.concat()
    }

    fn v4_record() -> Vec<u8> {
        let addrs = abi::Addrs4 {
            laddr: [127, 0, 0, 1],
            raddr: [127, 0, 0, 2],
        };
        record(&[HEADER.as_bytes(), SET_STATE.as_bytes(), addrs.as_bytes()])
    }

    fn accept_record(accept: abi::Accept) -> Vec<u8> {
        let header = abi::Header {
            kind: abi::kind::ACCEPT,
            ..HEADER
        };
        let mapped = |last| [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, last];
        let ends = abi::AcceptEnds {
            child: abi::Addrs6 {
                laddr: mapped(1),
                raddr: mapped(2),
            },
            listener: [0; 16],
        };
        let task = abi::Task {
            pid: 10,
            tid: 11,
            comm: *b"server\0garbage\0\0",
        };
        record(&[
            header.as_bytes(),
            accept.as_bytes(),
            ends.as_bytes(),
            task.as_bytes(),
        ])
    }

    const ACCEPT: abi::Accept = abi::Accept {
        sk: 1,
        listener: 2,
        cookie: 3,
        called_ns: 900,
        netns: 5,
        backlog_len: 0,
        backlog_max: 128,
        result: 4,
        lport: 7878,
        rport: 39709,
        state: 1,
        witness: abi::witness::SYS_EXIT,
        flags: 0,
        reserved: 0,
    };

    #[test]
    fn a_state_change_in_softirq_has_no_task() {
        let event = decode(&v4_record()).unwrap();
        assert_eq!((event.mono_ns, event.cpu, event.lost), (1_000, 1, 7));
        let Kind::SetState(change) = event.kind else {
            panic!("{event:?}");
        };
        assert_eq!(
            (change.oldstate, change.newstate),
            (State::SynRecv, State::Established)
        );
        assert_eq!(change.tuple.laddr, IpAddr::from([127, 0, 0, 1]));
        assert_eq!(change.tuple.rport, Some(39709));
        assert_eq!(change.context, Some(Context::Softirq));
        assert_eq!((change.task, change.cookie, change.err), (None, None, None));
        assert_eq!((change.uid, change.cgroup), (1000, Some(25)));
    }

    #[test]
    fn an_owned_socket_was_changed_by_its_process() {
        let payload = abi::SetState {
            flags: abi::state_flag::OWNED | abi::state_flag::HELD,
            rport: 0,
            oldstate: 7,
            newstate: 10,
            sections: abi::section::TASK,
            ..SET_STATE
        };
        let addrs = abi::Addrs6 {
            laddr: [0; 16],
            raddr: [0; 16],
        };
        let task = abi::Task {
            pid: 10,
            tid: 11,
            comm: *b"server\0\0\0\0\0\0\0\0\0\0",
        };
        let bytes = record(&[
            HEADER.as_bytes(),
            payload.as_bytes(),
            addrs.as_bytes(),
            task.as_bytes(),
        ]);
        let Kind::SetState(change) = decode(&bytes).unwrap().kind else {
            panic!();
        };
        assert_eq!(change.context, Some(Context::Process));
        assert!(change.held);
        assert_eq!(change.task.unwrap().comm, Comm::from("server"));
        assert_eq!((change.tuple.raddr, change.tuple.rport), (None, None));
        assert_eq!(change.tuple.family(), 6);
    }

    #[test]
    fn a_listener_was_asked_for_a_limit_or_that_is_not_known() {
        let payload = abi::SetState {
            rport: 0,
            oldstate: 7,
            newstate: 10,
            sections: abi::section::V4 | abi::section::LISTEN,
            ..SET_STATE
        };
        let addrs = abi::Addrs4 {
            laddr: [127, 0, 0, 1],
            raddr: [0; 4],
        };
        for (is_known, backlog) in [(1, Some(-1)), (0, None)] {
            let asked = abi::Listen {
                backlog: -1,
                is_known,
                somaxconn: 4096,
                reserved: 0,
            };
            let bytes = record(&[
                HEADER.as_bytes(),
                payload.as_bytes(),
                addrs.as_bytes(),
                asked.as_bytes(),
            ]);
            let Kind::SetState(change) = decode(&bytes).unwrap().kind else {
                panic!();
            };
            let somaxconn = 4096;
            assert_eq!(change.listen, Some(Listen { backlog, somaxconn }));
        }
    }

    #[test]
    fn closing_without_an_owner_leaves_the_context_open() {
        let closing = |cloned, old| context(false, cloned, old, State::Close);
        for old in [State::FinWait2, State::Established, State::CloseWait] {
            assert_eq!(closing(true, old), None);
        }
        assert_eq!(closing(false, State::FinWait2), None);
        assert_eq!(closing(false, State::Established), Some(Context::Softirq));
        assert_eq!(closing(true, State::LastAck), Some(Context::Softirq));
    }

    #[test]
    fn an_accept_has_its_call_its_child_and_its_task() {
        let Kind::Accept(accept) = decode(&accept_record(ACCEPT)).unwrap().kind else {
            panic!();
        };
        assert_eq!(accept.called, Called::At(900));
        assert_eq!(accept.listener, Some(Sk(2)));
        assert_eq!(accept.listener_addr, IpAddr::from([0u16; 8]));
        assert_eq!(accept.task.comm, Comm::from("server"));
        let Outcome::Accepted { sk, tuple, .. } = accept.outcome else {
            panic!();
        };
        assert_eq!((sk, tuple.family()), (Sk(1), 4));
    }

    #[test]
    fn a_call_without_an_entry_is_unknown_unless_it_began_before() {
        for (flags, called) in [
            (0, Called::Unknown),
            (abi::accept_flag::BLOCKED_AT_ATTACH, Called::BeforeTrace),
        ] {
            let bytes = accept_record(abi::Accept {
                called_ns: 0,
                flags,
                ..ACCEPT
            });
            let Kind::Accept(accept) = decode(&bytes).unwrap().kind else {
                panic!();
            };
            assert_eq!(accept.called, called);
        }
    }

    #[test]
    fn a_failed_accept_has_the_errno() {
        let bytes = accept_record(abi::Accept {
            sk: 0,
            result: -libc::EAGAIN,
            ..ACCEPT
        });
        let Kind::Accept(accept) = decode(&bytes).unwrap().kind else {
            panic!();
        };
        assert_eq!(accept.outcome, Outcome::Failed(libc::EAGAIN as u32));
    }

    #[test]
    fn every_cut_of_a_record_is_short() {
        for whole in [v4_record(), accept_record(ACCEPT)] {
            for len in 0..whole.len() {
                assert_eq!(decode(&whole[..len]), Err(Undecodable::Short(len)));
            }
        }
    }

    #[test]
    fn what_is_not_known_is_named() {
        let with = |at: usize, byte: u8| {
            let mut bytes = v4_record();
            bytes[at] = byte;
            decode(&bytes)
        };
        assert_eq!(with(15, 9), Err(Undecodable::Version(9)));
        assert_eq!(with(14, 99), Err(Undecodable::Kind(99)));
        assert_eq!(
            with(16 + 52, 0),
            Err(Undecodable::Value {
                field: "oldstate",
                value: 0
            })
        );
    }

    #[test]
    fn garbage_never_panics() {
        // A small generator (xorshift64) keeps the bytes the same in every run.
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for _ in 0..100_000 {
            let len = (next() % 256) as usize;
            let mut bytes: Vec<u8> = (0..len).map(|_| next() as u8).collect();
            if len >= 16 && next() % 2 == 0 {
                bytes[14] = 1 + (next() % 12) as u8;
                bytes[15] = abi::VERSION;
            }
            let _ = decode(&bytes);
        }
    }
}
