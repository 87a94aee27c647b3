//! `tcptrace replay`: writes the lines of a recorded trace.

mod conn;
mod narrow;
mod progress;
mod recorded;
mod source;

use std::io;

use anyhow::Context;

use self::conn::Chosen;
use self::narrow::narrow;
use self::progress::Progress;
pub use self::recorded::Recorded;
pub use self::source::Position;
use crate::checks::Checks;
use crate::cli::Replay;
use crate::exit;
use crate::fields::Line;
use crate::files::Files;
use crate::output;
use crate::pipeline::{self, Output};
use crate::stdio::{plain, say};

/// Runs `tcptrace replay FILE`. Returns the exit code.
pub fn run(options: &Replay) -> anyhow::Result<u8> {
    let name = source::name(&options.file);
    Files::new(true).read(&options.file, &name)?;
    let (recorded, chosen) = match open(options) {
        Ok(opened) => opened,
        Err(error) => {
            say(format_args!("{error:#}"));
            return Ok(exit::USAGE);
        }
    };
    let mut outputs = vec![output::stdout(&options.show, recorded.clock())];
    let checks = Checks::new(&options.expect);
    outputs.extend(checks.output());
    let recorded = recorded.wanting(pipeline::wanted(&outputs));
    let code = write(recorded, chosen.as_ref(), outputs, &name);
    Ok(checks.report(code))
}

/// Opens the recording. With `--conn`, also returns the filter for that connection.
fn open(options: &Replay) -> anyhow::Result<(Recorded, Option<Chosen>)> {
    let (path, name) = (&options.file, source::name(&options.file));
    let narrowed = |recorded: Recorded| {
        let begin = narrow(recorded.begin().clone(), options)?;
        anyhow::Ok(recorded.with(begin))
    };
    let Some(conn) = options.conn else {
        return Ok((narrowed(Recorded::open(path)?)?, None));
    };
    // The first pass finds the connection's other end, the second writes the lines.
    let twice = source::Twice::open(path).with_context(|| format!("cannot replay {name}"))?;
    let chosen = Chosen::find(conn, &mut narrowed(twice.recorded(&name)?)?);
    let chosen = chosen.with_context(|| {
        format!("{name} has no connection {conn}; the column CONN has the numbers")
    })?;
    Ok((narrowed(twice.recorded(&name)?)?, Some(chosen)))
}

/// Writes the lines of a recording to the outputs. Returns the exit code.
fn write(
    mut recorded: Recorded,
    chosen: Option<&Chosen>,
    mut outputs: Vec<Output>,
    name: &str,
) -> u8 {
    /// No output is open any more.
    struct Enough;

    let mut code = exit::DONE;
    let mut progress = Progress::new(recorded.position().clone());
    let mut each = |act: &mut dyn FnMut(&mut Output) -> io::Result<()>| {
        outputs.retain_mut(|output| match act(output) {
            Ok(()) => true,
            // A reader that closes the pipe early is success.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => false,
            // The recording lacks what this form needs, such as segments for pcapng.
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
        match outputs.is_empty() {
            true => Err(Enough),
            false => Ok(()),
        }
    };
    let written = recorded.each(|line: &Line| {
        if let Some(progress) = &mut progress {
            progress.line();
        }
        match chosen.is_none_or(|chosen| chosen.take(line)) {
            true => each(&mut |output| output.sink.line(line)),
            false => Ok(()),
        }
    });
    drop(progress);
    let written = written.and_then(|()| each(&mut |output| output.sink.flush()));
    if let Err(Enough) = written {
        return code;
    }
    let damage = recorded.damage();
    if !damage.is_none() {
        say(format_args!("{name}: {damage}"));
        code = exit::FAILURE;
    }
    code
}
