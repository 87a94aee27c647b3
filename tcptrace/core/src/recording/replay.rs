//! Replay of a recorded trace as an iterator of lines.

use std::io::Read;

use super::{Damage, Item, OpenError, Reader};
use crate::fields::{Line, Wanted};
use crate::trace::{Begin, Trace};

/// A recorded trace. It returns the lines that the live trace wrote, in the same order.
pub struct Replay<R> {
    begin: Begin,
    reader: Reader<R>,
    trace: Trace,
    /// Lines that are not taken yet, in reverse order.
    lines: Vec<Line>,
    /// True if all inputs of the recording were pushed into the trace.
    is_read: bool,
}

impl<R: Read> Replay<R> {
    /// Opens a recording.
    ///
    /// # Errors
    /// [`OpenError`] if nothing of it can be replayed.
    pub fn open(from: R) -> Result<Replay<R>, OpenError> {
        let (begin, reader) = Reader::open(from)?;
        Ok(Replay {
            trace: Trace::new(&begin),
            begin,
            reader,
            lines: vec![],
            is_read: false,
        })
    }

    /// Returns the beginning of the trace.
    pub fn begin(&self) -> &Begin {
        &self.begin
    }

    /// Replaces the beginning, for example for another selection. Call it before the first line is
    /// taken.
    #[must_use]
    pub fn with(self, begin: Begin) -> Replay<R> {
        Replay {
            trace: Trace::new(&begin),
            begin,
            ..self
        }
    }

    /// Restricts the replay to the lines that are wanted, see [`Trace::wanting`].
    #[must_use]
    pub fn wanting(self, wanted: Wanted) -> Replay<R> {
        Replay {
            trace: self.trace.wanting(wanted),
            ..self
        }
    }

    /// Returns the damage found so far. It is complete when there are no more lines.
    pub fn damage(&self) -> &Damage {
        self.reader.damage()
    }

    /// Reads until there are new lines; returns false at the end. Earlier lines must have been
    /// taken.
    fn read(&mut self) -> bool {
        loop {
            while self.trace.advance(&mut self.lines) {
                if !self.lines.is_empty() {
                    return true;
                }
            }
            if self.is_read {
                return false;
            }
            match self.reader.next() {
                Some(Item::Input(input)) => self.trace.push(&input),
                Some(Item::Gap) => self.trace.gap(),
                None => {
                    self.is_read = true;
                    self.trace.break_off();
                }
            }
        }
    }

    /// Calls `take` with each of the remaining lines.
    ///
    /// # Errors
    /// The first error of `take`, which ends the calls.
    pub fn each<E>(&mut self, mut take: impl FnMut(&Line) -> Result<(), E>) -> Result<(), E> {
        while let Some(line) = self.lines.pop() {
            take(&line)?;
        }
        while self.read() {
            let taken = self.lines.iter().try_for_each(&mut take);
            self.lines.clear();
            taken?;
        }
        Ok(())
    }
}

impl<R: Read> Iterator for Replay<R> {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        if self.lines.is_empty() {
            if !self.read() {
                return None;
            }
            self.lines.reverse();
        }
        self.lines.pop()
    }
}
