//! The option `--why`.

use std::time::Duration;

use clap::Args;

use super::capturing::nanoseconds;

#[derive(Debug, Args)]
pub struct Why {
    /// Explain each wait in the accept queue that is longer than TIME (1ms if not given) by what the
    /// accepting threads did. A replay needs a recording that was made with --why
    #[arg(
        long,
        value_name = "TIME",
        value_parser = humantime::parse_duration,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "1ms",
        hide_short_help = true
    )]
    pub why: Option<Duration>,
}

impl Why {
    /// Returns the wait above which accept() is late, in nanoseconds.
    pub fn ns(&self) -> Option<u64> {
        self.why.map(nanoseconds)
    }
}
