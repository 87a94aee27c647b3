//! Soaks: tcptrace under a load for a long time. Each prints its figures, and fails if a goal is
//! missed.

mod churn;
mod export;
mod plateau;
mod reader;
mod tracer;

use std::path::Path;

use anyhow::Result;

pub use self::tracer::in_short;

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    kind: Option<Kind>,
    #[command(flatten)]
    tracer: tracer::Args,
}

#[derive(clap::Subcommand)]
enum Kind {
    /// `tcptrace export` while listeners and containers come and go
    Export(export::Args),
    /// A process in a container of the soak of `export`
    #[command(hide = true)]
    Member,
    /// A process of the churn
    #[command(hide = true)]
    Worker(churn::Worker),
}

pub fn run(root: &Path, args: &Args) -> Result<()> {
    match &args.kind {
        None => tracer::run(root, &args.tracer),
        Some(Kind::Export(args)) => export::run(root, args),
        Some(Kind::Member) => export::member(),
        Some(Kind::Worker(worker)) => worker.run(),
    }
}
