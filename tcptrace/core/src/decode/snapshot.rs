//! Decoding of [`abi::kind::SOCKET`], a socket of a snapshot.

use tcptrace_ebpf::abi;

use super::{Rest, Undecodable, nonzero, scoped, state, tuple};
use crate::event::{Sk, SnapshotEntry, State};

pub(super) fn snapshot_entry(rest: &mut Rest) -> Result<SnapshotEntry, Undecodable> {
    let socket: abi::Socket = rest.take()?;
    let addrs: abi::Addrs6 = rest.take()?;
    let (laddr, raddr, scope) = scoped(addrs);
    let own_state = state("state", socket.state)?;
    let is_bucket = own_state == State::TimeWait;
    Ok(SnapshotEntry {
        sk: Sk(socket.sk),
        cookie: nonzero(socket.cookie),
        cgroup: nonzero(socket.cgroup),
        netns: socket.netns,
        tuple: tuple(laddr, socket.lport, raddr, socket.rport),
        scope,
        state: match is_bucket {
            true => state("substate", socket.substate)?,
            false => own_state,
        },
        is_bucket,
        held: socket.flags & abi::state_flag::HELD != 0,
        uid: (!is_bucket).then_some(socket.uid),
        inode: nonzero(socket.inode),
        backlog_len: socket.backlog_len,
        backlog_max: socket.backlog_max,
    })
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;
    use crate::decode::decode;
    use crate::event::Kind;

    const RECORD: abi::SocketRecord = abi::SocketRecord {
        header: abi::Header {
            mono_ns: 1,
            lost: 0,
            cpu: 0,
            kind: abi::kind::SOCKET,
            version: abi::VERSION,
        },
        socket: abi::Socket {
            sk: 0x1000,
            cookie: 0,
            cgroup: 25,
            inode: 4711,
            netns: 5,
            uid: 0,
            backlog_len: 1,
            backlog_max: 128,
            lport: 7878,
            rport: 0,
            state: 10,
            substate: 0,
            flags: abi::state_flag::HELD,
            reserved: 0,
        },
        addrs: abi::Addrs6 {
            laddr: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1],
            raddr: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0],
        },
    };

    fn decoded(record: &abi::SocketRecord) -> SnapshotEntry {
        let Kind::SnapshotEntry(entry) = decode(record.as_bytes()).unwrap().kind else {
            panic!();
        };
        entry
    }

    #[test]
    fn listener_in_a_snapshot_has_no_remote_address() {
        let entry = decoded(&RECORD);
        assert_eq!((entry.state, entry.is_bucket), (State::Listen, false));
        assert_eq!((entry.tuple.family(), entry.tuple.raddr), (4, None));
        assert_eq!((entry.inode, entry.held), (Some(4711), true));
        assert_eq!(entry.cgroup, Some(25));
    }

    #[test]
    fn bucket_in_a_snapshot_has_its_substate() {
        let mut record = RECORD;
        record.socket.state = 6;
        record.socket.substate = 5;
        let entry = decoded(&record);
        assert_eq!((entry.state, entry.is_bucket), (State::FinWait2, true));
    }

    #[test]
    fn cut_socket_is_short() {
        let whole = RECORD.as_bytes();
        for len in 0..whole.len() {
            assert_eq!(decode(&whole[..len]), Err(Undecodable::Short(len)));
        }
    }
}
