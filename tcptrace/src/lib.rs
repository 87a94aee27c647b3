//! Traces the life of TCP connections in the kernel.
//!
//! One way through the house: `capture` loads the eBPF programs and drains their ring buffer,
//! `decode` turns its bytes into [`event::Event`]s, `order` puts them in order of time,
//! [`correlate`] makes connections and verdicts of them, [`sink`] writes the lines.

#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod balance;
mod bounded;
pub mod capture;
pub mod checks;
pub mod cli;
pub mod clock;
pub mod command;
pub mod correlate;
pub mod decode;
pub mod demo;
pub mod depth;
pub mod diagram;
pub mod doctor;
pub mod duration;
pub mod errno;
pub mod event;
pub mod exit;
pub mod expect;
pub mod explain;
pub mod fields;
pub mod files;
pub mod filter;
#[cfg(test)]
mod hostile;
pub mod order;
pub mod output;
pub mod pipeline;
pub mod printable;
pub mod record;
pub mod replay;
pub mod report;
pub mod run;
mod signals;
pub mod sink;
pub mod stdio;
pub mod story;
pub mod top;
pub mod zst;
