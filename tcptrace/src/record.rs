//! `tcptrace record`: the kernel's records to a file, undecoded.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::checks::Trigger;
use crate::cli::Record;
use crate::clock::Clock;
use crate::command::Command;
use crate::depth::Depth;
use crate::exit::Usage;
use crate::files::{Files, Target};
use crate::recording::parts::Keep;
use crate::run::to_the_end;
use crate::tracing::{Amount, Outputs, Place, Plan, To, Tracing, Until};

/// How often progress is told.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// Runs `tcptrace record`; the value is the exit code.
pub async fn run(options: &Record) -> anyhow::Result<u8> {
    // All that can be wrong with the command line is found before anything is attached.
    let command = Command::find(&options.command)?;
    let clock = Clock::measure();
    let is_stdout = options.output.as_os_str() == "-";
    let keep = options.keep();
    let place = match keep {
        Some(_) if is_stdout => {
            let why =
                "standard output is one file; choose a name for several: tcptrace record -o FILE";
            return Err(Usage(why.into()).into());
        }
        Some(keep) => Place::Parts(options.output.clone(), keep),
        None => Place::File(target(options, is_stdout)?),
    };
    let trigger = options.trigger.as_ref().map(Trigger::new);
    let triggers = match keep {
        Some(Keep::Stretch { .. }) => Some(Triggers::new(trigger.as_ref())?),
        _ => None,
    };
    let request = options.capturing.request(&options.filters);
    let plan = Plan {
        request: &request,
        clock,
        selection: options.filters.selection(),
        depth: Depth::Events,
        count: options.capturing.count,
    };
    let zstd = options.capturing.zstd;
    let open = || {
        Ok(Outputs {
            lines: trigger.iter().map(Trigger::output).collect(),
            recording: Some(To { place, zstd }),
        })
    };
    let tracing = Tracing::start(plan, open)?;
    let until = Until {
        duration: options.capturing.duration,
        hint: None,
        progress: Progress::new(),
        triggers,
    };
    to_the_end(tracing, until, command).await
}

/// The one file of a recording.
fn target(options: &Record, is_stdout: bool) -> anyhow::Result<Target> {
    let mut files = Files::new(false);
    match is_stdout {
        true if io::stdout().is_terminal() => {
            let why = "a recording is not for a terminal; choose a file: tcptrace record -o FILE";
            Err(Usage(why.into()).into())
        }
        true => files.stdout(),
        false => files.target(&options.output, "-o"),
    }
}

/// Events that have the stretch written that a flight recorder keeps.
pub struct Triggers {
    signal: Signal,
    trigger: Option<(Arc<Notify>, String)>,
}

impl Triggers {
    /// Takes SIGUSR1 from now on.
    ///
    /// # Errors
    /// The operating system's.
    fn new(trigger: Option<&Trigger>) -> io::Result<Triggers> {
        Ok(Triggers {
            signal: signal(SignalKind::user_defined1())?,
            trigger: trigger.map(|it| (it.fired(), format!("{} in the last second", it.text()))),
        })
    }

    /// Waits for the next one, and says what it is.
    pub async fn next(&mut self) -> String {
        let Triggers { signal, trigger } = self;
        let fired = async {
            match trigger {
                Some((fired, _)) => fired.notified().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = signal.recv() => "SIGUSR1".to_owned(),
            () = fired => trigger.as_ref().map_or_else(String::new, |(_, text)| text.clone()),
        }
    }
}

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
