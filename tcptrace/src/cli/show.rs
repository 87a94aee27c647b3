//! The output options, the same for a live trace and for a replay.

use std::io::IsTerminal;

use clap::builder::PossibleValuesParser;
use clap::{Args, ValueEnum};

use super::{Color, Explained};
use crate::sink::columns::{self, Columns};

/// Value of `--fields` that lists all fields.
const HELP: &str = "help";

#[derive(Debug, Args)]
pub struct Show {
    /// Form of the output
    #[arg(short, long, value_name = "FORM", default_value = "text")]
    pub output: Form,

    /// Columns of text and csv, such as conn,laddr,lport,verdict; `help` lists all. Without
    /// --only, shows the lines that have all these fields
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = field, hide_short_help = true)]
    pub fields: Vec<String>,

    /// Only these kinds of lines, such as connection,accept
    #[arg(
        long,
        value_name = "KINDS",
        value_delimiter = ',',
        hide_possible_values = true,
        value_parser = PossibleValuesParser::new(columns::kinds()),
        hide_short_help = true
    )]
    pub only: Vec<String>,

    /// Use colours; auto: on a terminal, unless NO_COLOR is set
    #[arg(
        long,
        value_name = "WHEN",
        default_value = "auto",
        hide_short_help = true
    )]
    pub color: Color,

    /// Show more: hooks and their limits, softirqs, each failed accept()
    #[arg(short, long)]
    pub verbose: bool,

    /// Write no header, and no summary unless something was lost
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Explain each change of state; =diagram also draws each connection
    #[arg(
        long,
        value_name = "WHAT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "states",
        hide_possible_values = true
    )]
    pub explain: Option<Explained>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// A log for people
    Text,
    /// A table for wide screens: addresses, ids and durations in columns
    Wide,
    /// JSON Lines
    Json,
    /// CSV with a header, for spreadsheets and data frames
    Csv,
    /// Trace events for ui.perfetto.dev and chrome://tracing
    Chrome,
    /// The segments as packets, for Wireshark; implies --segments
    Pcapng,
}

impl Show {
    /// Returns the list of fields, if it was asked for.
    pub fn help(&self) -> Option<String> {
        let asked = self.fields.iter().any(|name| name == HELP);
        asked.then(columns::help)
    }

    /// Returns a message if two options contradict each other.
    pub fn contradiction(&self) -> Option<&'static str> {
        let chosen = !self.fields.is_empty();
        let some = chosen || !self.only.is_empty();
        match self.output {
            Form::Chrome | Form::Pcapng if some => Some(
                "-o chrome and -o pcapng are made of all lines: use --fields and --only with -o \
                 text, csv or json",
            ),
            Form::Pcapng if std::io::stdout().is_terminal() => Some(
                "-o pcapng is binary, and this is a terminal: send it to a file, or to wireshark \
                 -k -i -",
            ),
            Form::Json if chosen => Some("JSON has all fields: use --fields with -o text or csv"),
            Form::Wide if chosen => Some("-o wide has its own columns: use --fields with -o text"),
            _ => None,
        }
    }

    /// Returns the columns, or `None` for a form without columns.
    pub fn columns(&self) -> Option<Columns> {
        match self.output {
            Form::Json | Form::Chrome | Form::Pcapng => None,
            Form::Wide => Some(Columns::wide(&self.only)),
            Form::Csv if self.fields.is_empty() => Some(Columns::all(&self.only)),
            Form::Text if self.fields.is_empty() => None,
            Form::Csv | Form::Text => Some(Columns::of(&self.fields, &self.only)),
        }
    }
}

fn field(name: &str) -> Result<String, String> {
    match name {
        HELP => Ok(name.to_owned()),
        _ => columns::check(name),
    }
}
