//! The eBPF object. Users embed the committed one, so they build with stable Rust alone. These
//! commands build it from source and prove that it matches the source.

mod build;
mod buildinfo;
mod check;
mod empty;
mod setup;
mod strip;
mod toolchain;

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use clap::Subcommand;

pub use self::setup::compiler;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Make the eBPF toolchain under target/ebpf-toolchain/ (a minute and 850 MB, once)
    Setup,
    /// Rebuild the object and its BUILDINFO under tcptrace/ebpf/, to be committed
    Build {
        /// Build the diagnostics object, which also logs, to target/ebpf/tcptrace-log.bpf.o
        #[arg(long)]
        log: bool,
    },
    /// Prove that the committed object comes from the present source
    Check,
}

pub fn run(root: &Path, args: &Args) -> Result<()> {
    match args.task {
        Task::Setup => {
            let toolchain = setup::make(root)?;
            println!("eBPF toolchain: {toolchain}");
            Ok(())
        }
        Task::Build { log: true } => build::diagnostics(root),
        Task::Build { log: false } => build::committed(root),
        Task::Check => check::run(root),
    }
}

/// Runs `setup` and `check`, for the test command.
pub fn prove(root: &Path) -> Result<()> {
    setup::make(root)?;
    check::run(root)
}

/// Returns the committed object with empty programs.
pub fn empty(root: &Path) -> Result<Vec<u8>> {
    let path = build::object_path(root);
    let object = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    empty::programs(&object)
}
