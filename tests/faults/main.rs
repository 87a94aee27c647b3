//! Faults around tcptrace: full disks, signals, readers that are gone, limits, missing file systems.
//!
//! Each test asserts the exit code and the exact message, that nothing stays attached, that the
//! counts add up, and that what was said is right.
//!
//! `cargo xtask test --only faults` runs them as root.

mod clocks;
mod cpus;
mod hidden;
mod kills;
mod limits;
mod many;
mod namespaces;
mod outputs;
mod pressure;
mod readers;
mod signals;
mod stopped_tracer;
mod terminals;

use tests::programs::Programs;
use tests::run::{Ended, Running};

pub const DONE: i32 = 0;
pub const FAILURE: i32 = 1;

/// Waits until a tracer has ended by itself, and until its programs have left the kernel.
#[track_caller]
pub fn ended(running: Running, programs: &Programs) -> Ended {
    let ended = running.wait();
    programs.wait_until_gone();
    ended
}

/// Asserts that a process ended with this code and said exactly this, without a line break.
#[track_caller]
pub fn says(ended: &Ended, code: i32, message: &str) {
    let line = match message {
        "" => String::new(),
        _ => format!("{message}\n"),
    };
    assert_eq!(
        (ended.code, &*ended.stderr),
        (Some(code), &*line),
        "after {} bytes of output",
        ended.stdout.len()
    );
}

/// Asserts that a JSON trace ended with success, without a message, with its summary.
#[track_caller]
pub fn ends_with_its_summary(ended: &Ended) {
    says(ended, DONE, "");
    let last = ended.stdout.lines().last().unwrap_or_default();
    assert!(last.contains(r#""event":"summary""#), "{last}");
}
