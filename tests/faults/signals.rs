//! Signals that end a trace in good order.

use std::os::unix::process::CommandExt;
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::{SigHandler, Signal, signal};
use tests::Lab;
use tests::run::{Running, tcptrace_trace};
use tests::tracer::await_session;

use crate::ends_with_its_summary;

fn json_trace() -> Running {
    let running = Running::start(tcptrace_trace(&["-o", "json"]));
    await_session(&running);
    running
}

/// `timeout` signals its child and then the process group, to which the child belongs.
#[test]
fn a_repeated_signal_still_writes_the_summary() {
    let _lab = Lab::new();
    for signals in [
        [Signal::SIGTERM, Signal::SIGTERM],
        [Signal::SIGINT, Signal::SIGINT],
        [Signal::SIGHUP, Signal::SIGTERM],
        [Signal::SIGTERM, Signal::SIGINT],
    ] {
        let running = json_trace();
        for signal in signals {
            running.signal(signal);
            sleep(Duration::from_millis(2));
        }
        ends_with_its_summary(&running.wait());
    }
}

#[test]
fn sighup_ends_the_trace_unless_it_is_ignored() {
    let _lab = Lab::new();
    let running = json_trace();
    running.signal(Signal::SIGHUP);
    ends_with_its_summary(&running.wait());

    // Ignores SIGHUP, like nohup.
    let mut command = tcptrace_trace(&["-o", "json"]);
    // SAFETY: one async-signal-safe call.
    unsafe {
        command.pre_exec(|| {
            signal(Signal::SIGHUP, SigHandler::SigIgn)?;
            Ok(())
        });
    }
    let mut running = Running::start(command);
    await_session(&running);
    running.signal(Signal::SIGHUP);
    sleep(Duration::from_millis(500));
    assert!(running.is_running(), "SIGHUP is ignored");
    running.signal(Signal::SIGINT);
    ends_with_its_summary(&running.wait());
}
