//! `tcptrace record`: writes the kernel's records to a file without decoding them.

use std::io::{self, IsTerminal};

use crate::checks::Trigger;
use crate::cli::{Record, hints};
use crate::clock::Clock;
use crate::command::Command;
use crate::depth::Depth;
use crate::exit::Usage;
use crate::files::{Files, Target};
use crate::recording::parts::Keep;
use crate::run::to_the_end;
use crate::tracing::{Outputs, Place, Plan, Progress, To, Tracing, Triggers, Until};

/// Runs `tcptrace record`. Returns the exit code.
pub async fn run(options: &Record) -> anyhow::Result<u8> {
    // Check the whole command line before attaching anything.
    let command = Command::find(&options.commanding)?;
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
    let filtered = !request.filter.describe().is_empty();
    let lost = || hints::lost(request.ring_bytes, filtered, true);
    to_the_end(tracing, until, command, lost).await
}

/// Opens the output of a recording that is a single file.
fn target(options: &Record, is_stdout: bool) -> anyhow::Result<Target> {
    let mut files = Files::new(false);
    match is_stdout {
        true if io::stdout().is_terminal() => {
            let why = "a recording is not for a terminal; choose a file: tcptrace record -o FILE";
            Err(Usage(why.into()).into())
        }
        true => files.stdout(),
        false => files.target(&options.output, "-o", options.force),
    }
}
