//! Tests of owners: a process that has exited owns nothing that another process may have.

use super::*;
use crate::correlate::Selection;
use crate::event::SnapshotEntry;
use crate::fields::{PidSource, Subject};

fn heir() -> Task {
    task(4800, "heir")
}

fn worker() -> Task {
    task(4900, "worker")
}

fn who(subject: &Subject) -> (Option<u32>, Option<PidSource>) {
    (subject.pid, subject.pid_source)
}

const NOBODY: (Option<u32>, Option<PidSource>) = (None, None);

fn presumed(task: Task) -> (Option<u32>, Option<PidSource>) {
    (Some(task.pid), Some(PidSource::Presumed))
}

/// Returns the owner in the `connection` line of a child that is never accepted and ends now.
fn end_of(t: &mut Trace, child: Sock) -> (Option<u32>, Option<PidSource>) {
    t.set(SetState {
        err: Some(ECONNRESET),
        ..child.enters(Established, Close)
    });
    t.set(listener().enters(Listen, Close));
    t.finish();
    who(&t.connections().last().expect("an end").subject)
}

#[test]
fn exited_listener_owner_is_not_presumed() {
    let mut t = listening();
    t.exit(server().pid);
    t.establish(&child(2));
    assert_eq!(who(&t.last_transition().subject), NOBODY);
    assert_eq!(end_of(&mut t, child(2)), NOBODY);
}

#[test]
fn living_holder_of_the_listener_is_presumed() {
    let mut t = listening();
    t.exit(server().pid);
    assert!(t.wants_holders());
    t.holders(&listener(), &[heir(), worker()]);
    assert!(!t.wants_holders());
    t.establish(&child(2));
    assert_eq!(who(&t.last_transition().subject), presumed(heir()));
    assert_eq!(end_of(&mut t, child(2)), presumed(heir()));
}

/// A queued connection waits for the process that has the listener now.
#[test]
fn presumed_owner_follows_the_listeners_owner() {
    let mut t = established();
    assert_eq!(who(&t.last_transition().subject), presumed(server()));
    t.exit(server().pid);
    t.holders(&listener(), &[heir()]);
    t.exit(heir().pid);
    t.holders(&listener(), &[worker()]);
    assert_eq!(end_of(&mut t, child(2)), presumed(worker()));
}

#[test]
fn no_owner_is_presumed_after_the_last_holder_exits() {
    let mut t = established();
    t.exit(server().pid);
    t.holders(&listener(), &[]);
    assert_eq!(end_of(&mut t, child(2)), NOBODY);
}

/// The owner closed its descriptor while another process has the listener. No hook sees that.
#[test]
fn owner_without_the_listener_is_replaced_by_its_holder() {
    let mut t = listening();
    t.establish(&child(2));
    assert!(t.wants_holders());
    t.holders(&listener(), &[heir()]);
    t.establish(&child(3));
    assert_eq!(who(&t.last_transition().subject), presumed(heir()));
}

#[test]
fn owner_that_still_has_the_listener_stays() {
    let mut t = listening();
    t.establish(&child(2));
    t.holders(&listener(), &[task(7, "smallest"), server()]);
    t.establish(&child(3));
    assert_eq!(who(&t.last_transition().subject), presumed(server()));
    assert!(!t.wants_holders());
}

#[test]
fn listener_without_found_holders_keeps_a_living_owner() {
    let mut t = listening();
    t.holders(&listener(), &[]);
    t.establish(&child(2));
    assert_eq!(who(&t.last_transition().subject), presumed(server()));
}

#[test]
fn holders_are_searched_for_again_after_some_time() {
    let mut t = listening();
    t.holders(&listener(), &[server()]);
    t.wait(MS);
    t.establish(&child(2));
    assert!(!t.wants_holders());
    t.wait(10_000 * MS);
    t.establish(&child(3));
    assert!(t.wants_holders());
    let before = t.now;
    t.holders(&listener(), &[server()]);
    assert!(!t.wants_holders() && t.now > before);
}

#[test]
fn listener_newer_than_the_search_does_not_take_its_holders() {
    let mut t = listening();
    let began_ns = t.now;
    t.set(listener().enters_by(server(), Listen, Close));
    t.set(listener().enters_by(worker(), Close, Listen));
    let holder = Holder {
        sk: listener().sk,
        task: heir(),
    };
    t.event(Kind::Note(Note::Holders(Holders {
        began_ns,
        holders: vec![holder],
    })));
    t.establish(&child(2));
    assert_eq!(who(&t.last_transition().subject), presumed(worker()));
}

/// The kernel reuses process ids. The process that listens now is another one.
#[test]
fn reused_process_id_is_another_owner() {
    let mut t = listening();
    t.exit(server().pid);
    t.set(listener_at(9, "127.0.0.2").enters_by(server(), Close, Listen));
    let mut other = child(2);
    other.tuple.laddr = "127.0.0.2".parse().unwrap();
    t.establish(&other);
    assert_eq!(who(&t.last_transition().subject), presumed(server()));
}

#[test]
fn acceptor_becomes_owner_of_a_listener_whose_owner_exited() {
    let mut t = listening();
    t.exit(server().pid);
    t.establish(&child(2));
    t.accept(Accept {
        task: heir(),
        ..listener().accepts(&child(2), Called::At(t.now))
    });
    t.establish(&child(3));
    assert_eq!(who(&t.last_transition().subject), presumed(heir()));
}

#[test]
fn renamed_process_is_presumed_by_its_new_name() {
    let mut t = listening();
    t.rename(server().pid, "renamed");
    t.establish(&child(2));
    let subject = &t.last_transition().subject;
    assert_eq!(subject.comm, Some(Comm::from("renamed")));
    assert_eq!(subject.process, Some(Comm::from("renamed")));
    // exec() may have closed the listener.
    assert!(t.wants_holders());
}

#[test]
fn worker_that_closes_a_connection_stays_its_owner() {
    let mut t = accepted();
    t.set(child(2).enters_by(worker(), Established, FinWait1));
    let close = (Some(worker().pid), Some(PidSource::Close));
    assert_eq!(who(&t.last_transition().subject), close);
    t.exit(server().pid);
    t.exit(worker().pid);
    for (from, to) in [(FinWait1, FinWait2), (FinWait2, Close)] {
        t.set(SetState {
            orphaned: true,
            ..child(2).enters(from, to)
        });
        assert_eq!(who(&t.last_transition().subject), close);
    }
    t.finish();
    assert_eq!(who(&t.connection(2).subject), close);
}

#[test]
fn exited_acceptor_does_not_own_a_connection_that_stays_open() {
    let mut t = accepted();
    t.exit(server().pid);
    t.set(child(2).enters(Established, CloseWait));
    assert_eq!(who(&t.last_transition().subject), NOBODY);
    t.set(child(2).enters_by(worker(), CloseWait, LastAck));
    t.set(child(2).enters(LastAck, Close));
    t.finish();
    let close = (Some(worker().pid), Some(PidSource::Close));
    assert_eq!(who(&t.connection(2).subject), close);
}

/// The exit closes the connection, so the process that exited was the last to have it.
#[test]
fn process_that_closes_by_exit_stays_the_owner() {
    let mut t = accepted();
    t.exit(server().pid);
    t.set(child(2).enters_by(server(), Established, FinWait1));
    t.walk(&child(2), &[FinWait1, FinWait2, Close]);
    t.finish();
    let accept = (Some(server().pid), Some(PidSource::Accept));
    assert_eq!(who(&t.connection(2).subject), accept);
}

/// `ss -K`: the process in the transition line never had the connection.
#[test]
fn killed_connection_keeps_its_owner() {
    const ECONNABORTED: u32 = 103;
    let mut t = accepted();
    t.set(SetState {
        err: Some(ECONNABORTED),
        ..child(2).enters_by(task(99, "ss"), Established, Close)
    });
    t.finish();
    assert_eq!(t.connection(2).subject.pid, Some(server().pid));
}

/// A kernel thread that closes a socket works for a process. The event does not show that process.
#[test]
fn close_by_an_unknown_process_keeps_the_owner() {
    let mut t = accepted();
    t.set(SetState {
        context: Some(Context::Process),
        ..child(2).enters(Established, FinWait1)
    });
    let accept = (Some(server().pid), Some(PidSource::Accept));
    assert_eq!(who(&t.last_transition().subject), accept);
}

#[test]
fn exited_owner_of_a_preexisting_socket_is_dropped() {
    let mut t = trace();
    t.correlator.import([(7, server())].into(), START + MS);
    t.snapshot_entry(SnapshotEntry {
        sk: Sk(1),
        cookie: None,
        cgroup: None,
        netns: NETNS,
        tuple: listener().tuple,
        scope: None,
        state: Listen,
        is_bucket: false,
        held: true,
        uid: None,
        inode: Some(7),
        backlog_len: 0,
        backlog_max: 128,
    });
    t.establish(&child(2));
    assert_eq!(who(&t.last_transition().subject), presumed(server()));
    t.exit(server().pid);
    t.establish(&child(3));
    assert_eq!(who(&t.last_transition().subject), NOBODY);
}

/// Returns a trace that writes only the lines of this thread or process name.
fn selected(comm: &str, script: impl FnOnce(&mut Trace)) -> Trace {
    let mut t = trace();
    let selection = Selection {
        comms: vec![Comm::from(comm)],
        ..Selection::default()
    };
    t.correlator =
        std::mem::replace(&mut t.correlator, Correlator::new(START)).with_selection(selection);
    script(&mut t);
    t.finish();
    t
}

#[test]
fn pid_of_a_holder_selects_never_accepted_connections() {
    let t = selected("heir", |t| {
        t.set(listener().enters_by(server(), Close, Listen));
        t.exit(server().pid);
        t.establish(&child(2));
        t.holders(&listener(), &[heir()]);
        t.set(child(2).enters(Established, CloseWait));
    });
    assert_eq!(t.transitions().len(), 3);
    assert_eq!(who(&t.connection(2).subject), presumed(heir()));
}

#[test]
fn comm_matches_the_thread_or_the_process() {
    for name in ["Socket Thread", "firefox"] {
        let t = selected(name, |t| {
            let thread = Task {
                comm: Comm::from("Socket Thread"),
                ..task(815, "firefox")
            };
            t.set(client(2).enters_by(thread, Close, SynSent));
        });
        let subject = &t.connection(1).subject;
        assert_eq!(subject.comm, Some(Comm::from("Socket Thread")));
        assert_eq!(subject.process, Some(Comm::from("firefox")));
    }
}

/// Earlier lines were dropped, because they belonged to another process.
#[test]
fn pid_of_a_worker_selects_a_passed_connection_from_then_on() {
    let t = selected("worker", |t| {
        t.set(listener().enters_by(server(), Close, Listen));
        t.establish(&child(2));
        t.accept(listener().accepts(&child(2), Called::At(t.now)));
        t.set(child(2).enters_by(worker(), Established, FinWait1));
        t.walk(&child(2), &[FinWait1, FinWait2, Close]);
    });
    assert_eq!(t.connection(2).subject.pid, Some(worker().pid));
    assert!(t.accepts().is_empty());
}
