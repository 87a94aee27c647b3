//! tcptrace's build and test commands.

mod cmd;
mod ebpf;
mod files;
mod run;
mod tidy;

use std::{ffi::OsString, process::ExitCode};

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
  cargo xtask run -- --port 7878     build tcptrace and trace port 7878
  cargo xtask demo                   let it play and trace its own connections
  cargo xtask ebpf build             rebuild the committed eBPF object
  cargo xtask ebpf check             prove that it comes from the committed source";

#[derive(Subcommand)]
enum Task {
    /// Build tcptrace and run it as root (through sudo), with the arguments after `--`
    Run {
        #[arg(last = true, value_name = "ARGS")]
        args: Vec<OsString>,
    },
    /// The same for `tcptrace demo`
    Demo {
        #[arg(
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_name = "ARGS"
        )]
        args: Vec<OsString>,
    },
    /// Hold the source to the house's rules: who may name whom, SAFETY comments, sizes
    Tidy,
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
        Task::Run { args } => run::tcptrace(&root, &args)?,
        Task::Demo { mut args } => {
            args.insert(0, "demo".into());
            run::tcptrace(&root, &args)?;
        }
        Task::Tidy => tidy::run(&root)?,
        Task::Ebpf(args) => ebpf::run(&root, &args)?,
    }
    Ok(ExitCode::SUCCESS)
}
