//! The words that the scenarios are written in.
//!
//! A scenario is a script: it enters a [`Lab`], starts a [`Tracer`], plays traffic with the words
//! of [`traffic`] or segment by segment with a [`Peer`], stops the tracer, and looks at the [`Trace`] it left. Stopping checks what must
//! hold for every trace ([`invariants`]) and compares it with what the kernel's own ftrace saw
//! ([`witness`]), so a scenario only asserts what is special about it.
//!
//! Nothing here runs an external program or reads a file of the machine it was built on: the same
//! binary runs as a test on the host and inside a small virtual machine. It wants root, and
//!
//! * `TCPTRACE_BIN`: the tcptrace to test;
//! * `TCPTRACE_TEST_ARGS` (optional): arguments for every trace, such as `--attach kprobe`;
//! * `TCPTRACE_TEST_RECORD` (optional): print recordings ([`recording`]);
//! * `tests-helper` beside it, or in the folder above.

pub mod acceptor;
pub mod cgroup;
pub mod fast_open;
pub mod hole;
pub mod invariants;
pub mod joined;
pub mod lab;
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

/// How long anything may take that is sure to happen: a loaded machine and a kernel under software
/// emulation are slow, and only a failing test waits so long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Looks until `look` finds something.
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    look_until(what, look, || std::thread::sleep(Duration::from_millis(1)))
}

/// As [`eventually`], and keeps its CPU busy meanwhile, so as to miss no moment.
pub fn eventually_at_once<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    look_until(what, look, std::hint::spin_loop)
}

fn look_until<T>(what: &str, mut look: impl FnMut() -> Option<T>, pause: impl Fn()) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        pause();
    }
}
