//! What --pid, --comm, --side and --state let through.

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

/// The master process listens, as conn 1.
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

/// The numbers of the connections that the lines are about, each once.
fn shown(t: &Trace) -> Vec<u64> {
    let subjects = t.lines.iter().filter_map(Line::subject);
    let mut all: Vec<u64> = subjects.filter_map(|it| it.conn).collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[test]
fn a_process_has_its_listener_and_its_connections() {
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
fn a_worker_gets_the_whole_story_of_what_it_accepts() {
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
    // Its listener is another process's, but what the worker took from it counts.
    let listener = &totals.listeners[..];
    assert_eq!(listener.len(), 1);
    assert_eq!((listener[0].conn, listener[0].accepted), (Some(1), 1));
}

#[test]
fn a_presumed_owner_is_shown_at_once_and_to_the_end() {
    let mut t = prefork(of_pid(server().pid));
    t.establish(&child(2));
    assert_eq!(t.last_transition().newstate, Established);
    let now = t.now;
    t.accept(accepts_by(worker(), &child(2), now));
    t.finish();
    assert_eq!(t.connection(2).subject.pid, Some(WORKER));
}

#[test]
fn what_nobody_accepts_is_nobodys() {
    let mut t = prefork(of_pid(WORKER));
    t.establish(&child(2));
    t.walk(&child(2), &[Established, Close]);
    let totals = t.finish();
    assert!(t.lines.is_empty(), "{:?}", t.lines);
    assert_eq!((totals.servers, totals.dropped_lines), (0, 0));
    assert!(totals.verdicts.is_empty() && totals.listeners.is_empty());
}

#[test]
fn a_name_is_the_whole_name() {
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
fn every_condition_must_hold() {
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
fn a_call_that_failed_is_its_callers() {
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
fn too_many_are_not_held_back_and_that_is_counted() {
    const CHILDREN: u64 = 9_000;
    let mut t = prefork(of_pid(WORKER));
    for sk in 2..2 + CHILDREN {
        t.establish(&child(sk));
    }
    let now = t.now;
    t.accept(accepts_by(worker(), &child(2), now));
    t.accept(accepts_by(worker(), &child(1 + CHILDREN), now));
    // The oldest have lost their beginning, the youngest have not.
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
fn a_state_has_its_beginning_its_end_and_its_connections() {
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
    // It was ESTABLISHED then.
    assert!(t.accepts().is_empty());
    assert_eq!(t.connections().len(), 1);
    assert_eq!((totals.servers, totals.clients), (1, 0));
}

#[test]
fn in_a_state_everything_is_shown() {
    let mut t = prefork(in_states(&[Established]));
    t.establish(&child(2));
    let now = t.now;
    t.accept(accepts_by(server(), &child(2), now));
    assert_eq!(t.last_accept().subject.conn, Some(2));
    assert_eq!(t.transitions().len(), 1);
}

#[test]
fn what_is_left_of_a_connection_goes_with_it() {
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

/// An ACK that `sock` receives.
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
fn what_comes_after_the_end_is_shown_with_its_connection() {
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

/// A half-open connection's segments come before its socket's first state.
#[test]
fn a_segment_may_be_the_first_that_is_held_back() {
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
    let story = lines[1..].to_vec();
    let mut select = Select::new(Selection {
        pids: vec![WORKER],
        ..Selection::default()
    });
    select.sift(0, &mut lines);
    assert_eq!(lines, story);
}

/// A RST for a segment that met no socket.
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
fn what_may_be_anybodys_is_left_out_where_owners_are_asked_for() {
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
