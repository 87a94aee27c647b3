//! tcptrace's build and test commands.

mod bench;
mod cmd;
mod dist;
mod docs;
mod ebpf;
mod files;
mod packages;
mod pictures;
mod tables;
mod tcptrace;
mod test;
mod tidy;
mod vm;
mod words;

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
  cargo xtask demo                   make and trace its own connections
  cargo xtask test --install         install what the tests need, and run them all
  cargo xtask test --kernels 6.1,6.12    the same, and the scenarios in VMs
  cargo xtask test --only unit       the tests that need neither root nor a kernel
  cargo xtask test -- late_accept    only scenarios with this in their name, and all other checks
  cargo xtask bench                  measure the cost of tracing, beside other tools
  cargo xtask vm --kernel 6.1 -- doctor    tcptrace under another kernel
  cargo xtask vm --arch aarch64 --kernel 6.12 -- demo    on another processor
  cargo xtask kernels --kernels all  compare the hooks' prototypes with kernels in VMs
  cargo xtask pictures --install     make the pictures of the README and the book
  cargo xtask docs --install         build the book in target/book, and check links
  cargo xtask dist --install         make .deb, .rpm, a static binary and crates
  cargo xtask ebpf build             rebuild the committed eBPF object
  cargo xtask ebpf check             prove that it comes from the committed source";

#[derive(Subcommand)]
enum Task {
    /// Build tcptrace and run it as root (through sudo), with the arguments after `--`
    Run {
        #[arg(last = true, value_name = "ARGS")]
        args: Vec<OsString>,
    },
    /// Build tcptrace and run `tcptrace demo` as root (through sudo)
    Demo {
        #[arg(
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_name = "ARGS"
        )]
        args: Vec<OsString>,
    },
    /// Run all checks and tests
    Test(test::Args),
    /// Measure how much tcptrace slows down the traced programs, beside other tools
    Bench(bench::Args),
    /// Run tcptrace in a VM with another kernel, with the arguments after `--`
    Vm(vm::Args),
    /// Ask kernels in VMs whether the hooked functions match the hooks' comments, how each hook
    /// attaches, and how many instructions the verifier processes, and compare the answers with the
    /// committed table
    Kernels(vm::facts::Args),
    /// Make the pictures of a report for the README and the book, from a trace made for them
    Pictures(pictures::Args),
    /// Check rules that compiler and clippy do not know: sizes, plain words, pure crates, links
    Tidy,
    /// Make the packages, the static binary and the crates in target/dist
    Dist {
        /// Install the Debian packages that this needs
        #[arg(long)]
        install: bool,
    },
    /// Check the links of all documents, and build the book with mdbook in target/book
    Docs {
        /// Install mdbook in target/tools, if it is not in PATH
        #[arg(long)]
        install: bool,
    },
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
        Task::Run { args } => tcptrace::exec(&root, &args)?,
        Task::Demo { mut args } => {
            args.insert(0, "demo".into());
            tcptrace::exec(&root, &args)?;
        }
        Task::Test(args) => {
            if !test::run(&root, &args)? {
                return Ok(ExitCode::FAILURE);
            }
        }
        Task::Bench(args) => bench::run(&root, &args)?,
        Task::Vm(args) => return vm::tcptrace(&root, &args),
        Task::Kernels(args) => {
            if args.install {
                packages::install(args.arch.packages())?;
            }
            vm::ensure_programs(args.arch)?;
            vm::facts::run(&root, &args)?;
        }
        Task::Pictures(args) => pictures::run(&root, &args)?,
        Task::Tidy => tidy::run(&root)?,
        Task::Dist { install } => {
            if install {
                packages::install(&dist::TOOLS)?;
            }
            dist::run(&root)?;
        }
        Task::Docs { install } => docs::run(&root, install)?,
        Task::Ebpf(args) => ebpf::run(&root, &args)?,
    }
    Ok(ExitCode::SUCCESS)
}
