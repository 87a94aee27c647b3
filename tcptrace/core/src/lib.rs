//! The pure part of tcptrace: the kernel's records go in, lines about connections come out.
//!
//! This prints who waited for whom in a recording that `tcptrace record` has written:
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
//! An event travels so: [`recording`] reads what was handed over, [`decode`] turns a record into an
//! [`event::Event`], [`order`] puts events in order of time, [`correlate`] makes connections and verdicts
//! of them, [`fields`] has the lines that tell of these. [`trace`] is all of it in one, live and replayed the
//! same. [`diagram`] draws lines as a sequence diagram.
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
