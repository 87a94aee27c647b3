//! How far a long replay is, on stderr.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use super::Position;

/// How often it is told.
const EVERY: Duration = Duration::from_millis(200);

/// Lines between two looks at the clock.
const LINES: u64 = 1024;

/// One line that is written over and over, and taken off at the end.
pub struct Progress {
    position: Position,
    lines: u64,
    began: Instant,
    told: Option<Instant>,
}

impl Progress {
    /// `None` when nobody would see it, or it would run into the output.
    pub fn new(position: Position) -> Option<Progress> {
        let seen = io::stderr().is_terminal() && !io::stdout().is_terminal();
        seen.then(|| Progress {
            position,
            lines: 0,
            began: Instant::now(),
            told: None,
        })
    }

    /// A line was read.
    pub fn line(&mut self) {
        self.lines += 1;
        if self.lines.is_multiple_of(LINES) && self.told.unwrap_or(self.began).elapsed() >= EVERY {
            self.told = Some(Instant::now());
            let rate = self.lines as f64 / self.began.elapsed().as_secs_f64();
            let percent = self.position.percent();
            let percent = percent.map(|it| format!("{it} %, ")).unwrap_or_default();
            let text = format!("{percent}{} lines, {rate:.0} lines/s", self.lines);
            // Whether it can be written does not matter.
            let _ = write!(io::stderr(), "\r{text}\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.told.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
