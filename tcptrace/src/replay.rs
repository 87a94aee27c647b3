//! `tcptrace replay`: a recorded trace, told again.

mod damage;
mod lines;
mod recorded;
mod source;

use std::io;

pub use self::damage::Damage;
pub use self::recorded::Recorded;
pub use self::source::Position;
use crate::cli::{Output as Form, Replay};
use crate::exit;
use crate::fields::SCHEMA;
use crate::record::Damaged;
use crate::sink::text::{Style, Zone};
use crate::sink::{Json, Sink, Text};

/// Why something cannot be replayed at all.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("{0}")]
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
    let file = options.events.display();
    match recorded.tell(&mut [sink]) {
        Ok(damage) => {
            let text = damage.to_string();
            if !text.is_empty() {
                eprintln!("tcptrace: {file}: {text}");
            }
            Ok(if damage.is_none() {
                exit::DONE
            } else {
                exit::FAILURE
            })
        }
        // Whoever reads has seen enough: that is success.
        Err(Stopped::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(exit::DONE),
        Err(Stopped::Output(error)) => Err(error.into()),
        Err(Stopped::Damaged(error)) => {
            eprintln!("tcptrace: cannot replay {file}: {error}");
            Ok(exit::USAGE)
        }
    }
}
