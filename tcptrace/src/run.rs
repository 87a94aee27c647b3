//! `tcptrace [OPTIONS] [-- COMMAND…]`: one live trace from start to end.

use std::collections::BTreeMap;
use std::io;

use rustix::thread::CapabilitySet;

use crate::checks::Checks;
use crate::cli::{Trace, hints};
use crate::clock::Clock;
use crate::command::{self, Command, Running};
use crate::exit;
use crate::files::Files;
use crate::output;
use crate::stdio::{plain, say};
use crate::tracing::{Needed, Outputs, Place, Plan, To, Tracing, Until, filters};

/// Runs the trace. Returns the exit code.
pub async fn run(trace: &Trace) -> anyhow::Result<u8> {
    // Check the whole command line before attaching anything.
    let command = Command::find(&trace.commanding)?;
    let clock = Clock::measure();
    let mut files = Files::new(true);
    let write = trace.write.as_ref();
    let write = write
        .map(|path| files.target(path, "--write", trace.force))
        .transpose()?;
    let checks = Checks::new(&trace.expect);

    let request = trace.request();
    let selection = trace.filters.selection();
    let hint = waiting_for(&filters(&request.filter, &selection));
    // Truncate existing files only after the trace has started.
    let open = || {
        let stdout = output::stdout(&trace.show, clock);
        let zstd = trace.capturing.zstd;
        Ok(Outputs {
            lines: [stdout].into_iter().chain(checks.output()).collect(),
            recording: write.map(|target| {
                let place = Place::File(target);
                To { place, zstd }
            }),
        })
    };
    let plan = Plan {
        request: &request,
        clock,
        selection,
        depth: trace.depth.into(),
        count: trace.capturing.count,
    };
    let tracing = Tracing::start(plan, open)?;
    let until = Until {
        duration: trace.capturing.duration,
        hint: (trace.commanding.command.is_empty() && !trace.show.quiet).then_some(hint),
        progress: None,
        triggers: None,
    };
    let filtered = !request.filter.describe().is_empty();
    let lost = || hints::lost(request.ring_bytes, filtered, false);
    let code = to_the_end(tracing, until, command, lost).await?;
    Ok(checks.report(code))
}

/// Traces until the end. Reports failed outputs on stderr, and the line `lost` if events were lost.
/// Returns the exit code.
pub async fn to_the_end(
    mut tracing: Tracing,
    until: Until,
    command: Option<Command>,
    lost: impl Fn() -> String,
) -> anyhow::Result<u8> {
    let mut running = command.map(Command::start).transpose()?;
    tracing.confine(Needed {
        capabilities: running
            .as_ref()
            .map_or(CapabilitySet::empty(), Running::needs),
        ..Needed::NOTHING
    })?;
    let mut status = tracing.trace(until, running.as_mut()).await?;
    if let (Some(running), None) = (&mut running, status) {
        status = running.end().await?;
    }
    let outcome = tracing.end().await?;
    let mut code = status.map_or(exit::DONE, command::exit_code);
    if outcome.lost {
        say(lost());
    }
    for failed in outcome.failed {
        // A reader that closes the pipe early is success.
        if failed.error.kind() != io::ErrorKind::BrokenPipe {
            say(format_args!(
                "cannot write to {}: {}; the trace ends here",
                failed.name,
                plain(&failed.error)
            ));
            code = exit::FAILURE;
        }
    }
    Ok(code)
}

/// Returns the hint to show when no event arrives.
fn waiting_for(filters: &BTreeMap<String, String>) -> String {
    let conditions: Vec<String> = filters
        .iter()
        .map(|(name, value)| format!("{} {value}", name.replace('_', " ")))
        .collect();
    let what = match conditions.is_empty() {
        true => "any TCP connection".to_owned(),
        false => format!("TCP connections with {}", conditions.join(", ")),
    };
    format!("nothing yet; waiting for {what} (Ctrl-C ends; `tcptrace demo` needs no server)")
}
