//! The options of `tcptrace explain`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Color;

#[derive(Debug, Args)]
pub struct Explain {
    /// The recording; - is standard input
    pub file: PathBuf,

    /// Only this connection, by the number of either of its ends
    #[arg(long, value_name = "N")]
    pub conn: Option<u64>,

    /// Form of the output
    #[arg(short, long, value_name = "FORM", default_value = "text")]
    pub output: ExplainForm,

    /// Draw with ASCII characters only
    #[arg(long)]
    pub ascii: bool,

    /// Use colours; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExplainForm {
    /// Prose, and a sequence diagram in 80 columns
    Text,
    /// A Mermaid sequenceDiagram, as Markdown pages show it
    Mermaid,
}

/// The argument of `--explain`: how much to add to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Explained {
    /// A sentence under each change of state
    States,
    /// A sentence under each change of state, and a sequence diagram at the end of each connection
    Diagram,
}
