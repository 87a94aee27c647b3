use tcptrace_ebpf::abi;
use zerocopy::IntoBytes;

use super::*;
use crate::container::Container;

const MS: u64 = 1_000_000;
const START: u64 = 1_000 * MS;
const CGROUP: u64 = 4711;
const PID: u32 = 4800;

fn begin() -> Begin {
    let hooks = [Hook::InetSockSetState, Hook::InetCskAccept];
    Begin {
        mono_ns: START,
        hooks: hooks.map(|hook| (hook, Some("tp_btf".to_owned()))).into(),
        ..Begin::default()
    }
}

/// Returns a transition of a client on CPU 0.
fn change(mono_ns: u64, sk: u64, oldstate: State, newstate: State) -> Vec<u8> {
    let header = abi::Header {
        mono_ns,
        lost: 0,
        cpu: 0,
        kind: abi::kind::SET_STATE,
        version: abi::VERSION,
    };
    let payload = abi::SetState {
        sk,
        cookie: sk,
        cgroup: CGROUP,
        netns: 1,
        backlog_len: 0,
        backlog_max: 0,
        err: 0,
        srtt_us: 0,
        uid: 0,
        lport: 1000 + sk as u16,
        rport: 7878,
        oldstate: oldstate as u8,
        newstate: newstate as u8,
        flags: abi::state_flag::OWNED,
        sections: abi::section::V4,
    };
    let addrs = abi::Addrs4 {
        laddr: [127, 0, 0, 1],
        raddr: [127, 0, 0, 1],
    };
    [header.as_bytes(), payload.as_bytes(), addrs.as_bytes()].concat()
}

fn connects(at_ms: u64, sk: u64) -> Vec<u8> {
    change(START + at_ms * MS, sk, State::Close, State::SynSent)
}

/// Like `connects`, with the process that connects.
fn connects_by(pid: u32, at_ms: u64, sk: u64) -> Vec<u8> {
    let mut record = connects(at_ms, sk);
    record[size_of::<abi::Header>() + size_of::<abi::SetState>() - 1] |= abi::section::TASK;
    let task = abi::Task {
        pid,
        tid: pid,
        comm: *b"curl\0\0\0\0\0\0\0\0\0\0\0\0",
        process: *b"curl\0\0\0\0\0\0\0\0\0\0\0\0",
    };
    record.extend(task.as_bytes());
    record
}

fn fails(at_ms: u64, sk: u64) -> Vec<u8> {
    change(START + at_ms * MS, sk, State::SynSent, State::Close)
}

fn records(records: &[Vec<u8>], complete_until_ms: Option<u64>) -> Input {
    Input::Records {
        batch: records.iter().map(Vec::as_slice).collect(),
        complete_until_ns: complete_until_ms.map_or(0, |ms| START + ms * MS),
    }
}

fn counts(seen: u64, lost: u64) -> BTreeMap<Hook, Counts> {
    let counts = Counts {
        seen,
        lost,
        ..Counts::default()
    };
    [(Hook::InetSockSetState, counts)].into()
}

struct Played {
    trace: Trace,
    lines: Vec<Line>,
}

impl Played {
    fn new(begin: &Begin) -> Played {
        let mut played = Played {
            trace: Trace::new(begin),
            lines: vec![],
        };
        played.advance();
        played
    }

    fn advance(&mut self) {
        while self.trace.advance(&mut self.lines) {}
    }

    fn push(&mut self, input: impl Into<Input>) {
        self.trace.push(&input.into());
        self.advance();
    }

    /// Returns the kinds of the lines so far, each with its time since the start in milliseconds.
    fn kinds(&self) -> Vec<(&'static str, u64)> {
        let lines = self.lines.iter();
        let since = |line: &Line| line.mono_ns().saturating_sub(START) / MS;
        lines.map(|line| (line.event(), since(line))).collect()
    }

    fn connections(&self) -> Vec<&crate::fields::Connection> {
        let lines = self.lines.iter().filter_map(|line| match line {
            Line::Connection(line) => Some(line),
            _ => None,
        });
        lines.collect()
    }
}

#[test]
fn lines_appear_when_their_events_are_due() {
    let mut played = Played::new(&begin());
    assert_eq!(played.kinds(), [("session", 0)]);
    let many: Vec<Vec<u8>> = (0..50).map(|n| connects(n, n + 1)).collect();
    played.push(records(&many, None));
    assert_eq!(played.lines.len(), 1, "more may come that is earlier");
    played.push(records(&[], Some(45)));
    assert_eq!(played.lines.len(), 1 + 41, "held back for 5 ms");
    played.push(records(&[], Some(60)));
    assert_eq!(played.lines.len(), 1 + 50);
}

#[test]
fn lost_line_has_the_time_of_the_event_loss() {
    let mut played = Played::new(&begin());
    let loss = Loss {
        hook: Hook::InetSockSetState,
        why: Why::RingBufferFull,
        count: 3,
    };
    played.push(records(&[connects(1, 1)], None));
    played.push(Input::note(START + 3 * MS, Note::Lost(loss)));
    played.push(records(&[connects(2, 2), connects(4, 3)], Some(20)));
    let kinds = played.kinds();
    assert_eq!(
        kinds[1..],
        [
            ("transition", 1),
            ("transition", 2),
            ("lost", 3),
            ("transition", 4)
        ]
    );
}

#[test]
fn missing_record_is_unaccounted_once_and_marks_open_connections() {
    let mut played = Played::new(&begin());
    played.push(records(&[connects(1, 1)], Some(10)));
    let settled = Settled {
        seen: 3,
        filtered_or_lost: 1,
    };
    let counts_at = |ms| Small::Counted {
        mono_ns: START + ms * MS,
        counts: [(Hook::InetSockSetState, settled)].into(),
    };
    played.push(counts_at(20));
    played.push(counts_at(21));
    played.push(records(&[fails(30, 1)], Some(40)));
    let mono_ns = START + 50 * MS;
    played.push(Small::Ending { mono_ns });
    played.push(Small::End {
        counts: counts(4, 1),
    });
    let kinds = played.kinds();
    assert_eq!(
        kinds[1..],
        [
            ("transition", 1),
            ("lost", 20),
            ("transition", 30),
            ("connection", 30),
            ("summary", 50)
        ]
    );
    assert!(!played.connections()[0].complete);
    let Some(Line::Summary(summary)) = played.lines.last() else {
        panic!("no summary");
    };
    let hook = summary.hook_counts[&Hook::InetSockSetState];
    assert_eq!((hook.seen, hook.emitted, hook.lost), (4, 2, 2));
    assert_eq!(hook.unaccounted, 1);
}

#[test]
fn open_connections_are_written_at_the_end_and_later_events_are_not() {
    let mut played = Played::new(&begin());
    played.push(records(&[connects(1, 1), connects(9, 2)], None));
    let mono_ns = START + 5 * MS;
    played.push(Small::Ending { mono_ns });
    let counts = counts(2, 0);
    played.push(Small::End { counts });
    let kinds = played.kinds();
    assert_eq!(
        kinds[1..],
        [("transition", 1), ("connection", 5), ("summary", 5)]
    );
    // Inputs after the end are ignored.
    played.push(records(&[connects(20, 3)], Some(99)));
    assert_eq!(played.lines.len(), 4);
}

#[test]
fn count_ends_the_trace_with_the_summary() {
    let mut played = Played::new(&Begin {
        count: Some(1),
        ..begin()
    });
    let all = [connects(1, 1), connects(2, 2), fails(3, 1), fails(4, 2)];
    played.push(records(&all, Some(20)));
    assert!(played.trace.is_counted());
    let mono_ns = START + 30 * MS;
    played.push(Small::Ending { mono_ns });
    let counts = counts(4, 0);
    played.push(Small::End { counts });
    let times: Vec<u64> = played.kinds().iter().map(|(_, ms)| *ms).collect();
    assert_eq!(times[1..], [1, 2, 3, 3, 3, 3]);
    assert_eq!(played.connections().len(), 2);
}

#[test]
fn broken_off_recording_has_no_summary() {
    let mut played = Played::new(&begin());
    played.push(records(
        &[connects(1, 1), connects(7, 2), fails(9, 2)],
        None,
    ));
    played.trace.break_off();
    played.advance();
    let kinds = played.kinds();
    assert_eq!(
        kinds[1..],
        [
            ("transition", 1),
            ("transition", 7),
            ("transition", 9),
            ("connection", 9),
            ("connection", 9)
        ]
    );
}

/// Connections open before the gap, and held events, may lack an event.
#[test]
fn gap_marks_connections_open_around_it() {
    let mut played = Played::new(&begin());
    played.push(records(&[connects(1, 1)], Some(10)));
    played.push(records(&[connects(20, 2)], None));
    played.trace.gap();
    let after = [connects(40, 3), fails(50, 1), fails(51, 2), fails(52, 3)];
    played.push(records(&after, Some(99)));
    let complete: Vec<bool> = played.connections().iter().map(|it| it.complete).collect();
    assert_eq!(complete, [false, false, true]);
}

#[test]
fn line_has_the_container_of_its_cgroup() {
    let mut played = Played::new(&begin());
    let container = Container {
        name: Some("app".into()),
        image: Some("nginx".into()),
        pod: Some("web-0".into()),
        namespace: Some("shop".into()),
        ..Container::new("4f66")
    };
    played.push(Small::Containers([(CGROUP, Some(container))].into()));
    played.push(records(&[connects(1, 1)], Some(10)));
    let subject = played.lines.last().and_then(Line::subject).unwrap();
    let names = [
        &subject.container,
        &subject.container_name,
        &subject.container_image,
        &subject.k8s_pod_name,
        &subject.k8s_namespace_name,
    ];
    assert_eq!(subject.cgroup, Some(CGROUP));
    assert_eq!(
        names.map(|it| it.as_deref()),
        ["4f66", "app", "nginx", "web-0", "shop"].map(Some)
    );
}

#[test]
fn line_has_the_place_that_its_process_had_at_the_time() {
    let mut played = Played::new(&begin());
    let place = |nspid, id: &str| Small::Processes {
        forget: false,
        processes: [(
            PID,
            Process {
                nspid: Some(nspid),
                container: Some(Container::new(id)),
            },
        )]
        .into(),
    };
    played.push(place(7, "4f66"));
    played.push(records(&[connects_by(PID, 1, 1)], Some(10)));
    // The kernel gives the id to another process.
    played.push(place(8, "5a77"));
    played.push(records(&[connects_by(PID, 11, 2)], Some(20)));
    played.push(Small::Processes {
        forget: true,
        processes: [].into(),
    });
    played.push(records(&[connects_by(PID, 21, 3)], Some(30)));
    let counts = counts(3, 0);
    played.push(Small::End { counts });
    let ends = played.connections();
    let places = ends.iter().map(|it| {
        let id = it.subject.container.as_deref();
        (it.subject.pid, it.subject.nspid, id)
    });
    let expected = [
        (Some(PID), Some(7), Some("4f66")),
        (Some(PID), Some(8), Some("5a77")),
        (Some(PID), None, None),
    ];
    assert_eq!(places.collect::<Vec<_>>(), expected);
}

#[test]
fn the_process_of_a_record_is_read_without_decoding_it() {
    use crate::decode::{Seen, peek_process};
    assert_eq!(peek_process(&connects(1, 1)), None);
    let record = connects_by(PID, 1, 1);
    assert_eq!(peek_process(&record), Some(Seen::Running(PID)));
    assert_eq!(
        peek_process(&record[..record.len() - size_of::<abi::Task>()]),
        None
    );
}

#[test]
fn undecodable_record_is_counted() {
    let mut played = Played::new(&begin());
    played.push(records(&[b"no record".to_vec(), connects(1, 1)], Some(10)));
    let counts = counts(1, 0);
    played.push(Small::End { counts });
    let Some(Line::Summary(summary)) = played.lines.last() else {
        panic!("no summary");
    };
    assert_eq!(summary.undecodable, 1);
}
