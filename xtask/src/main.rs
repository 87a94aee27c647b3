//! tcptrace's build and test commands.

mod cmd;
mod ebpf;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// tcptrace's build and test commands
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask ebpf build             rebuild the committed eBPF object
  cargo xtask ebpf check             prove that it comes from the committed source";

#[derive(Subcommand)]
enum Task {
    /// Make the eBPF toolchain, build the eBPF object, check the committed one
    Ebpf(ebpf::Args),
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    let root = cmd::root()?;
    match task {
        Task::Ebpf(args) => ebpf::run(&root, &args)?,
    }
    Ok(ExitCode::SUCCESS)
}
