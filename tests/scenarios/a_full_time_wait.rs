//! TIME_WAIT to its end, in real time. Tests start in alphabetical order, so this one starts first
//! and the others run beside it.

use std::time::Duration;

use tests::trace::NULL;
use tests::traffic::*;
use tests::{Lab, eventually};

/// TCP_TIMEWAIT_LEN (include/net/tcp.h), the kernel's 2 MSL.
const TWO_MSL: Duration = Duration::from_secs(60);

/// Upper bound on how late the end of TIME_WAIT is reported. The kernel's timers of this length
/// fire up to 2 s late (kernel/time/timer.c), and tcptrace looks for the end once a second.
const LATE: Duration = Duration::from_secs(5);

/// Upper bound on how early a timer fires. It counts from the last tick of the kernel's clock,
/// which ticks at least 100 times a second.
const JIFFY: Duration = Duration::from_millis(10);

/// Whether this namespace has a bucket in TIME_WAIT.
fn in_time_wait() -> bool {
    const TIME_WAIT: &str = " 06 ";
    let sockets = std::fs::read_to_string("/proc/thread-self/net/tcp").expect("a table");
    sockets.contains(TIME_WAIT)
}

#[test]
fn time_wait_lasts_two_msl() {
    let lab = Lab::beside_storms();
    let port = lab.port();
    let tracer = lab.trace_with(&["-p", &port.to_string()]);
    let listener = listen(port);
    let client = connect(port);
    let server = accept(&listener).stream;
    close_half(&client);
    tracer.wait_for(1, "the client to be half-closed", |line| {
        line.is("transition") && line["newstate"] == "FIN_WAIT2"
    });
    drop(server);
    tracer.wait_for_ends(2);
    drop(client);
    eventually("TIME_WAIT", || in_time_wait().then_some(()));
    // Longer than any other wait of a scenario.
    std::thread::sleep(TWO_MSL - LATE);
    assert!(in_time_wait());
    eventually("the end of TIME_WAIT", || (!in_time_wait()).then_some(()));
    let line = tracer
        .wait_for(1, "the line about it", |line| line.is("time_wait"))
        .remove(0);
    let trace = tracer.stop();

    line.shows(&[("conn", &trace.client()["conn"]), ("state", &"TIME_WAIT")]);
    let mut steps = trace.own("transition");
    let entered = steps
        .find(|step| step["newstate"] == "TIME_WAIT")
        .expect("TIME_WAIT");
    entered.shows(&[("conn", &line["conn"]), ("oldstate", &"FIN_WAIT2")]);
    let lasted = Duration::from_nanos(line.num("mono_ns") - entered.num("mono_ns"));
    assert!(
        (TWO_MSL - JIFFY..TWO_MSL + LATE).contains(&lasted),
        "{lasted:?}"
    );
    if trace.session()["hooks"]["timewait_sock"].is_null() {
        // The end is known to a second only, so the duration is null.
        line.shows(&[
            ("bucket_end", &"gone"),
            ("source", &"socket_iterator"),
            ("time_wait_ns", &NULL),
        ]);
    } else {
        line.shows(&[
            ("bucket_end", &"expired"),
            ("source", &"timewait_sock"),
            ("time_wait_ns", &(lasted.as_nanos() as u64)),
        ]);
    }
}
