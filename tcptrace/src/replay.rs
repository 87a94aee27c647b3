//! `tcptrace replay`: a recorded trace, told again.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::vec;

use crate::checks::Checks;
use crate::cli::{Output as Form, Replay};
use crate::clock::Clock;
use crate::exit;
use crate::fields::Line;
use crate::record::{Damaged, Recording};
use crate::sink::text::{Style, Zone};
use crate::sink::{Json, Sink, Text};
use crate::story::{Input, Story};

/// Why a replay has stopped before its end.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    #[error(transparent)]
    Damaged(#[from] Damaged),
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

/// A recorded trace: the lines that were told, in the same order.
pub struct Recorded {
    clock: Clock,
    story: Story,
    inputs: Recording<Box<dyn BufRead>>,
    /// What the last input gave and is not taken yet.
    lines: vec::IntoIter<Line>,
}

impl Recorded {
    /// Opens a file; the error names it.
    pub fn open(path: &Path) -> anyhow::Result<Recorded> {
        let opened = File::open(path)
            .map_err(anyhow::Error::from)
            .and_then(|file| Ok(Recorded::new(Box::new(BufReader::new(file)))?));
        opened.map_err(|error| anyhow::anyhow!("cannot replay {}: {error}", path.display()))
    }

    pub fn new(from: Box<dyn BufRead>) -> Result<Recorded, Damaged> {
        let (begin, inputs) = Recording::open(from)?;
        let mut story = Story::new(&begin);
        let clock = Clock::with_offset(begin.clock_offset_ns);
        let mut lines = vec![];
        story.tell(&Input::Begin(begin), &mut lines);
        Ok(Recorded {
            clock,
            story,
            inputs,
            lines: lines.into_iter(),
        })
    }

    /// The clock of the machine that was traced.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// Tells the rest to the sinks.
    pub fn tell(mut self, sinks: &mut [Box<dyn Sink>]) -> Result<(), Stopped> {
        for line in &mut self {
            let line = line?;
            sinks.iter_mut().try_for_each(|sink| sink.line(&line))?;
        }
        sinks.iter_mut().try_for_each(|sink| sink.flush())?;
        Ok(())
    }
}

impl Iterator for Recorded {
    type Item = Result<Line, Damaged>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(line) = self.lines.next() {
                return Some(Ok(line));
            }
            let mut lines = vec![];
            if !self.story.more(&mut lines) {
                match self.inputs.next()? {
                    Ok(input) => self.story.tell(&input, &mut lines),
                    Err(error) => return Some(Err(error)),
                }
            }
            self.lines = lines.into_iter();
        }
    }
}

/// Runs `tcptrace replay FILE`; the value is the exit code.
pub fn run(options: &Replay) -> anyhow::Result<u8> {
    let recorded = match Recorded::open(&options.events) {
        Ok(recorded) => recorded,
        Err(error) => {
            eprintln!("tcptrace: {error}");
            return Ok(exit::USAGE);
        }
    };
    let clock = recorded.clock();
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
    let checks = Checks::new(&options.expect);
    let mut sinks = vec![sink];
    sinks.extend(checks.sink());
    match recorded.tell(&mut sinks) {
        Ok(()) => Ok(checks.tell(exit::DONE)),
        // Whoever reads has seen enough: that is success.
        Err(Stopped::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(exit::DONE),
        Err(Stopped::Output(error)) => Err(error.into()),
        Err(Stopped::Damaged(error)) => {
            let file = options.events.display();
            eprintln!("tcptrace: cannot replay {file}: {error}");
            Ok(exit::USAGE)
        }
    }
}
