//! The settings of a capture.

use crate::filter::Filter;

/// Default size of the ring buffer, in bytes.
pub const RING_BYTES: u32 = 4 << 20;

/// The settings of a capture.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub filter: Filter,
    /// Size of the ring buffer in bytes, rounded up to a power of two; 0 for [`RING_BYTES`].
    pub ring_bytes: u32,
    /// Upper bound on accept() calls tracked at the same time; 0 for the object's default.
    pub calls: u32,
    /// `--attach`: fentry, kprobe or syscall, see [`HookRow::methods`].
    pub mode: Option<String>,
    /// Attach method of the state hook, by name, and of other hooks that have a method of this
    /// name. `None`: the first that loads.
    pub state_method: Option<String>,
    /// Also capture segments on the wire.
    pub segments: bool,
    /// Also capture the scheduling of acceptors, to explain waits in the accept queue that are
    /// longer than this, in nanoseconds.
    pub why_ns: Option<u64>,
}
