//! The options of `tcptrace record`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::{Capturing, Filters};

/// Write the kernel's records to a file as they come
///
/// Nothing is decoded, so this costs least; `tcptrace replay` shows what the records tell, in every form.
/// Only with --count are connections followed while it runs, which costs as much as `tcptrace --depth
/// histogram`.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Record {
    /// The recording; - is standard output
    #[arg(short, long, value_name = "FILE", default_value = "tcptrace.trace")]
    pub output: PathBuf,

    #[command(flatten)]
    pub capturing: Capturing,

    /// Record while this command runs, and end with its exit code; its output goes to stderr
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,

    // At the end: clap puts what follows under the same heading.
    #[command(
        flatten,
        next_help_heading = "Filters (each that is given must hold; lists and repeats add up)"
    )]
    pub filters: Filters,
}
