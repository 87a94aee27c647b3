//! A recorded trace, opened by path.

use std::io::{self, Read};
use std::path::Path;

use tcptrace_core::recording::{Damage, OpenError, Replay};

use super::source::{self, Position};
use crate::clock::Clock;
use crate::fields::{Line, Wanted};
use crate::sink::Sink;
use crate::stdio::plain;
use crate::trace::Begin;

type From = Box<dyn Read + Send>;

/// A recorded trace: an iterator over its lines, in the order of the live trace.
pub struct Recorded {
    replay: Replay<From>,
    position: Position,
}

impl Recorded {
    /// Opens a file, or standard input for `-`. The error names the file.
    pub fn open(path: &Path) -> anyhow::Result<Recorded> {
        Recorded::from(source::open(path), &source::name(path))
    }

    pub(super) fn from(
        opened: io::Result<(From, Position)>,
        name: &str,
    ) -> anyhow::Result<Recorded> {
        let recorded = opened
            .map_err(OpenError::from)
            .and_then(|(from, position)| {
                let replay = Replay::open(from)?;
                Ok(Recorded { replay, position })
            });
        recorded.map_err(|why| match why {
            OpenError::Unreadable(error) => {
                anyhow::anyhow!("cannot replay {name}: {}", plain(&error))
            }
            why => anyhow::anyhow!("cannot replay {name}: {why}"),
        })
    }

    /// Reads a recording from any reader.
    ///
    /// # Errors
    /// [`OpenError`] if it cannot be replayed.
    pub fn new(from: From) -> Result<Recorded, OpenError> {
        Ok(Recorded {
            replay: Replay::open(from)?,
            position: Position::default(),
        })
    }

    /// Returns the settings of the recording.
    pub fn begin(&self) -> &Begin {
        self.replay.begin()
    }

    /// Replaces the settings. Call this before taking the first line.
    #[must_use]
    pub fn with(self, begin: Begin) -> Recorded {
        Recorded {
            replay: self.replay.with(begin),
            ..self
        }
    }

    /// Produces only the wanted lines. Call this before taking the first line.
    #[must_use]
    pub fn wanting(self, wanted: Wanted) -> Recorded {
        Recorded {
            replay: self.replay.wanting(wanted),
            ..self
        }
    }

    /// Returns the clock of the traced machine.
    pub fn clock(&self) -> Clock {
        Clock::with_offset(self.begin().clock_offset_ns)
    }

    /// Returns how far the file has been read.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Returns what could not be read so far. It is complete after the last line.
    pub fn damage(&self) -> &Damage {
        self.replay.damage()
    }

    /// Passes the remaining lines to `take` until it fails.
    ///
    /// # Errors
    /// The first error of `take`.
    pub fn each<E>(&mut self, take: impl FnMut(&Line) -> Result<(), E>) -> Result<(), E> {
        self.replay.each(take)
    }

    /// Writes the remaining lines to the sinks. Returns what could not be read.
    ///
    /// # Errors
    /// The first error of a sink.
    pub fn write_to(mut self, sinks: &mut [Box<dyn Sink>]) -> io::Result<Damage> {
        self.each(|line| sinks.iter_mut().try_for_each(|sink| sink.line(line)))?;
        sinks.iter_mut().try_for_each(|sink| sink.flush())?;
        Ok(self.damage().clone())
    }
}

impl Iterator for Recorded {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        self.replay.next()
    }
}
