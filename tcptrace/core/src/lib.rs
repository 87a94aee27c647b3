//! The pure part of tcptrace: it turns the kernel side's records into lines about TCP connections.
//!
//! # From an event to a line
//!
//! 1. [`recording`] reads the inputs of a trace from a file. In a live trace, the capturing side hands
//!    over the same inputs. A [`batch`] holds the records of the hooks.
//! 2. [`decode`] turns the bytes of a record into an [`event`].
//! 3. [`order`] sorts events by time.
//! 4. [`correlate`] assigns events to connections, judges each connection by its evidence, and
//!    appends lines.
//! 5. [`fields`] defines the lines. [`depth`] selects which of them a trace writes, and [`balance`]
//!    counts lost events.
//!
//! [`trace`] runs these steps for a live and for a recorded trace alike. [`diagram`] draws the
//! lines of one connection as a sequence diagram, and [`span`] divides one into the parts of a
//! distributed trace. [`duration`], [`errno`] and [`printable`] convert
//! values to text.
//!
//! # Example
//!
//! Print the verdict and the wait in the accept queue of each connection in a recording of
//! `tcptrace record`:
//!
//! ```
//! use tcptrace_core::fields::Line;
//! use tcptrace_core::recording::Replay;
//!
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/late_accept.trace");
//! let mut replay = Replay::open(std::fs::File::open(path)?)?;
//! let mut waits = vec![];
//! for line in &mut replay {
//!     if let Line::Connection(connection) = line
//!         && let (Some(verdict), Some(ns)) = (connection.verdict, connection.accept_queue_ns)
//!     {
//!         println!("{} was {}, {ns} ns in the accept queue", connection.subject.raddr.unwrap(), verdict.name());
//!         waits.push(ns);
//!     }
//! }
//! assert!(replay.damage().is_none());
//! assert!(waits.iter().all(|&ns| ns > 0));
//! # assert_eq!(waits.len(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The crate does no I/O except through readers that the caller passes in, and reads no clock. The
//! lints of `clippy.toml` and the list of its dependencies enforce that.

#![deny(clippy::print_stdout, clippy::print_stderr)]

// In the order in which an event passes them.

pub mod batch;
pub mod recording;

pub mod decode;
pub mod event;

pub mod order;

pub mod correlate;

pub mod depth;
pub mod fields;

pub mod balance;
pub mod container;
pub mod span;
pub mod trace;

pub mod diagram;

pub mod duration;
pub mod errno;
pub mod printable;
pub mod syscall;
