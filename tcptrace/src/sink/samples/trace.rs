//! Samples of the lines about the trace itself: its beginning, its lost events and its summary.

use super::{LOOPBACK, MS, NOW, listener};
use crate::event::{Hook, State};
use crate::fields::*;

/// A listener that is older than the trace.
const CONTAINER: &str = "4f66ad9a0b2e8b3c1d5e7f90a1b2c3d4e5f60718293a4b5c6d7e8f9001122334";

pub fn preexisting() -> Preexisting {
    Preexisting {
        mono_ns: NOW,
        subject: Subject {
            tid: None,
            pid_source: Some(PidSource::Snapshot),
            container: Some(CONTAINER.into()),
            container_name: Some("web".into()),
            container_image: Some("docker.io/library/nginx:1.25".into()),
            k8s_pod_name: Some("web-0".into()),
            k8s_namespace_name: Some("shop".into()),
            ..listener()
        },
        state: State::Listen,
        backlog_len: Some(2),
        backlog_max: Some(128),
    }
}

pub fn histogram() -> Histogram {
    Histogram {
        mono_ns: NOW,
        interval_ns: 1_000 * MS,
        side: Side::Server,
        netns: 4_026_531_840,
        port: 7878,
        went_well: 3,
        queued: Some(2),
        awaited: Some(1),
        handshake: None,
        accept_queue: Some(Times {
            p50_ns: 30_719,
            p99_ns: 5 * MS,
            max_ns: 5 * MS,
            buckets: vec![(30_719, 2), (5_242_879, 1)],
        }),
        late: Some(LateTimes {
            late_connections: 1,
            late_cpu_ns: 2 * MS,
            late_lock_ns: 3 * MS,
            ..LateTimes::default()
        }),
    }
}

pub fn stack() -> Stack {
    let frame = |address, function: &str| Frame {
        address,
        function: Some(function.to_owned()),
        ..Frame::default()
    };
    let user = Frame {
        module: Some("server".to_owned()),
        file: Some("server.rs".to_owned()),
        line: Some(42),
        ..frame(0x5555_0000_1234, "save_state")
    };
    Stack {
        mono_ns: NOW,
        stack: 1,
        pid: 4711,
        kernel_frames: vec![frame(0xffff_ffff_8110_0000, "ext4_sync_file")],
        user_frames: vec![user, frame(0x5555_0000_2345, "handle_request")],
    }
}

pub fn session() -> Session {
    Session {
        mono_ns: NOW,
        schema: SCHEMA,
        version: "0.2.0".to_owned(),
        kernel: "6.18.5".to_owned(),
        depth: Depth::Events,
        hooks: [
            (Hook::InetSockSetState, Some("tp_btf".to_owned())),
            (Hook::InetCskAccept, None),
        ]
        .into(),
        failed_methods: [(
            Hook::InetCskAccept,
            [("fentry", "EPERM"), ("kprobe", "ENOENT")]
                .map(|(method, error)| FailedMethod {
                    method: method.to_owned(),
                    error: error.to_owned(),
                })
                .into(),
        )]
        .into(),
        filters: [("port".to_owned(), "7878".to_owned())].into(),
        unseen: vec!["accept(): no hook could be attached, so there are no verdicts".to_owned()],
        why_ns: Some(MS),
    }
}

pub fn lost() -> Lost {
    Lost {
        mono_ns: NOW,
        hook: Hook::InetSockSetState,
        why: Why::RingBufferFull,
        count: 1234,
    }
}

pub fn summary() -> Summary {
    let listener = ListenerSummary {
        conn: Some(1),
        laddr: LOOPBACK,
        lport: Some(7878),
        scope_id: None,
        netns: 4_026_531_840,
        folded: 0,
        connections: 4,
        accepted: 3,
        never_accepted: 1,
        failed_accepts: 2,
        half_open_failed: None,
        overflows: None,
        backlog: Backlog {
            backlog_max: Some(128),
            ..Backlog::default()
        },
        accept_queue_p50_ns: Some(23_100),
        accept_queue_p99_ns: Some(5003 * MS),
        accept_queue_max_ns: Some(5003 * MS),
        late: Some(super::connection::late_times()),
    };
    let idle = ListenerSummary {
        conn: None,
        lport: Some(80),
        connections: 0,
        accepted: 0,
        never_accepted: 0,
        failed_accepts: 0,
        accept_queue_p50_ns: None,
        accept_queue_p99_ns: None,
        accept_queue_max_ns: None,
        late: Some(LateTimes::default()),
        ..listener.clone()
    };
    Summary {
        mono_ns: NOW,
        duration_ns: 12_877 * MS,
        hook_counts: [
            (
                Hook::InetSockSetState,
                HookCount {
                    seen: 44,
                    filtered: 20,
                    emitted: 24,
                    lost: 0,
                    lost_calls: 0,
                    unaccounted: 0,
                    recursion_misses: Some(0),
                },
            ),
            (
                Hook::InetCskAccept,
                HookCount {
                    seen: 5,
                    filtered: 0,
                    emitted: 4,
                    lost: 1,
                    lost_calls: 1,
                    unaccounted: 0,
                    recursion_misses: None,
                },
            ),
        ]
        .into(),
        verdicts: [(Verdict::Queued, 3), (Verdict::NeverAccepted, 1)].into(),
        servers: 4,
        clients: 1,
        incomplete: 1,
        evicted_connections: 0,
        undecodable: 0,
        late: 0,
        repeated_segments: 0,
        dropped_lines: 0,
        listeners: vec![listener, idle],
        netns_counters: vec![NetnsCounters {
            netns: 4_026_531_840,
            at_least: Some(QueueCounters::default()),
            at_most: Some(QueueCounters::default()),
            likely_listener: None,
        }],
    }
}
