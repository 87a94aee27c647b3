//! Missing and contradictory evidence: the time is unseen, and nothing is guessed.

use super::*;

#[test]
fn time_before_the_first_accept_call_is_unseen() {
    let mut t = why();
    t.establish(&child(2));
    t.wait(30 * MS);
    t.enrolls(server());
    t.wait(10 * MS);
    t.accepts_now();
    assert_eq!(times(t.explained()), [10 * MS, 0, 0, 30 * MS]);
    assert_eq!(t.explained().late_reason, LateReason::Unseen);
    assert_eq!(
        t.explained().late_because,
        "what server[4711] did for 30.00 ms is not known: it had not called accept() in the trace \
         yet, 10.00 ms running"
    );
}

#[test]
fn acceptor_without_scheduling_events_is_unseen() {
    let mut t = why();
    t.establish(&child(2));
    t.wait(30 * MS);
    t.accepts_now();
    assert_eq!(times(t.explained()), [0, 0, 0, 30 * MS]);
    assert_eq!(
        t.explained().late_because,
        "what server[4711] did is not known: it had not called accept() in the trace yet"
    );
}

#[test]
fn time_around_a_loss_is_unseen() {
    let mut t = enrolled();
    t.wait(10 * MS);
    t.out(OffCpu::Interruptible, in_syscall(READ));
    t.lost += 1;
    t.wait(20 * MS);
    t.wakes(server());
    t.wait(5 * MS);
    t.gets_cpu(server());
    t.wait(MS);
    t.accepts_now();
    assert_eq!(times(t.explained()), [11 * MS, 0, 0, 25 * MS]);
    assert!(t.explained().late_because.contains("events were lost"));
}

/// The loss becomes known at an event of another thread.
#[test]
fn time_since_the_last_event_before_a_loss_is_unseen() {
    let mut t = enrolled();
    t.wait(10 * MS);
    t.blocks(in_syscall(READ), 10 * MS, 0);
    t.wait(MS);
    t.lost += 1;
    t.set(child(3).enters(Listen, SynRecv));
    t.wait(9 * MS - US);
    t.accepts_now();
    assert_eq!(times(t.explained()), [10 * MS, 0, 10 * MS, 10 * MS]);
}

#[test]
fn contradictory_events_make_the_time_in_between_unseen() {
    let mut t = enrolled();
    t.wait(2 * MS);
    // A switch to the thread was missed.
    t.out(RUNNABLE, None);
    t.wait(3 * MS);
    t.out(OffCpu::Interruptible, in_syscall(READ));
    t.wait(4 * MS);
    // A wake-up was missed.
    t.gets_cpu(server());
    t.wait(5 * MS);
    // A switch away from the thread was missed.
    t.gets_cpu(server());
    t.wait(6 * MS);
    t.accepts_now();
    assert_eq!(times(t.explained()), [8 * MS, 0, 0, 12 * MS]);
    let because = "what server[4711] did for 12.00 ms is not known: an event of it is missing, \
                   8.000 ms running";
    assert_eq!(t.explained().late_because, because);
}

/// The waker sees the thread that is about to block before the scheduler switches.
#[test]
fn wake_up_just_before_the_switch_makes_the_thread_runnable() {
    let mut t = enrolled();
    t.wait(10 * MS);
    t.wakes(server());
    t.wait(US);
    t.out(OffCpu::Interruptible, in_syscall(READ));
    t.wait(3 * MS);
    t.gets_cpu(server());
    t.accepts_now();
    assert_eq!(times(t.explained()), [10 * MS + US, 3 * MS, 0, 0]);
}

#[test]
fn late_event_makes_the_time_unseen_until_the_next() {
    let mut t = enrolled();
    t.wait(10 * MS);
    t.gets_cpu(server());
    t.out(OffCpu::Interruptible, in_syscall(READ));
    t.wait(5 * MS);
    let now = t.now;
    t.now -= 6 * MS;
    t.correlator.late();
    t.wakes(server());
    t.now = now;
    t.gets_cpu(server());
    t.accepts_now();
    assert_eq!(times(t.explained()), [0, 0, 0, 15 * MS]);
}

#[test]
fn trace_without_the_hook_says_so() {
    let mut t = trace();
    t.correlator = Correlator::new(START).with_why(MS, Machine::X86_64, false);
    t.set(listener().enters_by(server(), Close, Listen));
    t.establish(&child(2));
    t.wait(5 * MS);
    t.accepts_now();
    let because = "what server[4711] did is not known: no hook sees the scheduler";
    assert_eq!(t.explained().late_because, because);
}

#[test]
fn system_calls_of_an_unknown_machine_have_no_name() {
    let mut t = enrolled();
    t.correlator = Correlator::new(START).with_why(MS, Machine::of("riscv64"), true);
    t.set(listener().enters_by(server(), Close, Listen));
    t.enrolls(server());
    t.establish(&child(2));
    t.blocks(in_syscall(63), 5 * MS, 0);
    t.accepts_now();
    assert_eq!(t.explained().late_reason, LateReason::Blocked);
    assert_eq!(t.explained().acceptor_blocked_in[0].syscall, None);
}

/// Intervals are bounded, and the forgotten ones are unseen.
#[test]
fn forgotten_activities_are_unseen() {
    let mut t = enrolled();
    for _ in 0..20_000 {
        t.blocks(in_syscall(READ), US, US);
        t.wait(US);
    }
    t.accepts_now();
    let [running, runnable, blocked, unseen] = times(t.explained());
    // 16384 intervals are kept; the last is running.
    assert_eq!(unseen, 60_000 * US - 16_384 * US);
    assert_eq!(running + runnable + blocked, 16_384 * US);
    assert!(t.explained().late_because.contains("it was too long ago"));
}
