//! Each kind of cause, with its exact times and its sentence.

use super::*;
use crate::duration::Human;

#[test]
fn blocked_acceptor_is_explained_by_system_call_and_functions() {
    let mut t = enrolled();
    t.correlator.stacks(&[saving()]);
    t.wait(4 * MS);
    t.out_at(
        server(),
        OffCpu::Uninterruptible,
        in_syscall(FSYNC),
        Some(StackKey(7)),
    );
    t.wait(402 * MS);
    t.wakes(server());
    t.wait(12 * MS);
    t.gets_cpu(server());
    t.accepts_now();
    let late = t.explained();
    assert_eq!(late.acceptor_tid, Some(4711));
    assert_eq!(times(late), [4 * MS, 12 * MS, 402 * MS, 0]);
    assert_eq!(late.late_reason, LateReason::Blocked);
    let [place] = &late.acceptor_blocked_in[..] else {
        panic!("{late:?}");
    };
    assert_eq!(place.syscall.as_deref(), Some("fsync"));
    assert_eq!(place.function.as_deref(), Some("ext4_sync_file"));
    assert_eq!((place.ns, place.times, place.stack), (402 * MS, 1, Some(1)));
    assert_eq!(
        late.late_because,
        "late because server[4711] was blocked 402.0 ms in fsync() (ext4_sync_file ← save_state ← \
         handle_request), 12.00 ms waiting for a CPU, 4.000 ms running"
    );
}

#[test]
fn explanation_is_in_the_connection_line_too() {
    let mut t = enrolled();
    t.blocks(in_syscall(READ), 20 * MS, 0);
    t.accepts_now();
    let late = t.explained().clone();
    t.set(child(2).enters(Established, Close));
    assert_eq!(t.connection(2).late.as_deref(), Some(&late));
}

#[test]
fn short_wait_is_not_explained() {
    let mut t = enrolled();
    t.blocks(in_syscall(READ), MS, 0);
    t.accepts_now();
    assert_eq!(t.last_accept().accept_queue_ns, Some(MS));
    assert_eq!(t.last_accept().late, None);
    t.finish();
    assert_eq!(t.connection(2).late, None);
}

#[test]
fn running_acceptor_is_explained_by_its_samples() {
    let mut t = enrolled();
    let crunching = Stack {
        user: vec![
            frame("crunch", Some("server")),
            frame("handle", Some("server")),
        ],
        ..saving()
    };
    t.correlator.stacks(&[crunching]);
    for _ in 0..3 {
        t.wait(10 * MS);
        let stack = Some(StackKey(7));
        t.sched(
            server(),
            SchedStep::Sample {
                is_user: true,
                syscall: Some(Syscall::None),
                stack,
            },
        );
    }
    t.accepts_now();
    let late = t.explained();
    assert_eq!(times(late), [30 * MS, 0, 0, 0]);
    let [place] = &late.acceptor_running_in[..] else {
        panic!("{late:?}");
    };
    assert_eq!(place.function.as_deref(), Some("crunch"));
    assert_eq!(
        (place.user_mode, place.samples, place.stack),
        (true, 3, Some(1))
    );
    assert_eq!(
        late.late_because,
        "late because server[4711] ran for 30.00 ms (crunch ← handle)"
    );
}

#[test]
fn acceptor_without_a_cpu_is_explained() {
    let mut t = enrolled();
    t.out(RUNNABLE, None);
    t.wait(80 * MS);
    t.gets_cpu(server());
    t.accepts_now();
    assert_eq!(times(t.explained()), [0, 80 * MS, 0, 0]);
    assert_eq!(t.explained().late_reason, LateReason::Cpu);
    assert_eq!(
        t.explained().late_because,
        "late because server[4711] waited 80.00 ms for a CPU"
    );
}

#[test]
fn throttled_acceptor_is_explained_by_its_quota() {
    let mut t = enrolled();
    t.out(THROTTLED, None);
    t.wait(80 * MS);
    t.gets_cpu(server());
    t.wait(5 * MS);
    t.out(RUNNABLE, None);
    t.wait(3 * MS);
    t.gets_cpu(server());
    t.accepts_now();
    let late = t.explained();
    assert_eq!(times(late), [5 * MS, 83 * MS, 0, 0]);
    assert_eq!(late.acceptor_throttled_ns, 80 * MS);
    assert_eq!(late.late_reason, LateReason::Quota);
    assert_eq!(
        late.late_because,
        "late because server[4711] waited 80.00 ms for CPU quota (cpu.max), 5.000 ms running, \
         3.000 ms waiting for a CPU"
    );
}

#[test]
fn lock_is_explained_with_the_thread_that_released_it() {
    let worker = Task {
        tid: 99,
        ..task(4711, "worker")
    };
    for (syscall, released) in [(FUTEX, ", released by worker[99]"), (READ, "")] {
        let mut t = enrolled();
        t.out(OffCpu::Interruptible, in_syscall(FUTEX));
        t.wait(50 * MS);
        let (by, syscall) = (worker, in_syscall(syscall));
        t.sched(server(), SchedStep::Waking { by, syscall });
        t.gets_cpu(server());
        t.accepts_now();
        assert_eq!(times(t.explained()), [0, 0, 50 * MS, 0]);
        assert_eq!(t.explained().late_reason, LateReason::Lock);
        assert_eq!(
            t.explained().late_because,
            format!("late because server[4711] waited 50.00 ms for a lock (futex){released}")
        );
        let woken_by = t.explained().acceptor_blocked_in[0].woken_by.as_deref();
        assert_eq!(woken_by.is_some(), !released.is_empty());
    }
}

#[test]
fn acceptor_that_waits_for_work_was_not_woken() {
    // A thread with a single block was not woken. One with several was, for something else.
    let cases = [
        (1, "nothing woke it in that time"),
        (3, "it was woken in between but did not accept this one"),
    ];
    for (times_blocked, said) in cases {
        let mut t = enrolled();
        for _ in 0..times_blocked {
            t.blocks(in_syscall(EPOLL_WAIT), 300 * MS, MS);
        }
        t.accepts_now();
        let (blocked_ns, runnable_ns) = (times_blocked * 300 * MS, times_blocked * MS);
        assert_eq!(times(t.explained()), [0, runnable_ns, blocked_ns, 0]);
        assert_eq!(t.explained().late_reason, LateReason::NotWoken);
        let (blocked, runnable) = (Human(blocked_ns), Human(runnable_ns));
        let expected = format!(
            "late because server[4711] sat {blocked} in epoll_wait() although a connection was \
             queued: {said} (is the listener in its epoll set? EPOLLEXCLUSIVE wakes only one \
             waiter), {runnable} waiting for a CPU"
        );
        assert_eq!(t.explained().late_because, expected);
    }
}

#[test]
fn states_other_than_blocked_are_named() {
    let stopped = "was stopped by a signal (such as SIGSTOP) for 200.0 ms";
    let cases = [
        (OffCpu::Stopped, READ, LateReason::Stopped, stopped),
        (
            OffCpu::Traced,
            READ,
            LateReason::Traced,
            "was stopped by a debugger for 200.0 ms",
        ),
        (
            OffCpu::Frozen,
            EPOLL_WAIT,
            LateReason::Frozen,
            "did not run for 200.0 ms: its cgroup was frozen",
        ),
        (
            OffCpu::Interruptible,
            CLOCK_NANOSLEEP,
            LateReason::Blocked,
            "was blocked 200.0 ms in clock_nanosleep()",
        ),
        (
            OffCpu::Interruptible,
            100_000,
            LateReason::Blocked,
            "was blocked 200.0 ms in an unknown system call",
        ),
    ];
    for (off, syscall, reason, words) in cases {
        let mut t = enrolled();
        t.out(off, in_syscall(syscall));
        t.wait(200 * MS);
        t.wakes(server());
        t.gets_cpu(server());
        t.accepts_now();
        assert_eq!(times(t.explained()), [0, 0, 200 * MS, 0]);
        assert_eq!(t.explained().late_reason, reason);
        assert_eq!(
            t.explained().late_because,
            format!("late because server[4711] {words}")
        );
    }
}

#[test]
fn block_outside_of_a_system_call_is_a_page_fault() {
    let mut t = enrolled();
    t.blocks(Some(Syscall::None), 30 * MS, 0);
    t.accepts_now();
    assert_eq!(t.explained().late_reason, LateReason::PageFault);
    assert_eq!(
        t.explained().late_because,
        "late because server[4711] was blocked 30.00 ms in a page fault"
    );
}

#[test]
fn blocks_in_one_place_are_added_up_and_short_parts_are_left_out() {
    let mut t = enrolled();
    for _ in 0..10 {
        t.blocks(in_syscall(READ), 20 * MS, 10 * US);
    }
    t.blocks(in_syscall(POLL), 5 * MS, 0);
    t.accepts_now();
    let late = t.explained();
    assert_eq!(times(late), [0, 100 * US, 205 * MS, 0]);
    let places = late.acceptor_blocked_in.iter();
    let places: Vec<_> = places
        .map(|it| (it.syscall.as_deref(), it.ns, it.times))
        .collect();
    let expected = [(Some("read"), 200 * MS, 10), (Some("poll"), 5 * MS, 1)];
    assert_eq!(places, expected);
    assert_eq!(
        late.late_because,
        "late because server[4711] was blocked 200.0 ms in read(), 5.000 ms blocked in poll()"
    );
}

/// The wait begins in the middle of a block.
#[test]
fn only_the_part_of_a_block_within_the_wait_counts() {
    let mut t = why();
    t.enrolls(server());
    t.out(OffCpu::Interruptible, in_syscall(FSYNC));
    t.wait(70 * MS);
    t.establish(&child(2));
    t.wait(30 * MS);
    t.wakes(server());
    t.gets_cpu(server());
    t.accepts_now();
    assert_eq!(times(t.explained()), [0, 0, 30 * MS, 0]);
}
