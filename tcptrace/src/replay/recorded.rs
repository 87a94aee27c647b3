//! A recorded trace, opened by its name.

use std::io::{self, Read};
use std::path::Path;

use tcptrace_core::recording::{Damage, Refused, Replay};

use super::source::{self, Position};
use crate::clock::Clock;
use crate::fields::{Line, Wanted};
use crate::sink::Sink;
use crate::stdio::plain;
use crate::trace::Begin;

type From = Box<dyn Read + Send>;

/// A recorded trace: an iterator of the lines that were told, in the same order.
pub struct Recorded {
    replay: Replay<From>,
    position: Position,
}

impl Recorded {
    /// Opens a file, or standard input by the name `-`; the error names it.
    pub fn open(path: &Path) -> anyhow::Result<Recorded> {
        Recorded::from(source::open(path), &source::name(path))
    }

    pub(super) fn from(
        opened: io::Result<(From, Position)>,
        name: &str,
    ) -> anyhow::Result<Recorded> {
        let recorded = opened.map_err(Refused::from).and_then(|(from, position)| {
            let replay = Replay::open(from)?;
            Ok(Recorded { replay, position })
        });
        recorded.map_err(|why| match why {
            Refused::Unreadable(error) => {
                anyhow::anyhow!("cannot replay {name}: {}", plain(&error))
            }
            why => anyhow::anyhow!("cannot replay {name}: {why}"),
        })
    }

    /// Reads from anything.
    ///
    /// # Errors
    /// [`Refused`] where nothing can be replayed.
    pub fn new(from: From) -> Result<Recorded, Refused> {
        Ok(Recorded {
            replay: Replay::open(from)?,
            position: Position::default(),
        })
    }

    /// What was recorded.
    pub fn begin(&self) -> &Begin {
        self.replay.begin()
    }

    /// Has the trace told in another way, before the first line is taken.
    #[must_use]
    pub fn with(self, begin: Begin) -> Recorded {
        Recorded {
            replay: self.replay.with(begin),
            ..self
        }
    }

    /// Makes only the lines that are wanted, before the first of them is taken.
    #[must_use]
    pub fn wanting(self, wanted: Wanted) -> Recorded {
        Recorded {
            replay: self.replay.wanting(wanted),
            ..self
        }
    }

    /// The clock of the machine that was traced.
    pub fn clock(&self) -> Clock {
        Clock::with_offset(self.begin().clock_offset_ns)
    }

    /// How far the file has been read.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// What could not be read so far: all, once there are no more lines.
    pub fn damage(&self) -> &Damage {
        self.replay.damage()
    }

    /// Hands over the rest of the lines, until `take` wants no more.
    ///
    /// # Errors
    /// The first of `take`.
    pub fn each<E>(&mut self, take: impl FnMut(&Line) -> Result<(), E>) -> Result<(), E> {
        self.replay.each(take)
    }

    /// Tells the rest to the sinks; what could not be read is the value.
    ///
    /// # Errors
    /// The first of a sink.
    pub fn tell(mut self, sinks: &mut [Box<dyn Sink>]) -> io::Result<Damage> {
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
