//! The options of `tcptrace record`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Capturing, Commanding, Filters};
use crate::expect::Expectation;
use crate::recording::parts::{Keep, Stretch};

/// Write the kernel's records to a file as they come
///
/// The records are not decoded, so this costs least. `tcptrace replay` shows them in every form.
/// With --count, connections are tracked while the recording runs, which costs as much as `tcptrace
/// --depth histogram`.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Record {
    /// The recording; - is standard output
    #[arg(short, long, value_name = "FILE", default_value = "tcptrace.trace")]
    pub output: PathBuf,

    /// Begin another file when one has this size, such as 64M: FILE.0001, FILE.0002 and so on
    ///
    /// Each file can be replayed by itself. The size is measured before compression.
    #[arg(long, value_name = "SIZE", value_parser = size, conflicts_with_all = ["count", "keep"])]
    pub rotate: Option<u64>,

    /// Keep only the last N of these files
    #[arg(long, value_name = "N", requires = "rotate", conflicts_with = "keep", value_parser = clap::value_parser!(u32).range(1..))]
    pub files: Option<u32>,

    /// Keep only the last TIME or SIZE in memory, such as 60s or 256M; write it at a trigger
    ///
    /// The trigger is SIGUSR1 or --trigger. TIME uses at most 256 MiB of memory; older records that
    /// do not fit are dropped. Each trigger writes another file: FILE.0001, FILE.0002 and so on.
    #[arg(long, value_name = "TIME|SIZE", value_parser = stretch, conflicts_with = "count")]
    pub keep: Option<Stretch>,

    /// Write the kept records when this holds for the events of one second, such as
    /// accept_queue_p99>20ms
    ///
    /// The quantities are those of --expect. Connections are tracked while the recording runs,
    /// which costs as much as `tcptrace --depth histogram`.
    #[arg(
        long,
        value_name = "EXPECTATION",
        requires = "keep",
        conflicts_with = "rotate"
    )]
    pub trigger: Option<Expectation>,

    /// Go on for this time after a trigger
    #[arg(long, value_name = "TIME", requires = "keep", conflicts_with = "rotate", default_value = "5s", value_parser = humantime::parse_duration)]
    pub after: Duration,

    /// Replace FILE if it exists and is not empty
    #[arg(long, conflicts_with_all = ["rotate", "keep"])]
    pub force: bool,

    #[command(flatten)]
    pub capturing: Capturing,

    #[command(flatten)]
    pub commanding: Commanding,

    // The filters are the last field, because clap puts all later options under their heading, too.
    #[command(
        flatten,
        next_help_heading = "Filters (all given filters must match; several values of one filter are alternatives)"
    )]
    pub filters: Filters,
}

impl Record {
    /// Returns how to split or trim the recording, or `None` for one complete file.
    pub fn keep(&self) -> Option<Keep> {
        let after = self.after;
        let files = self.files;
        match (self.rotate, self.keep) {
            (Some(size), _) => Some(Keep::Files { size, files }),
            (_, Some(stretch)) => Some(Keep::Stretch { stretch, after }),
            (None, None) => None,
        }
    }
}

/// Parses a number of bytes such as 64M, at least 64K.
fn size(text: &str) -> Result<u64, String> {
    let units = [('K', 10), ('M', 20), ('G', 30)];
    let (digits, shift) = units
        .iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(*unit)?, *shift)))
        .unwrap_or((text, 0));
    let bytes = digits
        .parse::<u64>()
        .ok()
        .and_then(|it| it.checked_mul(1 << shift));
    bytes.filter(|bytes| *bytes >= 64 << 10).ok_or_else(|| {
        "a size is a number of bytes from 64K on, such as 512K, 64M or 2G".to_owned()
    })
}

/// Parses a time or a number of bytes.
fn stretch(text: &str) -> Result<Stretch, String> {
    if text.ends_with(|c: char| c.is_ascii_digit() || "KMG".contains(c)) {
        return size(text).map(Stretch::Bytes);
    }
    let time = humantime::parse_duration(text).map(Stretch::Time);
    time.map_err(|_| "a stretch is a time, such as 60s, or a size, such as 256M".to_owned())
}
