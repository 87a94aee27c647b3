//! A recorded trace as an iterator of its lines.

use std::io::{self, BufRead, Cursor, Read};
use std::path::Path;
use std::vec;

use super::damage::Damage;
use super::lines::Lines;
use super::source::{self, Position};
use super::{Refused, Stopped};
use crate::clock::Clock;
use crate::fields::Line;
use crate::record::{Damaged, Recording};
use crate::sink::Sink;
use crate::story::{Input, Story};

type From = Box<dyn BufRead + Send>;

/// A recorded trace: the lines that were told, in the same order.
pub struct Recorded {
    clock: Clock,
    form: Form,
    position: Position,
}

/// What was recorded.
#[expect(clippy::large_enum_variant, reason = "there is one of it")]
enum Form {
    /// The lines, by `--write` or `-o json`.
    Lines(Lines<From>),
    /// What entered the correlator, as the golden tests have it.
    Inputs {
        story: Story,
        inputs: Recording<From>,
        /// What the last input gave and is not taken yet.
        lines: vec::IntoIter<Line>,
    },
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
            let recorded = Recorded::new(from)?;
            Ok(Recorded {
                position,
                ..recorded
            })
        });
        recorded.map_err(|why| anyhow::anyhow!("cannot replay {name}: {why}"))
    }

    /// Reads from anything, zstd-compressed or not.
    pub fn new(from: From) -> Result<Recorded, Refused> {
        let (inputs, from) = are_inputs(source::plain(from)?)?;
        let (clock, form) = if inputs {
            let (begin, inputs) = Recording::open(from)?;
            let mut story = Story::new(&begin);
            let clock = Clock::with_offset(begin.clock_offset_ns);
            let mut lines = vec![];
            story.tell(&Input::Begin(begin), &mut lines);
            let lines = lines.into_iter();
            (
                clock,
                Form::Inputs {
                    story,
                    inputs,
                    lines,
                },
            )
        } else {
            let (clock, lines) = Lines::open(from)?;
            (clock, Form::Lines(lines))
        };
        Ok(Recorded {
            clock,
            form,
            position: Position::default(),
        })
    }

    /// The clock of the machine that was traced.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// How far the file has been read.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// What could not be read so far: all, once the iterator has ended. (Of inputs
    /// nothing is left out: damage is an error there.)
    pub fn damage(&self) -> Damage {
        match &self.form {
            Form::Lines(lines) => lines.damage().clone(),
            Form::Inputs { .. } => Damage::default(),
        }
    }

    /// Tells the rest to the sinks; what could not be read is the value.
    pub fn tell(mut self, sinks: &mut [Box<dyn Sink>]) -> Result<Damage, Stopped> {
        for line in &mut self {
            let line = line?;
            sinks.iter_mut().try_for_each(|sink| sink.line(&line))?;
        }
        sinks.iter_mut().try_for_each(|sink| sink.flush())?;
        Ok(self.damage())
    }
}

/// An error ends it. There is none where lines were recorded: what cannot be read of these is left
/// out, see [`Recorded::damage`].
impl Iterator for Recorded {
    type Item = Result<Line, Damaged>;

    fn next(&mut self) -> Option<Self::Item> {
        let (story, inputs, lines) = match &mut self.form {
            Form::Lines(lines) => return lines.next().map(Ok),
            Form::Inputs {
                story,
                inputs,
                lines,
            } => (story, inputs, lines),
        };
        loop {
            if let Some(line) = lines.next() {
                return Some(Ok(line));
            }
            let mut told = vec![];
            if !story.more(&mut told) {
                match inputs.next()? {
                    Ok(input) => story.tell(&input, &mut told),
                    Err(error) => return Some(Err(error)),
                }
            }
            *lines = told.into_iter();
        }
    }
}

/// Whether these are inputs, not lines: these begin with a comment, or with their "begin".
fn are_inputs(mut from: From) -> io::Result<(bool, From)> {
    const BEGIN: &[u8] = br#"{"begin":"#;
    let mut first = vec![];
    from.by_ref()
        .take(BEGIN.len() as u64)
        .read_to_end(&mut first)?;
    let inputs = first.starts_with(b"#") || first == BEGIN;
    Ok((inputs, Box::new(Cursor::new(first).chain(from))))
}
