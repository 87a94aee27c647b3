//! Progress of a long replay, shown on stderr.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use super::Position;

/// Time between two updates.
const EVERY: Duration = Duration::from_millis(200);

/// Number of lines between two reads of the clock.
const LINES: u64 = 1024;

/// A status line that is overwritten in place, and erased on drop.
pub struct Progress {
    position: Position,
    lines: u64,
    began: Instant,
    shown: Option<Instant>,
}

impl Progress {
    /// Returns `None` if stderr is no terminal, or if the output also goes to a terminal.
    pub fn new(position: Position) -> Option<Progress> {
        let seen = io::stderr().is_terminal() && !io::stdout().is_terminal();
        seen.then(|| Progress {
            position,
            lines: 0,
            began: Instant::now(),
            shown: None,
        })
    }

    /// Counts a line and updates the status line when it is due.
    pub fn line(&mut self) {
        self.lines += 1;
        if self.lines.is_multiple_of(LINES) && self.shown.unwrap_or(self.began).elapsed() >= EVERY {
            self.shown = Some(Instant::now());
            let rate = self.lines as f64 / self.began.elapsed().as_secs_f64();
            let percent = self.position.percent();
            let percent = percent.map(|it| format!("{it} %, ")).unwrap_or_default();
            let text = format!("{percent}{} lines, {rate:.0} lines/s", self.lines);
            // Progress is best effort: a failed write is ignored.
            let _ = write!(io::stderr(), "\r{text}\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
