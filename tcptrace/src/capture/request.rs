//! What to capture.

use crate::filter::Filter;

/// Size of the ring buffer in bytes unless asked otherwise.
pub const RING_BYTES: u32 = 4 << 20;

/// What to capture, and how.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub filter: Filter,
    /// Size of the ring buffer in bytes, rounded up to a power of two; 0 for [`RING_BYTES`].
    pub ring_bytes: u32,
    /// How many accept() calls in flight can be remembered; 0 for what the object says.
    pub calls: u32,
    /// `--attach`: fentry, kprobe or syscall, see [`HookRow::carriers`].
    pub mode: Option<String>,
    /// Carrier to take for the state hook, by [`Carrier::name`], and for other hooks where they have
    /// one of that name; the first that loads when absent.
    pub state_method: Option<String>,
    /// Whether to capture segments on the wire, too.
    pub segments: bool,
}
