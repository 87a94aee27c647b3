//! Sums of the waits by reason: per listener in the summary, per port in histogram lines.

use super::*;
use crate::fields::{Depth, LateTimes};

/// Plays a connection that waits 20 ms for a blocked server and 10 ms for a CPU, and one that does
/// not wait. Returns their waits by reason.
fn one_late_of_two(t: &mut Trace) -> LateTimes {
    t.enrolls(server());
    t.establish(&child(2));
    t.blocks(in_syscall(READ), 20 * MS, 10 * MS);
    t.accepts_now();
    t.establish(&child(3));
    t.accept(listener().accepts(&child(3), Called::At(t.now)));
    LateTimes {
        late_connections: 1,
        late_cpu_ns: 10 * MS,
        late_blocked_ns: 20 * MS,
        ..LateTimes::default()
    }
}

#[test]
fn summary_of_a_listener_adds_up_its_waits_by_reason() {
    let mut t = why();
    let expected = one_late_of_two(&mut t);
    assert_eq!(t.finish().listeners[0].late, Some(expected));
    let mut t = listening();
    one_late_of_two(&mut t);
    assert_eq!(t.finish().listeners[0].late, None);
}

#[test]
fn histogram_line_adds_up_the_waits_of_its_connections() {
    let mut t = why();
    t.correlator.depth = Depth::Histogram;
    t.lines.clear();
    let expected = one_late_of_two(&mut t);
    t.finish();
    let [Line::Histogram(line)] = &t.lines[..] else {
        panic!("{:?}", t.lines);
    };
    assert_eq!(line.went_well, 2);
    assert_eq!(line.late, Some(expected));
}

/// The line of a connection that did not go well refers to its stack; counts refer to none.
#[test]
fn only_lines_that_are_written_have_stack_lines() {
    let mut t = why();
    t.correlator.depth = Depth::Histogram;
    t.lines.clear();
    t.correlator.stacks(&[saving()]);
    t.enrolls(server());
    t.establish(&child(2));
    t.establish(&child(3));
    t.saves();
    t.accepts_now();
    t.accept(listener().accepts(&child(3), Called::At(t.now)));
    t.tick();
    assert_eq!(t.lines, []);
    t.set(SetState {
        err: Some(ECONNRESET),
        held: true,
        ..child(2).enters(Established, Close)
    });
    assert!(
        matches!(&t.lines[..], [Line::Stack(_), Line::Connection(_)]),
        "{:?}",
        t.lines
    );
}
