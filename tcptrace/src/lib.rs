//! Traces the state changes of TCP connections in the kernel.
//!
//! An event takes one path:
//!
//! - `capture` loads the eBPF programs and drains their ring buffer,
//! - `decode` turns the bytes into [`event::Event`]s,
//! - `order` sorts them by time,
//! - [`correlate`] builds connections and verdicts from them,
//! - [`sink`] writes the lines.

#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod capture;
pub mod cgroups;
pub mod checks;
pub mod cli;
pub mod clock;
pub mod command;
mod command_user;
pub mod containers;
pub mod demo;
pub mod doctor;
pub mod exit;
pub mod expect;
pub mod explain;
pub mod export;
pub mod failure;
pub mod files;
pub mod filter;
#[doc(hidden)]
pub mod fuzzing;
#[cfg(test)]
mod hostile;
pub mod output;
pub mod pipeline;
pub mod privileges;
mod processes;
pub mod record;
pub mod recording;
pub mod reference;
pub mod replay;
pub mod report;
pub mod run;
mod signals;
pub mod sink;
pub mod stdio;
mod symbols;
pub mod top;
pub mod tracing;

// Re-exports of tcptrace-core, under the same paths.
pub use tcptrace_core::{
    balance, batch, correlate, decode, depth, diagram, duration, errno, event, fields, order,
    printable, trace,
};
