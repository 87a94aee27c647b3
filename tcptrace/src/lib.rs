//! Traces the life of TCP connections in the kernel.
//!
//! One way through the house: `capture` loads the eBPF programs and drains their ring buffer,
//! `decode` turns its bytes into [`event::Event`]s, `order` puts them in order of time,
//! [`correlate`] makes connections and verdicts of them, [`sink`] writes the lines.

pub mod clock;
pub mod correlate;
pub mod duration;
pub mod errno;
pub mod event;
pub mod fields;
pub mod sink;
