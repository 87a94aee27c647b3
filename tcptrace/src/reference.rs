//! Descriptions of tcptrace for other programs: the completions of shells, the JSON Schema.

use clap::CommandFactory as _;

use crate::cli::{Cli, Completions};
use crate::sink;
use crate::stdio;

/// Runs `tcptrace completions`; the value is the exit code.
///
/// # Errors
/// None.
pub fn completions(options: &Completions) -> anyhow::Result<u8> {
    let mut script = vec![];
    clap_complete::generate(options.shell, &mut Cli::command(), "tcptrace", &mut script);
    Ok(stdio::code_of(stdio::print(script)))
}

/// Runs `tcptrace schema`; the value is the exit code.
///
/// # Errors
/// None.
pub fn schema() -> anyhow::Result<u8> {
    let schema = format!("{:#}\n", sink::schema::schema());
    Ok(stdio::code_of(stdio::print(schema)))
}
