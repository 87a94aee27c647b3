//! JSON Lines to [`Line`]s: what `--write` has written, read back.

use std::borrow::Cow;
use std::io::{self, BufRead};
use std::time::UNIX_EPOCH;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::Refused;
use super::damage::Damage;
use crate::bounded;
use crate::clock::Clock;
use crate::fields::{Line, SCHEMA};
use crate::printable::printable;

/// A recording is recognised by one of its first lines, so that these may be damaged too.
const LOOKED_AT: u64 = 8;

/// The lines of a recording, as far as they can be read.
pub struct Lines<R> {
    from: R,
    /// The line that was read last. Reused.
    text: Vec<u8>,
    recognised: bool,
    /// That line is still to be told: it was read to recognise the recording.
    pending: bool,
    damage: Damage,
    begun: bool,
    ended: bool,
}

impl<R: BufRead> Lines<R> {
    /// Recognises a recording, and learns its clock.
    pub fn open(from: R) -> Result<(Clock, Lines<R>), Refused> {
        let mut lines = Lines {
            from,
            text: vec![],
            recognised: false,
            pending: true,
            damage: Damage::default(),
            begun: false,
            ended: false,
        };
        while lines.damage.lines < LOOKED_AT && lines.read()? {
            match recognise(&lines.text)? {
                Some((event, clock)) => {
                    lines.recognised = true;
                    lines.damage.headless = event != "session";
                    return Ok((clock, lines));
                }
                None => lines.damage.leave_out("no line of a trace"),
            }
        }
        match lines.damage.unreadable {
            0 => Err(Refused::Empty),
            _ => Err(Refused::NoRecording),
        }
    }

    /// What could not be read so far.
    pub fn damage(&self) -> &Damage {
        &self.damage
    }

    /// Reads the next line that is not empty; false at the end.
    fn read(&mut self) -> io::Result<bool> {
        loop {
            let read = bounded::read_line(&mut self.from, &mut self.text)?;
            self.damage.lines += u64::from(read != bounded::Line::End);
            match read {
                bounded::Line::End => return Ok(false),
                bounded::Line::TooLong => {
                    self.damage
                        .leave_out("it is longer than any line of a trace");
                    if !self.recognised {
                        // It may be /dev/zero.
                        return Ok(false);
                    }
                    self.from.skip_until(b'\n')?;
                }
                bounded::Line::Whole if self.text.trim_ascii().is_empty() => {}
                bounded::Line::Whole => return Ok(true),
            }
        }
    }

    /// Ends here, for a reason if there is one.
    fn end(&mut self, why: Option<io::Error>) -> Option<Line> {
        self.damage.no_summary = !self.ended;
        if let Some(why) = why {
            self.damage.fail(why);
        }
        None
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        loop {
            if self.damage.another.is_some() {
                return None;
            }
            if !std::mem::take(&mut self.pending) {
                match self.read() {
                    Ok(true) => {}
                    Ok(false) => return self.end(None),
                    Err(error) => return self.end(Some(error)),
                }
            }
            match line(&self.text) {
                Ok(Some(Line::Session(_))) if self.begun => {
                    self.damage.another = Some(self.damage.lines);
                }
                Ok(Some(line)) => {
                    self.begun = true;
                    self.ended |= matches!(line, Line::Summary(_));
                    return Some(line);
                }
                Ok(None) => {
                    let kind = event(&self.text).unwrap_or_default();
                    self.damage.pass_over(&kind);
                }
                // Its writer was killed, or the disk was full.
                Err(_) if !self.text.ends_with(b"\n") => {
                    self.damage.lines -= 1;
                    self.damage.fail("in the middle of a line");
                    return self.end(None);
                }
                Err(error) => self.damage.leave_out(plain(&error)),
            }
        }
    }
}

/// The name of a line's event, and the clock of its trace; `None` when it is no line of a trace.
fn recognise(text: &[u8]) -> Result<Option<(Cow<'_, str>, Clock)>, Refused> {
    #[derive(Deserialize)]
    struct Head<'a> {
        #[serde(borrow)]
        event: Cow<'a, str>,
        #[serde(borrow)]
        ts: Cow<'a, str>,
        mono_ns: u64,
        /// Of a session.
        schema: Option<u32>,
        version: Option<String>,
    }
    let Ok(head) = serde_json::from_slice::<Head>(text) else {
        return Ok(None);
    };
    // Schema 1 is the first. Lines of an older one would be brought up to this one by `line`.
    if let (Some(schema), "session") = (head.schema, &*head.event)
        && schema != SCHEMA
    {
        let version = printable(head.version.as_deref().unwrap_or_default()).into_owned();
        return Err(Refused::Schema { schema, version });
    }
    // Each line has its time on the wall and since the start of the machine.
    let clock = humantime::parse_rfc3339(&head.ts).ok().and_then(|wall| {
        let wall_ns = wall.duration_since(UNIX_EPOCH).ok()?.as_nanos();
        let offset_ns = u64::try_from(wall_ns).ok()?.checked_sub(head.mono_ns)?;
        Some(Clock::with_offset(offset_ns))
    });
    Ok(clock.map(|clock| (head.event, clock)))
}

/// Reads a line; `None` when it is of a kind that this version does not know.
fn line(text: &[u8]) -> serde_json::Result<Option<Line>> {
    fn of<T: DeserializeOwned>(
        text: &[u8],
        kind: fn(T) -> Line,
    ) -> serde_json::Result<Option<Line>> {
        serde_json::from_slice(text).map(|line| Some(kind(line)))
    }
    match &*event(text)? {
        "session" => of(text, Line::Session),
        "preexisting" => of(text, Line::Preexisting),
        "transition" => of(text, Line::Transition),
        "accept" => of(text, Line::Accept),
        "overflow" => of(text, Line::Overflow),
        "segment" => of(text, Line::Segment),
        "connection" => of(text, Line::Connection),
        "retransmit" => of(text, Line::Retransmit),
        "reset" => of(text, Line::Reset),
        "time_wait" => of(text, Line::TimeWait),
        "histogram" => of(text, Line::Histogram),
        "lost" => of(text, Line::Lost),
        "summary" => of(text, Line::Summary),
        // It may be no JSON after its name.
        _ => serde_json::from_slice::<IgnoredAny>(text).map(|_| None),
    }
}

/// The name of a line's event. tcptrace writes it first, where it is found without reading on.
fn event(text: &[u8]) -> serde_json::Result<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(borrow)]
        event: Cow<'a, str>,
    }
    let rest = text.strip_prefix(br#"{"event":""#);
    let name = rest.and_then(|rest| rest.split(|&byte| byte == b'"').next());
    match name.map(str::from_utf8) {
        Some(Ok(name)) if !name.contains('\\') => Ok(name.into()),
        _ => serde_json::from_slice::<Event>(text).map(|it| it.event),
    }
}

/// serde_json's words without its "line 1": it sees one line at a time.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line 1 column ") {
        Some((what, column)) => format!("{what} at byte {column}"),
        None => text,
    }
}

#[cfg(test)]
mod tests;
