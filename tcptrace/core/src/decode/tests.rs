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
    let addrs = abi::Addrs4 {
        laddr: [127, 0, 0, 1],
        raddr: [127, 0, 0, 2],
    };
    let listener = abi::ListenerAddr([0; 16]);
    let task = abi::Task {
        pid: 10,
        tid: 11,
        comm: *b"server\0garbage\0\0",
        process: *b"daemon\0\0\0\0\0\0\0\0\0\0",
    };
    record(&[
        header.as_bytes(),
        accept.as_bytes(),
        addrs.as_bytes(),
        listener.as_bytes(),
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
    sections: abi::section::V4,
    listener_port: 15001,
    padding: [0; 6],
};

#[test]
fn softirq_transition_has_no_task() {
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
fn locked_socket_was_changed_by_a_process() {
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
        process: *b"daemon\0\0\0\0\0\0\0\0\0\0",
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
    assert_eq!(change.task.unwrap().process, Comm::from("daemon"));
    assert_eq!((change.tuple.raddr, change.tuple.rport), (None, None));
    assert_eq!(change.tuple.family(), 6);
}

#[test]
fn listen_backlog_is_decoded_or_unknown() {
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
fn close_of_an_unlocked_socket_has_unknown_context() {
    let closing = |cloned, old| context(false, cloned, false, old, State::Close);
    for old in [State::FinWait2, State::Established, State::CloseWait] {
        assert_eq!(closing(true, old), None);
    }
    assert_eq!(closing(false, State::FinWait2), None);
    assert_eq!(closing(false, State::Established), Some(Context::Softirq));
    assert_eq!(closing(true, State::LastAck), Some(Context::Softirq));
    let failed = |old| context(false, true, true, old, State::Close);
    assert_eq!(failed(State::SynRecv), Some(Context::Softirq));
    assert_eq!(failed(State::Established), None);
}

#[test]
fn birth_record_has_the_listener_instead_of_the_cookie() {
    for (oldstate, newstate, expected) in [
        (State::Listen, State::SynRecv, (None, Some(Sk(7)))),
        (State::SynRecv, State::Established, (Some(7), None)),
    ] {
        let payload = abi::SetState {
            cookie: 7,
            oldstate: oldstate as u8,
            newstate: newstate as u8,
            ..SET_STATE
        };
        let addrs = abi::Addrs4 {
            laddr: [127, 0, 0, 1],
            raddr: [127, 0, 0, 2],
        };
        let bytes = record(&[HEADER.as_bytes(), payload.as_bytes(), addrs.as_bytes()]);
        let Kind::SetState(change) = decode(&bytes).unwrap().kind else {
            panic!();
        };
        assert_eq!((change.cookie, change.clone_of), expected);
    }
}

#[test]
fn accept_flag_marks_a_wrapped_socket() {
    for (flags, expected) in [(0, false), (abi::accept_flag::WRAPPED, true)] {
        let bytes = accept_record(abi::Accept { flags, ..ACCEPT });
        let Kind::Accept(accept) = decode(&bytes).unwrap().kind else {
            panic!();
        };
        assert_eq!(accept.listener_port, Some(15001));
        let Outcome::Accepted { wrapped, tuple, .. } = accept.outcome else {
            panic!();
        };
        assert_eq!((wrapped, tuple.lport), (expected, Some(7878)));
    }
}

#[test]
fn accept_record_has_call_child_and_task() {
    let Kind::Accept(accept) = decode(&accept_record(ACCEPT)).unwrap().kind else {
        panic!();
    };
    assert_eq!(accept.called, Called::At(900));
    assert_eq!(accept.listener, Some(Sk(2)));
    assert_eq!(accept.listener_addr, IpAddr::from([0u16; 8]));
    assert_eq!(accept.task.comm, Comm::from("server"));
    assert_eq!(accept.task.process, Comm::from("daemon"));
    let Outcome::Accepted { sk, tuple, .. } = accept.outcome else {
        panic!();
    };
    assert_eq!((sk, tuple.family()), (Sk(1), 4));
}

#[test]
fn accept_without_entry_time_is_unknown_or_before_the_trace() {
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
fn failed_accept_has_the_errno() {
    let bytes = accept_record(abi::Accept {
        sk: 0,
        result: -11,
        ..ACCEPT
    });
    let Kind::Accept(accept) = decode(&bytes).unwrap().kind else {
        panic!();
    };
    assert_eq!(accept.outcome, Outcome::Failed(11));
}

#[test]
fn cut_record_is_short() {
    for whole in [v4_record(), accept_record(ACCEPT)] {
        for len in 0..whole.len() {
            assert_eq!(decode(&whole[..len]), Err(Undecodable::Short(len)));
        }
    }
}

#[test]
fn unknown_value_is_an_error_with_its_field() {
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
fn garbage_is_decoded_without_panic() {
    // A small generator (xorshift64) gives the same bytes in every run.
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

#[test]
fn device_index_is_split_from_a_link_local_address() {
    let of = |address: &str, device: Option<u32>| {
        let mut bytes = address.parse::<std::net::Ipv6Addr>().unwrap().octets();
        if let Some(device) = device {
            let upper = abi::link_local::MARKED | u64::from(device);
            bytes[..8].copy_from_slice(&upper.to_be_bytes());
        }
        bytes
    };
    let decoded = |laddr, raddr| scoped(abi::Addrs6 { laddr, raddr });
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let (own, peer) = (address("fe80::1"), address("2001:db8::1"));
    assert_eq!(decoded(of("fe80::1", Some(7)), of("::", None)).2, Some(7));
    assert_eq!(
        decoded(of("fe80::1", Some(u32::MAX)), of("fe80::1", Some(u32::MAX))),
        (own, own, Some(u32::MAX))
    );
    assert_eq!(
        decoded(of("2001:db8::1", None), of("fe80::1", Some(2))),
        (peer, own, Some(2))
    );
    for plain in ["fe80::1", "::1", "2001:db8::1", "::ffff:127.0.0.1"] {
        let (laddr, _, device) = decoded(of(plain, None), of(plain, None));
        assert_eq!((laddr, device), (address(plain).to_canonical(), None));
    }
}
