//! `tcptrace replay`: a recorded trace, told again.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::iter;

use crate::cli::{Output as Form, Replay};
use crate::clock::Clock;
use crate::exit;
use crate::record::{Damaged, Recording};
use crate::sink::text::{Style, Zone};
use crate::sink::{Json, Sink, Text};
use crate::story::{Begin, Input, Story};

/// Why a replay has stopped before its end.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    #[error(transparent)]
    Damaged(#[from] Damaged),
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

/// Tells a recorded trace to the sinks.
pub fn replay<R: BufRead>(
    begin: Begin,
    recording: Recording<R>,
    sinks: &mut [Box<dyn Sink>],
) -> Result<(), Stopped> {
    let mut story = Story::new(&begin);
    let mut lines = vec![];
    for input in iter::once(Ok(Input::Begin(begin))).chain(recording) {
        story.tell(&input?, &mut lines);
        for line in lines.drain(..) {
            sinks.iter_mut().try_for_each(|sink| sink.line(&line))?;
        }
    }
    sinks.iter_mut().try_for_each(|sink| sink.flush())?;
    Ok(())
}

/// Runs `tcptrace replay FILE`; the value is the exit code.
pub fn run(options: &Replay) -> anyhow::Result<u8> {
    let file = options.events.display();
    let opened = File::open(&options.events)
        .map_err(|error| error.to_string())
        .and_then(|it| Recording::open(BufReader::new(it)).map_err(|error| error.to_string()));
    let (begin, recording) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            eprintln!("tcptrace: cannot replay {file}: {error}");
            return Ok(exit::USAGE);
        }
    };
    let clock = Clock::with_offset(begin.clock_offset_ns);
    let stdout = Box::new(io::stdout());
    let style = Style {
        color: false,
        verbose: options.verbose,
        explain: options.explain,
        zone: Zone::Local,
    };
    let sink: Box<dyn Sink> = match options.output {
        Form::Json => Box::new(Json::new(stdout, clock)),
        Form::Text => Box::new(Text::new(stdout, clock, style)),
    };
    match replay(begin, recording, &mut [sink]) {
        Ok(()) => Ok(exit::DONE),
        // Whoever reads has seen enough: that is success.
        Err(Stopped::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(exit::DONE),
        Err(Stopped::Output(error)) => Err(error.into()),
        Err(Stopped::Damaged(error)) => {
            eprintln!("tcptrace: cannot replay {file}: {error}");
            Ok(exit::USAGE)
        }
    }
}
