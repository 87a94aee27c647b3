//! The library of the scenarios.
//!
//! A scenario is a script. It enters a [`Lab`] and starts a [`Tracer`]. It makes traffic with the
//! functions of [`traffic`], or segment by segment with a [`Peer`]. Then it stops the tracer and
//! checks the resulting [`Trace`].
//!
//! Stopping checks the [`invariants`] of every trace, and compares it with the kernel's own ftrace
//! ([`witness`]). A scenario only asserts what is special about it.
//!
//! Nothing here runs an external program or reads a file of the build machine: the same binary runs
//! as a test on the host and inside a small virtual machine. It needs root, and
//!
//! * `TCPTRACE_BIN`: the tcptrace to test;
//! * `TCPTRACE_TEST_ARGS` (optional): arguments for every trace, such as `--attach kprobe`;
//! * `TCPTRACE_TEST_RECORD` (optional): print recordings ([`recording`]);
//! * `tests-helper` beside the test binary, or in the folder above.

pub mod acceptor;
pub mod capabilities;
pub mod cgroup;
pub mod container;
pub mod fast_open;
pub mod invariants;
pub mod known_fields;
pub mod known_gap;
pub mod lab;
mod line;
pub mod mounts;
pub mod netns;
pub mod packets;
pub mod peer;
pub mod programs;
pub mod recording;
pub mod run;
pub mod schema;
pub mod stacks;
pub mod task;
pub mod terminal;
pub mod trace;
pub mod tracer;
pub mod traffic;
pub mod veth;
pub mod witness;

pub use lab::Lab;
pub use peer::Peer;
pub use trace::{Line, Trace};
pub use tracer::Tracer;

use std::time::{Duration, Instant};

/// Timeout for anything that is certain to happen. It is long because loaded machines and emulated
/// kernels are slow; only a failing test waits for all of it.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// Calls `poll` every millisecond until it returns something.
pub fn eventually<T>(what: &str, poll: impl FnMut() -> Option<T>) -> T {
    poll_until(what, poll, || std::thread::sleep(Duration::from_millis(1)))
}

/// Like [`eventually`], but busy-waits to miss no moment.
pub fn eventually_at_once<T>(what: &str, poll: impl FnMut() -> Option<T>) -> T {
    poll_until(what, poll, std::hint::spin_loop)
}

fn poll_until<T>(what: &str, mut poll: impl FnMut() -> Option<T>, pause: impl Fn()) -> T {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(found) = poll() {
            return found;
        }
        assert!(Instant::now() < deadline, "timed out waiting for {what}");
        pause();
    }
}
