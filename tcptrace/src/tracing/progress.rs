//! Progress of a recording, shown on a terminal.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::Amount;

/// Time between two updates.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// A status line with the amount recorded so far, updated in place.
pub struct Progress {
    timer: Interval,
    shown: Option<(Instant, u64)>,
}

impl Progress {
    /// Returns `None` if stderr is no terminal.
    pub fn new() -> Option<Progress> {
        let mut timer = tokio::time::interval(PROGRESS_EVERY);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        io::stderr()
            .is_terminal()
            .then_some(Progress { timer, shown: None })
    }

    /// Waits until the next update is due.
    pub async fn due(&mut self) {
        self.timer.tick().await;
    }

    pub fn update(&mut self, amount: Amount) {
        let now = Instant::now();
        let rate = self.shown.map_or(0.0, |(at, records)| {
            let new = amount.records.saturating_sub(records);
            new as f64 / (now - at).as_secs_f64().max(0.001)
        });
        self.shown = Some((now, amount.records));
        let text = format!(
            "{} events, {rate:.0} events/s, {}, {} lost",
            amount.records,
            size(amount.bytes),
            amount.lost
        );
        // Progress is best effort: a failed write is ignored.
        let _ = write!(io::stderr(), "\r{text}\x1b[K");
    }
}

/// Moves the cursor to the next line.
impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            let _ = writeln!(io::stderr());
        }
    }
}

/// Formats a number of bytes with a binary unit.
fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{value:.1} {}", units[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_formatted_with_binary_units() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (5 << 20, "5.0 MiB"),
            (3000 << 30, "3000.0 GiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
