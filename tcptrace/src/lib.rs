//! Traces the life of TCP connections in the kernel.
//!
//! One way through the house: `capture` loads the eBPF programs and drains their ring buffer,
//! `decode` turns its bytes into [`event::Event`]s, `order` puts them in order of time,
//! [`correlate`] makes connections and verdicts of them, [`sink`] writes the lines.

#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod capture;
pub mod cgroups;
pub mod checks;
pub mod cli;
pub mod clock;
pub mod command;
pub mod demo;
pub mod doctor;
pub mod exit;
pub mod expect;
pub mod explain;
pub mod failure;
pub mod files;
pub mod filter;
#[cfg(test)]
mod hostile;
pub mod output;
pub mod pipeline;
pub mod record;
pub mod recording;
pub mod replay;
pub mod report;
pub mod run;
mod signals;
pub mod sink;
pub mod stdio;
pub mod top;
pub mod tracing;

// The pure part, under the paths that it has there.
pub use tcptrace_core::{
    balance, batch, correlate, decode, depth, diagram, duration, errno, event, fields, order,
    printable, trace,
};
