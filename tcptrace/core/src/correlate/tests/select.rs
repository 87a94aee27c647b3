//! Tests of --pid, --comm, --side and --state.

use super::*;
use crate::correlate::Selection;
use crate::correlate::state::select::Select;
use crate::event::{Direction, Reset, Segment, TcpFlags};

const WORKER: u32 = 4712;

fn worker() -> Task {
    task(WORKER, "worker")
}

fn selecting(selection: Selection) -> Trace {
    Trace {
        correlator: Correlator::new(START).with_selection(selection),
        ..trace()
    }
}

fn of_pid(pid: u32) -> Trace {
    selecting(Selection {
        pids: vec![pid],
        ..Selection::default()
    })
}

fn in_states(states: &[State]) -> Trace {
    selecting(Selection {
        states: states.to_vec(),
        ..Selection::default()
    })
}

/// Returns a trace in which the master process listens, with connection number 1.
fn prefork(mut t: Trace) -> Trace {
    t.set(listener().enters_by(server(), Close, Listen));
    t
}

fn accepts_by(task: Task, child: &Sock, now: u64) -> Accept {
    Accept {
        task,
        ..listener().accepts(child, Called::At(now))
    }
}

/// Returns the numbers of the connections in the lines, each once.
fn shown(t: &Trace) -> Vec<u64> {
    let subjects = t.lines.iter().filter_map(Line::subject);
    let mut all: Vec<u64> = subjects.filter_map(|it| it.conn).collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[test]
fn pid_selects_a_listener_and_its_connections() {
    let mut t = prefork(of_pid(server().pid));
    t.set(client(3).enters_by(visitor(), Close, SynSent));
    t.establish(&child(2));
    let now = t.now;
    t.accept(accepts_by(server(), &child(2), now));
    t.walk(&child(2), &[Established, CloseWait, LastAck, Close]);
    let totals = t.finish();
    assert_eq!(shown(&t), [1, 3]);
    assert_eq!((totals.servers, totals.clients), (1, 0));
    assert_eq!(totals.listeners.len(), 1);
}

#[test]
fn pid_of_a_worker_selects_all_lines_of_its_connections() {
    let mut t = prefork(of_pid(WORKER));
    t.establish(&child(2));
    t.establish(&child(3));
    assert!(t.lines.is_empty(), "{:?}", t.lines);
    let now = t.now;
    t.accept(accepts_by(server(), &child(2), now));
    t.accept(accepts_by(worker(), &child(3), now));
    assert_eq!(shown(&t), [3]);
    let states: Vec<_> = t.transitions().iter().map(|x| x.newstate).collect();
    assert_eq!(states, [SynRecv, Established]);
    assert!(t.lines.is_sorted_by_key(Line::mono_ns));
    assert!(t.transitions()[0].mono_ns < now);

    t.walk(&child(3), &[Established, CloseWait, LastAck, Close]);
    let totals = t.finish();
    assert!(t.connection(3).complete);
    assert_eq!((totals.servers, totals.dropped_lines), (1, 0));
    // The worker's listener belongs to another process, but the connections that the worker
    // accepted count.
    let listener = &totals.listeners[..];
    assert_eq!(listener.len(), 1);
    assert_eq!((listener[0].conn, listener[0].accepted), (Some(1), 1));
}

#[test]
fn presumed_owner_is_selected_at_once_and_to_the_end() {
    let mut t = prefork(of_pid(server().pid));
    t.establish(&child(2));
    assert_eq!(t.last_transition().newstate, Established);
    let now = t.now;
    t.accept(accepts_by(worker(), &child(2), now));
    t.finish();
    assert_eq!(t.connection(2).subject.pid, Some(WORKER));
}

#[test]
fn never_accepted_connection_is_not_selected_by_a_workers_pid() {
    let mut t = prefork(of_pid(WORKER));
    t.establish(&child(2));
    t.walk(&child(2), &[Established, Close]);
    let totals = t.finish();
    assert!(t.lines.is_empty(), "{:?}", t.lines);
    assert_eq!((totals.servers, totals.dropped_lines), (0, 0));
    assert!(totals.verdicts.is_empty() && totals.listeners.is_empty());
}

#[test]
fn comm_matches_only_the_whole_name() {
    for (name, connections) in [("visitor", 1), ("visit", 0), ("server", 0)] {
        let mut t = selecting(Selection {
            comms: vec![Comm::from(name)],
            ..Selection::default()
        });
        t.set(client(2).enters_by(visitor(), Close, SynSent));
        t.walk(
            &client(2),
            &[SynSent, Established, CloseWait, LastAck, Close],
        );
        assert_eq!(t.connections().len(), connections, "{name}");
    }
}

#[test]
fn line_must_meet_all_conditions() {
    let both = |sides| {
        let mut t = prefork(selecting(Selection {
            pids: vec![server().pid],
            sides,
            ..Selection::default()
        }));
        t.establish(&child(2));
        t.finish();
        shown(&t)
    };
    assert_eq!(both(vec![]), [1, 2]);
    assert_eq!(both(vec![Side::Listener]), [1]);
    assert_eq!(both(vec![Side::Server]), [2]);
    assert_eq!(both(vec![Side::Server, Side::Client]), [2]);
    assert!(both(vec![Side::Client]).is_empty());
}

#[test]
fn failed_accept_is_selected_by_its_caller() {
    const EAGAIN: u32 = 11;
    for (pid, calls) in [(WORKER, 1), (server().pid, 0)] {
        let mut t = prefork(of_pid(pid));
        t.accept(Accept {
            task: worker(),
            ..listener().fails_to_accept(EAGAIN)
        });
        assert_eq!(t.accepts().len(), calls);
        let totals = t.finish();
        assert_eq!(totals.listeners[0].failed_accepts, calls as u64);
    }
}

#[test]
fn held_lines_beyond_the_bound_are_dropped_and_counted() {
    const CHILDREN: u64 = 9_000;
    let mut t = prefork(of_pid(WORKER));
    for sk in 2..2 + CHILDREN {
        t.establish(&child(sk));
    }
    let now = t.now;
    t.accept(accepts_by(worker(), &child(2), now));
    t.accept(accepts_by(worker(), &child(1 + CHILDREN), now));
    // The oldest connections have lost their first lines, the newest have lost none.
    let oldest = t
        .lines
        .iter()
        .filter(|it| it.subject().unwrap().conn == Some(2));
    assert_eq!(oldest.count(), 1);
    assert_eq!(t.lines.len(), 1 + 3);
    let totals = t.finish();
    assert_eq!(totals.dropped_lines, 2 * CHILDREN - 16_384);
    assert_eq!(totals.servers, 2);
}

#[test]
fn state_selects_transitions_into_and_out_of_it() {
    let mut t = in_states(&[SynRecv, CloseWait]);
    t.set(listener().enters_by(server(), Close, Listen));
    t.establish(&child(2));
    let now = t.now;
    t.accept(accepts_by(server(), &child(2), now));
    t.walk(&child(2), &[Established, CloseWait, LastAck, Close]);
    t.set(client(3).enters_by(visitor(), Close, SynSent));
    t.walk(&client(3), &[SynSent, Close]);
    let totals = t.finish();
    let entered: Vec<_> = t.transitions().iter().map(|x| x.newstate).collect();
    assert_eq!(entered, [SynRecv, Established, CloseWait, LastAck]);
    // The connection was ESTABLISHED at the accept().
    assert!(t.accepts().is_empty());
    assert_eq!(t.connections().len(), 1);
    assert_eq!((totals.servers, totals.clients), (1, 0));
}

#[test]
fn state_selects_every_line_while_the_socket_is_in_it() {
    let mut t = prefork(in_states(&[Established]));
    t.establish(&child(2));
    let now = t.now;
    t.accept(accepts_by(server(), &child(2), now));
    assert_eq!(t.last_accept().subject.conn, Some(2));
    assert_eq!(t.transitions().len(), 1);
}

#[test]
fn time_wait_line_follows_the_selection_of_its_connection() {
    let closed = SetState {
        fin_received: true,
        ..client(2).enters(FinWait2, Close)
    };
    for (pid, lines) in [(visitor().pid, 1), (WORKER, 0)] {
        let mut t = of_pid(pid);
        t.set(client(2).enters_by(visitor(), Close, SynSent));
        t.walk(&client(2), &[SynSent, Established, FinWait1, FinWait2]);
        t.set(closed);
        t.finish();
        let left = t
            .lines
            .iter()
            .filter(|line| matches!(line, Line::TimeWait(_)));
        assert_eq!(left.count(), lines);
    }
}

/// Returns an ACK that `sock` receives.
fn ack(sock: &Sock) -> Kind {
    const ACK: u8 = 0x10;
    Kind::Segment(Segment {
        direction: Direction::Received,
        sk: None,
        from_half_open: false,
        netns: NETNS,
        ifindex: 1,
        tuple: sock.tuple,
        flags: TcpFlags(ACK),
        seq: 1,
        ack: Some(1),
        len: 0,
        window: 64,
    })
}

#[test]
fn segments_after_the_end_follow_the_selection_of_their_connection() {
    for (pid, segments) in [(visitor().pid, 1), (WORKER, 0)] {
        let mut t = of_pid(pid);
        t.correlator.expect_segments();
        t.set(client(2).enters_by(visitor(), Close, SynSent));
        t.walk(
            &client(2),
            &[SynSent, Established, FinWait1, FinWait2, Close],
        );
        t.event(ack(&client(2)));
        let shown = t.lines.iter().filter(|it| matches!(it, Line::Segment(_)));
        assert_eq!(shown.count(), segments);
    }
}

/// The segments of a half-open connection precede its socket's first transition.
#[test]
fn segment_can_be_the_first_held_line_of_a_connection() {
    let mut t = prefork(trace());
    t.correlator.expect_segments();
    t.establish(&child(2));
    t.event(ack(&child(2)));
    let now = t.now;
    t.accept(accepts_by(worker(), &child(2), now));
    let [listens, born, established, segment, accepted] = &t.lines[..] else {
        panic!("{:?}", t.lines);
    };
    let mut lines = [listens, segment, born, established, accepted]
        .map(Line::clone)
        .to_vec();
    let expected = lines[1..].to_vec();
    let mut select = Select::new(Selection {
        pids: vec![WORKER],
        ..Selection::default()
    });
    select.sift(0, &mut lines);
    assert_eq!(lines, expected);
}

/// Returns a RST for a segment that no socket received.
fn stray_reset() -> Reset {
    Reset {
        sk: None,
        cookie: None,
        netns: NETNS,
        tuple: client(9).tuple,
        state: None,
        direction: Direction::Sent,
        reason: None,
    }
}

#[test]
fn segment_and_rst_without_connection_are_left_out_with_an_owner_condition() {
    let traced_only = Selection {
        traced_only: true,
        ..Selection::default()
    };
    for (mut t, lines) in [
        (trace(), 1),
        (selecting(traced_only), 0),
        (of_pid(WORKER), 0),
        (in_states(&[Established]), 0),
    ] {
        t.event(Kind::Reset(stray_reset()));
        assert_eq!(t.lines.len(), lines);
    }
}

#[test]
fn conditions_are_described_as_given() {
    let selection = Selection {
        pids: vec![1, 2],
        comms: vec![Comm::from("nginx")],
        sides: vec![Side::Server, Side::Listener],
        states: vec![SynSent],
        traced_only: true,
    };
    let described: Vec<_> = selection.describe().into_iter().collect();
    let as_given = [
        ("comm", "nginx"),
        ("pid", "1,2"),
        ("side", "server,listener"),
        ("state", "SYN_SENT"),
    ];
    assert_eq!(described, as_given.map(|(name, it)| (name, it.to_owned())));
}
