//! `tcptrace replay`: a recorded trace, told again.

mod conn;
mod damage;
mod lines;
mod progress;
mod recorded;
mod source;

use std::io;

use anyhow::Context;

use self::conn::Chosen;
pub use self::damage::Damage;
use self::progress::Progress;
pub use self::recorded::Recorded;
pub use self::source::Position;
use crate::checks::Checks;
use crate::cli::Replay;
use crate::exit;
use crate::fields::{Line, SCHEMA};
use crate::files::Files;
use crate::output::{self, plain};
use crate::pipeline::Output;
use crate::record::Damaged;
use crate::stdio::say;

/// Why something cannot be replayed at all.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("{}", plain(.0))]
    Unreadable(#[from] io::Error),
    #[error("it is empty; a recording is what tcptrace --write FILE has written")]
    Empty,
    #[error("it is no recording; one is what tcptrace --write FILE has written")]
    NoRecording,
    #[error("it has schema {schema}, this tcptrace reads schema {SCHEMA}; take tcptrace {version}")]
    Schema { schema: u32, version: String },
    #[error(transparent)]
    Damaged(#[from] Damaged),
}

/// Why a replay has stopped before its end.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    #[error(transparent)]
    Damaged(#[from] Damaged),
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

/// Runs `tcptrace replay FILE`; the value is the exit code.
pub fn run(options: &Replay) -> anyhow::Result<u8> {
    let name = source::name(&options.file);
    let mut files = Files::new(true);
    files.read(&options.file, &name)?;
    let (recorded, chosen) = match open(options) {
        Ok(opened) => opened,
        Err(error) => {
            say(error);
            return Ok(exit::USAGE);
        }
    };
    let clock = recorded.clock();
    let mut outputs = vec![output::stdout(&options.show, clock)];
    if let Some(path) = &options.write {
        outputs.push(output::file(files.target(path, "--write")?, clock)?);
    }
    let checks = Checks::new(&options.expect);
    outputs.extend(checks.output());
    let code = tell(recorded, chosen.as_ref(), outputs, &name)?;
    Ok(checks.tell(code))
}

/// The recording, and which lines are wanted of it.
fn open(options: &Replay) -> anyhow::Result<(Recorded, Option<Chosen>)> {
    let (path, name) = (&options.file, source::name(&options.file));
    let Some(conn) = options.conn else {
        return Ok((Recorded::open(path)?, None));
    };
    // It is read twice.
    let twice = source::Twice::open(path).with_context(|| format!("cannot replay {name}"));
    let twice = twice?;
    let chosen = Chosen::find(conn, &mut twice.recorded(&name)?);
    let chosen = chosen.with_context(|| format!("cannot replay {name}"))?;
    let chosen = chosen.with_context(|| {
        format!("{name} has no connection {conn}; its numbers stand in the column CONN")
    })?;
    Ok((twice.recorded(&name)?, Some(chosen)))
}

/// Tells what is recorded to the outputs.
fn tell(
    mut recorded: Recorded,
    chosen: Option<&Chosen>,
    mut outputs: Vec<Output>,
    name: &str,
) -> anyhow::Result<u8> {
    let mut code = exit::DONE;
    let mut progress = Progress::new(recorded.position().clone());
    let mut each = |outputs: &mut Vec<Output>,
                    act: &mut dyn FnMut(&mut Output) -> io::Result<()>| {
        outputs.retain_mut(|output| match act(output) {
            Ok(()) => true,
            // Whoever reads has seen enough: that is success.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => false,
            // The recording lacks what this form is made from.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                say(format_args!("{name}: {error}"));
                code = exit::USAGE;
                false
            }
            Err(error) => {
                say(format_args!(
                    "cannot write to {}: {}",
                    output.name,
                    plain(&error)
                ));
                code = exit::FAILURE;
                false
            }
        });
        !outputs.is_empty()
    };
    let wanted = |line: &Line| chosen.is_none_or(|chosen| chosen.take(line));
    for line in &mut recorded {
        let line = match line {
            Ok(line) => line,
            Err(error) => {
                drop(progress);
                each(&mut outputs, &mut |output| output.sink.flush());
                say(format_args!("cannot replay {name}: {error}"));
                return Ok(exit::USAGE);
            }
        };
        if let Some(progress) = &mut progress {
            progress.line();
        }
        if wanted(&line) && !each(&mut outputs, &mut |output| output.sink.line(&line)) {
            return Ok(code);
        }
    }
    drop(progress);
    if !each(&mut outputs, &mut |output| output.sink.flush()) {
        return Ok(code);
    }
    let damage = recorded.damage();
    let told = damage.to_string();
    if !told.is_empty() {
        say(format_args!("{name}: {told}"));
    }
    if !damage.is_none() {
        code = exit::FAILURE;
    }
    Ok(code)
}
