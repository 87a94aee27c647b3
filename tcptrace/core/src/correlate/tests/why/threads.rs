//! Several acceptors, connections that no thread accepts, and `stack` lines.

use super::*;

fn worker(tid: u32) -> Task {
    Task {
        tid,
        ..task(4711, "worker")
    }
}

#[test]
fn others_are_named_with_their_activities() {
    let mut t = enrolled();
    for tid in [5, 6, 7] {
        t.enrolls(worker(tid));
    }
    t.out_at(
        worker(5),
        OffCpu::Interruptible,
        in_syscall(EPOLL_WAIT),
        None,
    );
    t.out_at(
        worker(6),
        OffCpu::Interruptible,
        in_syscall(EPOLL_WAIT),
        None,
    );
    t.out_at(worker(7), OffCpu::Uninterruptible, in_syscall(FSYNC), None);
    t.blocks(in_syscall(READ), 40 * MS, 0);
    t.accepts_now();
    let late = t.explained();
    assert_eq!(late.acceptor_tid, Some(4711));
    let others: Vec<_> = late
        .other_acceptors
        .iter()
        .map(|it| (it.tid, it.blocked_ns, it.mainly.as_str()))
        .collect();
    let expected = [
        (5, 40 * MS, "waiting for work"),
        (6, 40 * MS, "waiting for work"),
        (7, 40 * MS, "blocked in fsync()"),
    ];
    assert_eq!(others, expected);
    assert_eq!(
        late.late_because,
        "late because server[4711] was blocked 40.00 ms in read(); 3 other acceptors: 2 waiting \
         for work, 1 blocked in fsync()"
    );
}

#[test]
fn acceptors_of_another_listener_are_not_named() {
    let mut t = enrolled();
    let other = worker(5);
    let listener = Some(Sk(99));
    t.sched(
        other,
        SchedStep::Enrolled {
            task: other,
            listener,
            listens: false,
        },
    );
    t.blocks(in_syscall(READ), 40 * MS, 0);
    t.accepts_now();
    assert_eq!(t.explained().other_acceptors, []);
}

#[test]
fn connection_never_accepted_is_explained_by_the_acceptor_seen_for_longest() {
    let mut t = why();
    t.enrolls(server());
    t.out(OffCpu::Interruptible, in_syscall(CLOCK_NANOSLEEP));
    t.establish(&child(2));
    t.wait(10 * MS);
    t.enrolls(worker(5));
    t.wait(190 * MS - US);
    t.finish_with_queued(&[child(2)]);
    let line = t.connection(2);
    assert_eq!(line.verdict, Some(Verdict::NeverAccepted));
    let late = line.late.as_deref().unwrap();
    assert_eq!(late.acceptor_tid, Some(4711));
    let wait_ns = line.mono_ns - line.established_mono_ns.unwrap();
    assert_eq!(times(late), [0, 0, wait_ns, 0]);
    assert_eq!(late.late_reason, LateReason::Blocked);
    let blocked = "late because server[4711] was blocked 200.0 ms in clock_nanosleep(); the other \
                   acceptor, worker[5], was running";
    assert_eq!(late.late_because, blocked);
}

/// A thread that only listens is named if there is no better one.
#[test]
fn thread_that_listens_explains_only_a_listener_without_acceptors() {
    for accepts in [false, true] {
        let mut t = why();
        let (task, listener) = (server(), Some(listener().sk));
        t.sched(
            task,
            SchedStep::Enrolled {
                task,
                listener,
                listens: true,
            },
        );
        t.out(OffCpu::Interruptible, in_syscall(CLOCK_NANOSLEEP));
        if accepts {
            t.enrolls(worker(5));
            t.out_at(worker(5), OffCpu::Interruptible, in_syscall(READ), None);
        }
        t.establish(&child(2));
        t.wait(200 * MS - 3 * US);
        t.finish_with_queued(&[child(2)]);
        let late = t.connection(2).late.clone().unwrap();
        let because = match accepts {
            false => {
                "server[4711], which has called listen() but not accept(), was blocked 200.0 ms \
                      in clock_nanosleep()"
            }
            true => "worker[5] was blocked 200.0 ms in read()",
        };
        assert_eq!(late.late_because, format!("late because {because}"));
        assert_eq!(late.other_acceptors, []);
    }
}

#[test]
fn connection_of_a_listener_without_acceptors_is_not_guessed_at() {
    let mut t = why();
    t.establish(&child(2));
    t.wait(50 * MS);
    t.finish_with_queued(&[child(2)]);
    let late = t.connection(2).late.clone().unwrap();
    assert_eq!(
        (late.acceptor_tid, late.late_reason),
        (None, LateReason::Unseen)
    );
    assert_eq!(
        late.late_because,
        "what its acceptors did is not known: no thread has called accept() on its listener during \
         the trace"
    );
}

#[test]
fn thread_that_has_exited_is_forgotten_when_its_id_is_used_again() {
    let mut t = enrolled();
    t.blocks(in_syscall(READ), 40 * MS, 0);
    t.out(OffCpu::Dead, None);
    t.wait(10 * MS);
    let again = Task {
        tid: 4711,
        ..task(4800, "server")
    };
    t.sched(
        again,
        SchedStep::Enrolled {
            task: again,
            listener: Some(listener().sk),
            listens: false,
        },
    );
    t.wait(5 * MS);
    let accept = Accept {
        task: again,
        ..listener().accepts(&child(2), Called::At(t.now))
    };
    t.accept(accept);
    assert_eq!(times(t.explained()), [5 * MS + US, 0, 0, 50 * MS]);
}

#[test]
fn stack_line_comes_once_before_the_first_line_that_refers_to_it() {
    let mut t = enrolled();
    t.correlator.stacks(&[saving()]);
    t.establish(&child(3));
    t.saves();
    t.accepts_now();
    t.accept(listener().accepts(&child(3), Called::At(t.now)));
    t.finish();
    let stacks: Vec<usize> = (t.lines.iter().enumerate())
        .filter_map(|(at, line)| matches!(line, Line::Stack(_)).then_some(at))
        .collect();
    let [at] = stacks[..] else {
        panic!("{stacks:?}");
    };
    let (Line::Stack(stack), Line::Accept(accept)) = (&t.lines[at], &t.lines[at + 1]) else {
        panic!("{:?}", t.lines[at + 1]);
    };
    assert_eq!(stack.stack, 1);
    assert_eq!(stack.user_frames, saving().user);
    // The frames of the tracer itself are left out.
    assert_eq!(stack.kernel_frames, saving().kernel[3..]);
    let late = accept.late.as_deref().unwrap();
    assert_eq!(late.acceptor_blocked_in[0].stack, Some(1));
    assert_eq!(
        t.connection(3).late.as_ref().unwrap().acceptor_blocked_in[0].stack,
        Some(1)
    );
}

#[test]
fn stack_line_is_written_again_when_its_functions_become_known() {
    let unnamed = |stack: Stack| Stack {
        kernel: stack.kernel.iter().map(|_| Frame::default()).collect(),
        user: stack.user.iter().map(|_| Frame::default()).collect(),
        ..stack
    };
    let mut t = enrolled();
    t.establish(&child(3));
    t.saves();
    t.correlator.stacks(&[unnamed(saving())]);
    t.accepts_now();
    assert_eq!(t.explained().acceptor_blocked_in[0].function, None);
    t.correlator.stacks(&[saving()]);
    t.correlator.stacks(&[unnamed(saving())]);
    t.accept(listener().accepts(&child(3), Called::At(t.now)));
    let place = &t.explained().acceptor_blocked_in[0];
    assert_eq!(place.function.as_deref(), Some("ext4_sync_file"));
    let stacks = t.lines.iter().filter_map(|line| match line {
        Line::Stack(x) => Some((x.stack, x.user_frames[2].function.as_deref())),
        _ => None,
    });
    let expected = [(1, None), (1, Some("save_state"))];
    assert_eq!(stacks.collect::<Vec<_>>(), expected);
}

#[test]
fn trace_without_why_has_no_explanations() {
    let mut t = listening();
    t.enrolls(server());
    t.establish(&child(2));
    t.wait(50 * MS);
    t.accepts_now();
    assert_eq!(t.last_accept().late, None);
}
