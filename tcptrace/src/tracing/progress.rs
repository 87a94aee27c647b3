//! The progress of a recording, on a terminal.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::Amount;

/// How often the line is rewritten.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// One line on a terminal that says how much has been recorded, rewritten now and then.
pub struct Progress {
    timer: Interval,
    told: Option<(Instant, u64)>,
}

impl Progress {
    /// `None` when nobody would see it.
    pub fn new() -> Option<Progress> {
        let mut timer = tokio::time::interval(PROGRESS_EVERY);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        io::stderr()
            .is_terminal()
            .then_some(Progress { timer, told: None })
    }

    /// Waits until it is to be told again.
    pub async fn due(&mut self) {
        self.timer.tick().await;
    }

    pub fn tell(&mut self, amount: Amount) {
        let now = Instant::now();
        let rate = self.told.map_or(0.0, |(at, records)| {
            let new = amount.records.saturating_sub(records);
            new as f64 / (now - at).as_secs_f64().max(0.001)
        });
        self.told = Some((now, amount.records));
        let text = format!(
            "{} events, {rate:.0} events/s, {}, {} lost",
            amount.records,
            size(amount.bytes),
            amount.lost
        );
        // Whether it can be written does not matter.
        let _ = write!(io::stderr(), "\r{text}\x1b[K");
    }
}

/// Ends the line.
impl Drop for Progress {
    fn drop(&mut self) {
        if self.told.is_some() {
            let _ = writeln!(io::stderr());
        }
    }
}

/// A number of bytes for people.
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
    fn a_size_is_told_in_three_digits_or_so() {
        for (bytes, told) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (5 << 20, "5.0 MiB"),
            (3000 << 30, "3000.0 GiB"),
        ] {
            assert_eq!(size(bytes), told);
        }
    }
}
