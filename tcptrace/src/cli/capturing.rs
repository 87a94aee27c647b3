//! The options of live captures: a trace and a recording.

use std::time::Duration;

use clap::Args;

use super::{Attach, Filters, Why};
use crate::capture::Request;

#[derive(Debug, Args)]
pub struct Capturing {
    /// End after this time, such as 500ms, 5s or 1m30s
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,

    /// End when this many connections have ended
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), hide_short_help = true)]
    pub count: Option<u64>,

    /// How to trace accept(); auto takes the best method that this kernel supports
    #[arg(
        long,
        value_name = "METHOD",
        default_value = "auto",
        hide_short_help = true
    )]
    pub attach: Attach,

    /// Also show the segments on the wire that open and close connections, as tcpdump does
    #[arg(long, hide_short_help = true)]
    pub segments: bool,

    #[command(flatten)]
    pub why: Why,

    /// Compress the recording, on a thread of its own
    #[arg(long, hide_short_help = true)]
    pub zstd: bool,

    /// Size of the kernel's event buffer, such as 512K or 8M
    #[arg(long, value_name = "BYTES", default_value = "4M", value_parser = super::parse_bytes, hide_short_help = true)]
    pub ring_size: u32,

    /// Force the attach method of the tracepoint hooks, for tests: tp_btf, raw_tp or tracepoint
    #[arg(long, value_name = "METHOD", hide = true)]
    pub state_method: Option<String>,

    /// Limit the accept() calls that are tracked at the same time, for tests
    #[arg(long, value_name = "N", hide = true, default_value_t = 0)]
    pub calls: u32,
}

pub(super) fn nanoseconds(time: Duration) -> u64 {
    time.as_nanos().try_into().unwrap_or(u64::MAX)
}

impl Capturing {
    pub fn request(&self, filters: &Filters) -> Request {
        Request {
            filter: filters.filter(),
            ring_bytes: self.ring_size,
            calls: self.calls,
            mode: self.attach.mode(),
            state_method: self.state_method.clone(),
            segments: self.segments,
            why_ns: self.why.ns(),
        }
    }
}
