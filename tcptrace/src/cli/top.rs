//! The options of `tcptrace top`.

use std::time::Duration;

use clap::Args;

use super::{Attach, Color, Filters, Why};
use crate::capture::Request;

#[derive(Debug, Args)]
pub struct Top {
    /// Time between two updates, such as 250ms or 2s
    #[arg(long, value_name = "TIME", default_value = "250ms", value_parser = interval)]
    pub interval: Duration,

    /// Time span of rates and quantiles
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = window)]
    pub window: Duration,

    #[command(flatten)]
    pub why: Why,

    /// End after this time, such as 30s or 5m
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,

    /// How to trace accept(); auto takes the best method that this kernel supports
    #[arg(long, value_name = "METHOD", default_value = "auto")]
    pub attach: Attach,

    /// Use colours; auto: unless NO_COLOR is set
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub color: Color,

    /// Size of the kernel's event buffer, such as 512K or 8M
    #[arg(long, value_name = "BYTES", default_value = "4M", value_parser = super::parse_bytes)]
    pub ring_size: u32,

    // The filters are the last field, because clap puts all later options under their heading, too.
    #[command(
        flatten,
        next_help_heading = "Filters (all given filters must match; several values of one filter are alternatives)"
    )]
    pub filters: Filters,
}

impl Top {
    /// Returns a message if two options contradict each other.
    pub(super) fn contradiction(&self) -> Option<&'static str> {
        let filtered =
            !self.filters.selecting.states.is_empty() || !self.filters.selecting.sides.is_empty();
        filtered.then_some(
            "top needs every state of listeners and their connections: leave --state and --side \
             out, or type a filter with /",
        )
    }

    pub fn request(&self) -> Request {
        Request {
            filter: self.filters.filter(),
            ring_bytes: self.ring_size,
            mode: self.attach.mode(),
            why_ns: self.why.ns(),
            ..Request::default()
        }
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    within(text, Duration::from_millis(50)..=Duration::from_secs(60))
}

fn window(text: &str) -> Result<Duration, String> {
    within(text, Duration::from_secs(1)..=Duration::from_secs(60))
}

fn within(text: &str, range: std::ops::RangeInclusive<Duration>) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match range.contains(&time) {
        true => Ok(time),
        false => {
            let [from, to] = [range.start(), range.end()].map(|it| humantime::format_duration(*it));
            Err(format!("a time from {from} to {to}"))
        }
    }
}
