//! What tcptrace makes of the kernel's records.
//!
//! [`decode`] turns bytes into [`event::Event`]s, [`order`] puts them in order of time,
//! [`correlate`] makes connections and verdicts of them, [`fields`] has the lines that tell of these.
//! [`story`] is all of it in one: live and replayed the same.
//!
//! Nothing here does I/O or reads a clock: the crate's dependencies cannot.

#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod balance;
pub mod batch;
pub mod correlate;
pub mod decode;
pub mod depth;
pub mod diagram;
pub mod duration;
pub mod errno;
pub mod event;
pub mod fields;
pub mod order;
pub mod printable;
pub mod recording;
pub mod trace;
