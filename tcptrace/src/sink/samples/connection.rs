//! Samples of connection 3, the late accept, with its listener and its other end.

use std::net::{IpAddr, Ipv6Addr};

use super::{LOOPBACK, MS, NOW};
use crate::event::{
    Comm, Context, Direction, ListenQueue, OverflowSegment, Retransmitted, State, TcpFlags, Witness,
};
use crate::fields::*;

/// Connection 3 before accept().
pub fn server() -> Subject {
    Subject {
        conn: Some(3),
        side: Some(Side::Server),
        family: 4,
        laddr: LOOPBACK,
        lport: Some(7878),
        raddr: Some(LOOPBACK),
        rport: Some(39709),
        scope_id: None,
        netns: 4_026_531_840,
        cookie: Some(17),
        uid: Some(1000),
        cgroup: Some(25),
        container: None,
        container_name: None,
        container_image: None,
        k8s_pod_name: None,
        k8s_namespace_name: None,
        pid: Some(4711),
        nspid: None,
        tid: Some(4711),
        comm: Some(Comm::from("server")),
        process: Some(Comm::from("server")),
        pid_source: Some(PidSource::Presumed),
        place: 0,
    }
}

/// Returns the subject without its process.
pub fn without_process(subject: Subject) -> Subject {
    Subject {
        pid: None,
        tid: None,
        comm: None,
        process: None,
        pid_source: None,
        ..subject
    }
}

pub fn listener() -> Subject {
    Subject {
        conn: Some(1),
        side: Some(Side::Listener),
        raddr: None,
        rport: None,
        pid_source: Some(PidSource::Listen),
        ..server()
    }
}

/// A listener on [::] without a known process.
pub fn listen() -> Transition {
    Transition {
        subject: Subject {
            family: 6,
            laddr: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            cookie: None,
            ..without_process(listener())
        },
        oldstate: State::Close,
        newstate: State::Listen,
        in_state_ns: None,
        context: None,
        backlog: Backlog {
            backlog_max: Some(128),
            backlog_asked: Some(128),
            somaxconn: Some(4096),
            backlog_clipped: Some(false),
        },
        ..transition()
    }
}

pub fn transition() -> Transition {
    Transition {
        mono_ns: NOW,
        subject: server(),
        oldstate: State::SynRecv,
        newstate: State::Established,
        in_state_ns: Some(23_100),
        context: Some(Context::Softirq),
        cpu: 1,
        synthetic: false,
        source: Source::Tracepoint,
        cause: Some(Cause::AckReceived),
        function: Some("tcp_rcv_state_process".into()),
        rfc9293: Some("3.10.7.4".into()),
        bucket: None,
        error: None,
        listener: Some(1),
        backlog: Backlog::default(),
    }
}

pub fn accept() -> Accept {
    Accept {
        mono_ns: NOW,
        subject: Subject {
            pid_source: Some(PidSource::Accept),
            ..server()
        },
        listener: Some(1),
        established_mono_ns: Some(NOW - 5003 * MS),
        peer_conn: None,
        peer_syn_mono_ns: None,
        peer_established_mono_ns: None,
        called_mono_ns: Some(NOW - 5 * MS),
        blocked_ns: Some(5 * MS),
        accept_queue_ns: Some(5003 * MS),
        backlog_len: 2,
        backlog_max: 128,
        witness: Witness::SysExit,
        accept_error: None,
        verdict: None,
        reason: None,
        late: None,
    }
}

/// An accept line with a verdict.
pub fn accept_with_verdict() -> Accept {
    Accept {
        verdict: Some(Verdict::Queued),
        reason: Some(REASON.to_owned()),
        ..accept()
    }
}

/// An accept line whose wait is explained.
pub fn late_accept() -> Accept {
    Accept {
        late: Some(Box::new(late())),
        ..accept_with_verdict()
    }
}

/// A connection line whose wait is explained.
pub fn late_connection() -> Connection {
    Connection {
        late: Some(Box::new(late())),
        ..connection()
    }
}

/// Explains the wait of [`accept`].
pub fn late() -> Late {
    Late {
        acceptor_tid: Some(4711),
        acceptor_running_ns: 3 * MS,
        acceptor_runnable_ns: 100 * MS,
        acceptor_throttled_ns: 0,
        acceptor_blocked_ns: 4900 * MS,
        acceptor_unseen_ns: 0,
        acceptor_blocked_in: vec![BlockedIn {
            syscall: Some("fsync".into()),
            function: Some("ext4_sync_file".to_owned()),
            late_reason: LateReason::Blocked,
            ns: 4900 * MS,
            times: 2,
            stack: Some(1),
            woken_by: None,
        }],
        acceptor_running_in: vec![RunningIn {
            function: Some("handle_request".to_owned()),
            user_mode: true,
            samples: 1,
            stack: None,
        }],
        other_acceptors: vec![OtherAcceptor {
            pid: 4711,
            tid: 4713,
            comm: Comm::from("worker"),
            running_ns: 0,
            runnable_ns: 0,
            blocked_ns: 5003 * MS,
            unseen_ns: 0,
            mainly: "waiting for work".to_owned(),
        }],
        late_reason: LateReason::Blocked,
        late_because: "late because server[4711] was blocked 4.900 s in fsync() (ext4_sync_file ← \
                       save_state ← handle_request), 100.0 ms waiting for a CPU; the other acceptor, \
                       worker[4713], was waiting for work"
            .to_owned(),
        times: late_times(),
    }
}

/// The waits of one connection, by reason.
pub fn late_times() -> LateTimes {
    LateTimes {
        late_connections: 1,
        late_running_ns: 3 * MS,
        late_cpu_ns: 100 * MS,
        late_blocked_ns: 4900 * MS,
        ..LateTimes::default()
    }
}

pub fn failed_accept(errno: &'static str) -> Accept {
    Accept {
        subject: Subject {
            conn: None,
            side: None,
            cookie: None,
            pid_source: Some(PidSource::Accept),
            ..listener()
        },
        called_mono_ns: Some(NOW - 3100),
        blocked_ns: Some(3100),
        accept_queue_ns: None,
        backlog_len: 0,
        accept_error: Some(errno.into()),
        ..accept()
    }
}

const REASON: &str =
    "the kernel finished the handshake 5.003 s before accept() returned to server[4711]";

pub fn connection() -> Connection {
    Connection {
        mono_ns: NOW,
        subject: accept().subject,
        syn_mono_ns: None,
        syn_source: None,
        established_mono_ns: Some(NOW - 5103 * MS),
        accept_called_mono_ns: Some(NOW - 105 * MS),
        accepted_mono_ns: Some(NOW - 100 * MS),
        closed_mono_ns: Some(NOW),
        handshake_ns: None,
        half_open_ns: None,
        half_open_end: None,
        synack_retransmits: None,
        syncookie: None,
        defer_accept: None,
        syn_queue_ahead: None,
        accept_queue_ns: Some(5003 * MS),
        backlog_ahead: Some(0),
        backlog_max: Some(128),
        listener: Some(1),
        listener_source: Some(ListenerSource::Accept),
        verdict: Some(Verdict::Queued),
        reason: Some(REASON.to_owned()),
        reason_follows: true,
        late: None,
        evidence: Some("SYN_RECV → ESTABLISHED, accept() called, accept() returned".to_owned()),
        state: State::Close,
        peer_conn: Some(2),
        peer_established_mono_ns: Some(NOW - 5103 * MS - 30_000),
        overflows: Some(0),
        first_overflow_mono_ns: None,
        explanation: None,
        bucket: None,
        error: None,
        ending: ending(),
        complete: true,
        evicted: false,
    }
}

/// The final ACK of connection 3 met a full accept queue.
pub fn overflow() -> Overflow {
    Overflow {
        mono_ns: NOW,
        subject: server(),
        listener: Some(1),
        dropped: OverflowSegment::Ack,
        queue: ListenQueue::Accept,
        queue_len: 2,
        queue_max: 1,
        reserve: false,
        aborted: false,
    }
}

/// A connection of which only the end was seen.
pub fn unknown() -> Connection {
    Connection {
        subject: Subject {
            side: None,
            ..without_process(server())
        },
        established_mono_ns: None,
        accept_called_mono_ns: None,
        accepted_mono_ns: None,
        accept_queue_ns: None,
        backlog_ahead: None,
        backlog_max: None,
        ending: Ending::default(),
        verdict: Some(Verdict::Unknown),
        reason: Some("the trace began after the connection did".to_owned()),
        error: Some("ECONNRESET".into()),
        complete: false,
        ..connection()
    }
}

/// The ending of [`connection`].
pub fn ending() -> Ending {
    Ending {
        ended: Some(Ended::Orderly),
        closed_first: Some(ClosedFirst::Local),
        fin_sent: Some(true),
        syn_retransmits: None,
        bytes_acked: Some(18),
        bytes_received: Some(0),
        segs_out: Some(4),
        segs_in: Some(3),
        retransmits: Some(0),
        srtt_ns: Some(32_000),
        snd_cwnd: Some(10),
        unread_bytes: Some(0),
    }
}

pub fn retransmit() -> Retransmit {
    Retransmit {
        mono_ns: NOW,
        subject: client().subject,
        state: State::SynSent,
        retransmitted: Retransmitted::Syn,
        retransmits: 2,
    }
}

pub fn reset() -> Reset {
    Reset {
        mono_ns: NOW,
        subject: client().subject,
        state: Some(State::Established),
        direction: Direction::Sent,
        rst_reason: Some("TCP_ABORT_ON_CLOSE".to_owned()),
    }
}

pub fn client() -> Connection {
    Connection {
        subject: Subject {
            conn: Some(2),
            side: Some(Side::Client),
            lport: Some(39709),
            rport: Some(7878),
            pid: Some(4712),
            tid: Some(4712),
            comm: Some(Comm::from("nc")),
            process: Some(Comm::from("nc")),
            pid_source: Some(PidSource::Connect),
            ..server()
        },
        syn_mono_ns: Some(NOW - 5103 * MS - 45_200),
        syn_source: Some(Source::Tracepoint),
        accept_called_mono_ns: None,
        accepted_mono_ns: None,
        handshake_ns: Some(45_200),
        accept_queue_ns: None,
        backlog_ahead: None,
        backlog_max: None,
        verdict: None,
        reason: None,
        late: None,
        evidence: None,
        ..connection()
    }
}

/// The client's TIME_WAIT bucket, when it ends.
pub fn time_wait() -> TimeWait {
    TimeWait {
        mono_ns: NOW,
        subject: client().subject,
        state: State::TimeWait,
        fin_wait2_ns: Some(500 * MS),
        time_wait_ns: Some(60_012 * MS),
        bucket_end: Some(BucketEnd::Expired),
        source: Source::TimewaitSock,
    }
}

/// The SYN-ACK at the client.
pub fn segment() -> Segment {
    Segment {
        mono_ns: NOW,
        subject: client().subject,
        direction: Direction::Received,
        flags: TcpFlags(0x12),
        seq: u32::MAX,
        ack: Some(1_000_001),
        rel_seq: Some(0),
        rel_ack: Some(1),
        len: 0,
        win: 65483,
        ifindex: 1,
        cpu: 1,
    }
}
